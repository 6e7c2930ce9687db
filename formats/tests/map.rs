//! The walk over an image's extents is the map that `qemu-img map` prints.

mod support;

use std::path::Path;

use formats::{Format, Image};
use support::{FileStorage, Kind, Line, Random, create, qemu_img_ok, qemu_io, qemu_map, text, walk};

fn agrees(path: &Path, format: Format) {
    let mut random = Random(9);
    // The disk space of a file, which decides whether holes count, is settled only once it is written back.
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    let mut image = Image::open(FileStorage::open(path), Some(format)).unwrap();
    let lines = walk(&mut image).unwrap();
    assert_eq!(lines, qemu_map(format.name(), path), "{}", path.display());
    assert_eq!(image.format(), format);
    for _ in 0..100 {
        let Some(&line) = lines.get(usize::try_from(random.below(lines.len().max(1) as u64)).unwrap()) else {
            break;
        };
        let skip = random.below(line.length);
        let extent = image.extent_at(line.start + skip).unwrap();
        assert!(extent.length <= line.length - skip, "{extent:?} in {line:?}");
        let expected = if let Kind::Data(offset) = line.kind { Kind::Data(offset + skip) } else { line.kind };
        assert_eq!(Kind::of(extent.kind), expected, "at {skip} of {line:?}");
    }
}

/// Sector-aligned writes all over a disk of `size` bytes: data, zeros kept and zeros with space, discards.
fn scatter(path: &Path, size: u64, random: &mut Random, version_3: bool) {
    let mut commands = Vec::new();
    for _ in 0..40 {
        let offset = random.below(size / 512) * 512;
        let length = ((random.below(96) + 1) * 2048).min(size - offset);
        commands.push(match random.below(6) {
            0 if version_3 => format!("write -z {offset} {length}"),
            1 if version_3 => format!("write -zu {offset} {length}"),
            2 => format!("discard {offset} {length}"),
            _ => format!("write -P 7 {offset} {length}"),
        });
    }
    qemu_io("qcow2", path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn raw_files_with_and_without_holes_and_odd_lengths() {
    let directory = tempfile::tempdir().unwrap();
    for (index, (length, data)) in [
        (0, None),
        (1, Some(0)),
        (511, Some(0)),
        (512, Some(0)),
        (1025, Some(0)),
        (1 << 20, None),
        (1_000_001, None),
        (1_000_001, Some(1_000_000)),
        (1_000_001, Some(0)),
        (3 << 20, Some(1 << 20)),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(format!("{index}.raw"));
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(length).unwrap();
        if let Some(offset) = data {
            std::os::unix::fs::FileExt::write_all_at(&file, &[1], offset).unwrap();
        }
        agrees(&path, Format::Raw);
    }
}

#[test]
fn every_cluster_size_and_version() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    for bits in 9..=21 {
        for (compat, version_3) in [("0.10", false), ("1.1", true)] {
            let options = format!("compat={compat},cluster_size={}", 1u32 << bits);
            let name = format!("{bits}-{compat}.qcow2");
            let size = (10 << 20) + 512 * 3;
            let path = create(directory.path(), &name, &options, &size.to_string());
            agrees(&path, Format::Qcow2);
            scatter(&path, size, &mut random, version_3);
            agrees(&path, Format::Qcow2);
        }
    }
}

#[test]
fn every_refcount_width() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(2);
    for order in 0..=6 {
        let options = format!("refcount_bits={},cluster_size=4096", 1 << order);
        let path = create(directory.path(), &format!("{order}.qcow2"), &options, "8M");
        scatter(&path, 8 << 20, &mut random, true);
        agrees(&path, Format::Qcow2);
    }
}

#[test]
fn extended_l2_entries() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(3);
    for bits in 14..=21 {
        let options = format!("extended_l2=on,cluster_size={}", 1u32 << bits);
        let path = create(directory.path(), &format!("{bits}.qcow2"), &options, "20M");
        scatter(&path, 20 << 20, &mut random, true);
        agrees(&path, Format::Qcow2);
    }
}

#[test]
fn every_preallocation() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(4);
    for preallocation in ["off", "metadata", "falloc", "full"] {
        for extra in [
            "",
            ",cluster_size=4096,refcount_bits=1",
            ",cluster_size=2M",
            ",extended_l2=on",
            ",lazy_refcounts=on",
        ] {
            let options = format!("preallocation={preallocation}{extra}");
            let name = format!("{preallocation}{extra}.qcow2");
            let path = create(directory.path(), &name, &options, "16777728");
            agrees(&path, Format::Qcow2);
            scatter(&path, 16 << 20, &mut random, true);
            agrees(&path, Format::Qcow2);
        }
    }
}

#[test]
fn compressed_clusters() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("disk.raw");
    let mut bytes = vec![0u8; (3 << 20) + 512];
    let mut random = Random(5);
    for at in (0..bytes.len()).step_by(65536).filter(|at| at / 65536 % 3 != 2) {
        let end = (at + 40000).min(bytes.len());
        let noise = at / 65536 % 2 == 0;
        bytes[at..end].fill_with(|| if noise { random.next().to_le_bytes()[3] } else { b'a' });
    }
    std::fs::write(&raw, bytes).unwrap();
    for options in [
        "compression_type=zlib",
        "compression_type=zstd",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
    ] {
        let path = directory.path().join(format!("{options}.qcow2"));
        qemu_img_ok(&["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, text(&raw), text(&path)]);
        agrees(&path, Format::Qcow2);
        let mut image = Image::open(FileStorage::open(&path), None).unwrap();
        assert!(walk(&mut image).unwrap().iter().any(|line| line.kind == Kind::Compressed), "{options}");
    }
}

#[test]
fn snapshots_and_resizing_leave_a_map_that_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(6);
    for options in ["compat=0.10,cluster_size=512", "cluster_size=4096", "extended_l2=on"] {
        let path = create(directory.path(), &format!("{options}.qcow2"), options, "6M");
        let version_3 = !options.contains("0.10");
        for snapshot in ["one", "two"] {
            scatter(&path, 6 << 20, &mut random, version_3);
            qemu_img_ok(&["snapshot", "-c", snapshot, text(&path)]);
            agrees(&path, Format::Qcow2);
        }
        qemu_img_ok(&["snapshot", "-a", "one", text(&path)]);
        agrees(&path, Format::Qcow2);
        qemu_img_ok(&["snapshot", "-d", "two", text(&path)]);
        qemu_img_ok(&["snapshot", "-d", "one", text(&path)]);
        for size in ["90M", "3M", "512"] {
            qemu_img_ok(&["resize", "-q", "--shrink", "-f", "qcow2", text(&path), size]);
            agrees(&path, Format::Qcow2);
        }
    }
}

#[test]
fn large_and_nearly_empty_disks() {
    let directory = tempfile::tempdir().unwrap();
    for (options, size) in [("", "1T"), ("cluster_size=2M", "1P"), ("cluster_size=512", "64G")] {
        let path = create(directory.path(), &format!("{options}{size}.qcow2"), options, size);
        agrees(&path, Format::Qcow2);
        qemu_io("qcow2", &path, &["write -P 1 63G 1M", "write -P 1 3G 1M", "write -P 2 0 512"]);
        agrees(&path, Format::Qcow2);
    }
}

/// Four million empty L1 entries are one extent, and what lies between them is found.
#[test]
fn the_largest_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "2P.qcow2", "", "2P");
    let unallocated = |start, length| Line { start, length, kind: Kind::Unallocated };
    let lines = walk(&mut Image::open(FileStorage::open(&path), None).unwrap()).unwrap();
    assert_eq!(lines, [unallocated(0, 2 << 50)]);
    qemu_io("qcow2", &path, &["write -P 1 1P 64k"]);
    let lines = walk(&mut Image::open(FileStorage::open(&path), None).unwrap()).unwrap();
    assert!(matches!(lines[1], Line { start, length: 65536, kind: Kind::Data(_) } if start == 1 << 50));
    let after = (1 << 50) + 65536;
    assert_eq!([lines[0], lines[2]], [unallocated(0, 1 << 50), unallocated(after, (1 << 50) - 65536)]);
}

/// As a preallocated image fills, there comes the point where its holes count as data.
#[test]
fn holes_stop_counting_where_they_do_for_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let options = "preallocation=metadata,cluster_size=4096";
    let path = create(directory.path(), "filling.qcow2", options, "4M");
    let zeros = |path: &Path| {
        let lines = walk(&mut Image::open(FileStorage::open(path), None).unwrap()).unwrap();
        lines.iter().any(|line| line.kind == Kind::Zero)
    };
    let mut seen = (0, 0);
    for step in 0..64 {
        agrees(&path, Format::Qcow2);
        if zeros(&path) {
            seen.0 += 1;
        } else {
            seen.1 += 1;
        }
        // Sixteen clusters that are no neighbours.
        let writes: Vec<String> =
            (0..16).map(|part| format!("write -P 1 {} 4k", (part * 64 + step) * 4096)).collect();
        qemu_io("qcow2", &path, &writes.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert!(seen.0 > 40 && seen.1 > 3, "{seen:?}");
}
