//! The walk over a VMDK image's extents is the map that `qemu-img map` prints.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::vmdk::CreateType;
use formats::{FileIndex, Image};
use support::vmdk::{self, UNMAPPED, ZERO, convert, cowd, descriptor, patch, se_sparse, with_footer};
use support::{FileStorage, Kind, Line, Random, qemu_img_ok, qemu_io, qemu_map, text, walk};

fn agrees(path: &Path) -> Vec<Line> {
    let mut random = Random(9);
    let mut image = vmdk::open(path).unwrap();
    let lines = walk(&mut image).unwrap();
    assert_eq!(lines, qemu_map("vmdk", path), "{}", path.display());
    for _ in 0..100 {
        let Some(&line) = lines.get(usize::try_from(random.below(lines.len().max(1) as u64)).unwrap()) else {
            break;
        };
        let skip = random.below(line.length);
        let extent = image.extent_at(line.start + skip).unwrap();
        let expected = if let Kind::Data(offset) = line.kind { Kind::Data(offset + skip) } else { line.kind };
        assert_eq!(Kind::of(extent.kind), expected, "at {skip} of {line:?}");
    }
    lines
}

fn scatter(path: &Path, size: u64, random: &mut Random, zeros: bool) {
    let mut commands = Vec::new();
    for _ in 0..24 {
        let offset = random.below(size / 512) * 512;
        let length = ((random.below(96) + 1) * 2048).min(size - offset);
        commands.push(match random.below(4) {
            0 if zeros => {
                let aligned = offset / 65536 * 65536;
                format!("write -z {aligned} {}", 131_072.min(size - aligned))
            }
            _ => format!("write -P 7 {offset} {length}"),
        });
    }
    qemu_io("vmdk", path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A raw file: runs of data, of what compresses well and of nothing.
fn raw(directory: &Path, name: &str, size: u64, random: &mut Random) -> PathBuf {
    let path = directory.join(name);
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for _ in 0..12 {
        let offset = random.below(size / 512) * 512;
        let length = usize::try_from((random.below(500) * 512 + 512).min(size - offset)).unwrap();
        let noise = random.below(2) == 0;
        let bytes: Vec<u8> =
            (0..length).map(|_| if noise { random.next().to_le_bytes()[3] } else { 1 }).collect();
        file.write_all_at(&bytes, offset).unwrap();
    }
    path
}

#[test]
fn every_subformat_size_and_pattern() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    for subformat in ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        for size in [512, 65536, 1 << 20, (32 << 20) + 512, (5 << 30) + 1024] {
            for zeros in [false, true] {
                let sparse = subformat.ends_with("Sparse");
                let options = if zeros && sparse { ",zeroed_grain=on" } else { "" };
                let name = format!("{subformat}-{size}-{zeros}.vmdk");
                let path = vmdk::create(directory.path(), &name, subformat, options, &size.to_string());
                agrees(&path);
                scatter(&path, size, &mut random, zeros);
                let lines = agrees(&path);
                assert_eq!(lines.iter().map(|line| line.length).sum::<u64>(), size);
            }
        }
    }
}

#[test]
fn streams_with_and_without_a_footer() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(2);
    for size in [512, 65536, 65536 + 512, 1 << 20, (40 << 20) + 512] {
        let raw = raw(directory.path(), &format!("{size}.raw"), size, &mut random);
        let path = convert(&raw, &format!("{size}.vmdk"), "subformat=streamOptimized");
        let lines = agrees(&path);
        assert!(lines.iter().any(|line| line.kind == Kind::Compressed), "{size}");
        let image = vmdk::open(&path).unwrap();
        assert_eq!(image.vmdk().unwrap().create_type(), Some(CreateType::StreamOptimized));
        let footer = directory.path().join(format!("{size}-footer.vmdk"));
        std::fs::write(&footer, with_footer(std::fs::read(&path).unwrap())).unwrap();
        assert_eq!(agrees(&footer), lines);
        // A header without capacity, which only the footer makes up for.
        let mut bytes = std::fs::read(&footer).unwrap();
        patch(&mut bytes, &[(12, 8, 0), (28, 8, 0)]);
        std::fs::write(&footer, bytes).unwrap();
        assert_eq!(agrees(&footer), lines);
    }
}

#[test]
fn versions_and_grains_of_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    let path = vmdk::create(directory.path(), "a.vmdk", "monolithicSparse", "", "64M");
    scatter(&path, 64 << 20, &mut Random(3), false);
    let base = std::fs::read(&path).unwrap();
    for patches in [
        &[(4, 4, 0)][..],
        &[(4, 4, 2)],
        &[(4, 4, 3)],
        // Grains of 3 sectors, of 1 GiB; tables of 1 and of 100 entries.
        &[(20, 8, 3), (12, 8, 4096)],
        &[(20, 8, 0x20_0000), (12, 8, 0x4000_0000)],
        &[(44, 4, 1), (12, 8, 4 * 128)],
        &[(44, 4, 100), (12, 8, 399 * 128)],
        // No redundant directory; an entry of 1 with and without a meaning.
        &[(8, 4, 1)],
        &[(8, 4, 7), (27 * 512, 4, 1)],
        &[(8, 4, 3), (27 * 512, 4, 1)],
        // A disk of no size.
        &[(12, 8, 0), (28, 8, 0)],
        // Compressed grains without markers.
        &[(77, 2, 1)],
    ] {
        let mut bytes = base.clone();
        patch(&mut bytes, patches);
        std::fs::write(&path, bytes).unwrap();
        agrees(&path);
    }
}

#[test]
fn cowd_files_alone_and_behind_a_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    for (index, (grains, sectors, stored)) in
        [(1, 1, &[0][..]), (10, 128, &[1, 2, 5]), (9000, 1, &[0, 1, 4095, 4096, 8999]), (5000, 16, &[])]
            .into_iter()
            .enumerate()
    {
        let path = directory.path().join(format!("{index}.cowd"));
        std::fs::write(&path, cowd(grains, sectors, stored)).unwrap();
        let lines = agrees(&path);
        assert_eq!(
            lines.iter().filter(|line| matches!(line.kind, Kind::Data(_))).count() > 0,
            !stored.is_empty()
        );
        let text = directory.path().join("text.vmdk");
        let line = format!("RW 77 VMFSSPARSE \"{index}.cowd\"");
        std::fs::write(&text, descriptor("vmfsSparse", &line)).unwrap();
        assert_eq!(agrees(&text), lines);
    }
}

#[test]
fn se_sparse_files() {
    let directory = tempfile::tempdir().unwrap();
    let many: Vec<_> = (0..5000).map(|grain| (grain * 2, 0)).collect();
    for (sectors, entries) in [
        (8, &[(0, 0)][..]),
        (80_001, &[(0, 0), (1, 0), (2, ZERO), (3, UNMAPPED), (4, ZERO | 9), (5000, 0), (10_000, 0)]),
        (4096 * 8 * 5, &[(4096 * 3, 0)]),
        (1 << 20, &many),
        (1 << 24, &[(1 << 20, 0)]),
    ] {
        std::fs::write(directory.path().join("a-se.vmdk"), se_sparse(sectors, entries)).unwrap();
        let path = directory.path().join("text.vmdk");
        let line = format!("RW {sectors} SESPARSE \"a-se.vmdk\"");
        std::fs::write(&path, descriptor("seSparse", &line)).unwrap();
        agrees(&path);
    }
}

/// Extents of all kinds, sparse ones whose header says another length than the descriptor, files used twice.
#[test]
fn mixed_extents_of_one_disk() {
    let directory = tempfile::tempdir().unwrap();
    let size = 3 << 20;
    let at = |name: &str| directory.path().join(name);
    let sparse = vmdk::create(directory.path(), "sparse.vmdk", "monolithicSparse", "", "3M");
    scatter(&sparse, size, &mut Random(4), false);
    let raw = raw(directory.path(), "flat.raw", size, &mut Random(5));
    convert(&raw, "stream.vmdk", "subformat=streamOptimized");
    std::fs::write(at("cowd.vmdk"), cowd(100, 3, &[0, 7, 8])).unwrap();
    std::fs::write(at("se.vmdk"), se_sparse(1000, &[(1, 0), (2, ZERO)])).unwrap();
    let lines = "RW 100 SPARSE \"sparse.vmdk\"\n\
        RW 4000 FLAT \"flat.raw\" 100\n\
        RW 5 SPARSE \"stream.vmdk\"\n\
        RW 8000 VMFS \"flat.raw\"\n\
        RW 8 FLAT \"flat.raw\" 4\n\
        RW 1 VMFSSPARSE \"cowd.vmdk\"\n\
        RW 1 SESPARSE \"se.vmdk\"\n\
        RW 3 FLAT \"flat.raw\" 99999999\n";
    std::fs::write(at("text.vmdk"), descriptor("vmfs", lines)).unwrap();
    agrees(&at("text.vmdk"));
    let image = vmdk::open(&at("text.vmdk")).unwrap();
    let sizes: Vec<_> = image.vmdk().unwrap().extents().map(|extent| extent.virtual_size / 512).collect();
    assert_eq!(sizes, [6144, 4000, 6144, 8000, 8, 300, 1000, 3]);
    let files: Vec<_> = image.vmdk().unwrap().extents().map(|extent| extent.file.reference()).collect();
    assert_eq!(files, (0..8).map(Some).collect::<Vec<_>>());
    assert_eq!(image.references()[3], b"flat.raw");
}

#[test]
fn what_info_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = vmdk::create(directory.path(), "a.vmdk", "twoGbMaxExtentSparse", "", "5G");
    let image = vmdk::open(&path).unwrap();
    let info = qemu_img_ok(&["info", "--output=json", text(&path)]);
    let vmdk = image.vmdk().unwrap();
    let has = |what: String| assert!(info.contains(&what), "{what} in {info}");
    has(format!("\"cid\": {}", vmdk.cid()));
    has(format!("\"parent-cid\": {}", vmdk.parent_cid()));
    has(format!("\"create-type\": \"{}\"", vmdk.create_type().unwrap().name()));
    assert_eq!(vmdk.extents().count(), 3);
    for extent in vmdk.extents() {
        has(format!("\"virtual-size\": {}", extent.virtual_size));
        has(format!("\"cluster-size\": {}", extent.grain_size.unwrap()));
        has(format!("\"format\": \"{}\"", extent.kind.unwrap().name()));
    }
    let names: Vec<_> = image.references().iter().map(|name| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["a-s001.vmdk", "a-s002.vmdk", "a-s003.vmdk"]);
    assert_eq!(image.backing(), None);
}

#[test]
fn the_parent_is_named_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    vmdk::create(directory.path(), "base.vmdk", "monolithicSparse", "", "1M");
    let path = directory.path().join("top.vmdk");
    let base = directory.path().join("base.vmdk");
    qemu_img_ok(&["create", "-q", "-f", "vmdk", "-b", text(&base), "-F", "vmdk", text(&path)]);
    let image = Image::open(FileStorage::open(&path), None).unwrap();
    let backing = image.backing().unwrap();
    assert_eq!(backing.name, text(&base).as_bytes());
    assert_eq!(backing.format.as_deref(), Some(&b"vmdk"[..]));
    let base = vmdk::open(&base).unwrap();
    assert_eq!(image.vmdk().unwrap().parent_cid(), base.vmdk().unwrap().cid());
    assert_eq!(image.file(FileIndex::OWN).map(|file| file.0.metadata().unwrap().len()), Some(65536));
}
