//! `measure FILE` against the real `qemu-img`, over every image of `images/corpus.sh`.

mod common;

use std::{
    ffi::CString,
    fs::{self, File},
    io::Read,
    os::{fd::FromRawFd, unix::ffi::OsStrExt},
    path::Path,
};

use common::{Bench, corpus, settle};

/// Targets for every image: name and options.
const ALWAYS: [(&str, &str); 3] = [("raw", ""), ("qcow2", ""), ("qcow2", "cluster_size=512")];

/// Targets that the images take in turn.
const IN_TURN: [(&str, &str); 10] = [
    ("qcow2", "compat=0.10"),
    ("qcow2", "cluster_size=4k"),
    ("qcow2", "cluster_size=2M"),
    ("qcow2", "refcount_bits=1,cluster_size=1k"),
    ("qcow2", "refcount_bits=64"),
    ("qcow2", "extended_l2=on,cluster_size=128k"),
    ("qcow2", "preallocation=falloc"),
    ("qcow2", "backing_file=x"),
    ("qcow2", "size=1G,preallocation=metadata"),
    ("raw", "size=1G"),
];

#[test]
fn images_are_measured_as_qemu_img_measures_them() {
    let bench = Bench::new();
    let names = corpus(bench.directory(), "*");
    assert!(names.len() >= 200, "only {} images", names.len());
    let mut turns = IN_TURN.iter().cycle();
    let mut rows = vec![];
    for (index, name) in names.iter().enumerate() {
        let format = name.rsplit('.').next().unwrap();
        let targets = ALWAYS.iter().chain(turns.by_ref().take(3));
        for (number, &(target, options)) in targets.enumerate() {
            // Each target with and without JSON and a format, over the images.
            let (json, probed) = ((index + number) % 2 == 0, (index / 2 + number) % 2 == 0);
            let mut row = vec!["measure", "--output", if json { "json" } else { "human" }, "-O", target];
            if !probed {
                row.extend(["-f", format]);
            }
            if !options.is_empty() {
                row.extend(["-o", options]);
            }
            row.push(name);
            rows.push(row);
        }
    }
    bench.assert_same(&rows);
    println!("{} images, {} rows", names.len(), rows.len());
}

#[test]
fn an_image_read_as_another_format_is_what_it_is_to_qemu_img() {
    let bench = Bench::new();
    let mut names = corpus(bench.directory(), "length-*");
    names.extend(corpus(bench.directory(), "zlib-*"));
    let mut rows = vec![];
    for name in &names {
        for format in ["raw", "qcow2", "nosuch"] {
            rows.push(vec!["measure", "-f", format, "-O", "qcow2", name]);
        }
        for snapshot in ["nosuch", "snapshot.id=1,snapshot.name=nosuch"] {
            rows.push(vec!["measure", "-l", snapshot, "-O", "qcow2", name]);
        }
    }
    bench.assert_same(&rows);
}

/// A raw image whose map of holes is too long for the command: it becomes a disk of its own.
#[test]
fn thousands_of_holes_are_counted() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::new();
    for (name, extents) in [("few.raw", 1000_u64), ("many.raw", 5000)] {
        let file = File::create(bench.path(name)).unwrap();
        file.set_len(extents * 65536 + 12345).unwrap();
        for index in 0..extents {
            file.write_all_at(b"x", index * 65536 + 8192 * (index % 7)).unwrap();
        }
    }
    settle(bench.directory());
    let row = |name, options| vec!["measure", "-O", "qcow2", "-o", options, name];
    bench.assert_same(&[
        row("few.raw", "cluster_size=4k"),
        row("many.raw", "cluster_size=4k"),
        row("many.raw", "cluster_size=512"),
        row("many.raw", "cluster_size=128k"),
    ]);
}

/// Type, first sector, number of sectors, offset and length in the file: a chunk of an Apple disk image.
type Chunk = (u32, u64, u64, u64, u64);

/// An Apple disk image that begins with `data`.
fn apple_disk_image(data: &[u8], chunks: &[Chunk], sectors: u64) -> Vec<u8> {
    let mut block = b"mish".to_vec();
    block.resize(204, 0);
    for &(kind, sector, count, offset, length) in chunks {
        block.extend([kind.to_be_bytes(), [0; 4]].concat());
        block.extend([sector, count, offset, length].into_iter().flat_map(u64::to_be_bytes));
    }
    let length = block.len() as u32;
    let header = [16, 20 + length, 4 + length, 0, length];
    let fork = [header.into_iter().flat_map(u32::to_be_bytes).collect(), block].concat();
    let mut trailer = [0; 512];
    for (at, number) in [(0x28, data.len() as u64), (0x30, fork.len() as u64), (0x1ec, sectors)] {
        trailer[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }
    trailer[..4].copy_from_slice(b"koly");
    [data, &fork, &trailer].concat()
}

const ZERO: u32 = 0;
const RAW: u32 = 1;
const BZIP2: u32 = 0x8000_0006;
const LZFSE: u32 = 0x8000_0007;
const LZMA: u32 = 0x8000_0008;

#[test]
fn apple_disk_images_are_all_data() {
    let bench = Bench::new();
    let mut rows = vec![];
    for (name, sectors) in [("empty.dmg", 0), ("small.dmg", 200), ("odd.dmg", 12345), ("large.dmg", 1 << 31)]
    {
        let chunks = [(RAW, 0, 8, 0, 4096), (ZERO, 8, 1 << 40, 0, 0)];
        fs::write(bench.path(name), apple_disk_image(&[7; 4096], &chunks, sectors)).unwrap();
        for (target, options) in ALWAYS.iter().chain(&IN_TURN) {
            for format in [&["-f", "dmg"][..], &[]] {
                let options: &[&str] = if options.is_empty() { &[] } else { &["-o", options] };
                rows.push([&["measure", "-O", target], format, options, &[name]].concat());
            }
        }
        rows.push(vec!["measure", "-f", "raw", name]);
        rows.push(vec!["measure", "-l", "1", name]);
    }
    bench.assert_same(&rows);
}

/// An Apple disk image has no signature where others have theirs: `qemu-img` goes by the name.
#[test]
fn a_name_that_ends_in_dmg_is_a_sign_of_the_format() {
    let bench = Bench::new();
    let image = apple_disk_image(&[], &[(ZERO, 0, 4096, 0, 0)], 4096);
    let cloop = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
    for (name, bytes) in [
        ("image.dmg", &image[..]),
        (".dmg", &image),
        ("image.DMG", &image),
        ("image.dmg.raw", &image),
        ("imagedmg", &image),
        ("empty.dmg", b""),
        ("zeros.dmg", &[0; 4096]),
        ("cloop.dmg", &cloop[..]),
        ("koly.dmg", &image[image.len() - 512..]),
    ] {
        fs::write(bench.path(name), bytes).unwrap();
    }
    bench.make(&["create", "-q", "-f", "qcow2", "qcow2.dmg", "1M"]);
    fs::create_dir(bench.path("directory.dmg")).unwrap();
    let names = [
        "image.dmg",
        "./image.dmg",
        "file:image.dmg",
        ".dmg",
        "./.dmg",
        "file:.dmg",
        "image.DMG",
        "image.dmg.raw",
        "imagedmg",
        "empty.dmg",
        "zeros.dmg",
        "cloop.dmg",
        "qcow2.dmg",
        "directory.dmg",
        "missing.dmg",
    ];
    let mut rows: Vec<Vec<&str>> = names.iter().map(|name| vec!["measure", "-O", "qcow2", name]).collect();
    rows.push(vec!["measure", "-f", "raw", "image.dmg"]);
    bench.assert_same(&rows);
    let said = bench.instar(&["measure", "koly.dmg"]);
    let message = "instar: Could not open 'koly.dmg': A part does not end before the trailer (invalid-format: RsrcForkOffset)\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), message));
}

/// docs/quirks.md: `qemu-img` may lack a decoder, and says so on stderr whether it is needed or not.
#[test]
fn chunks_that_qemu_img_cannot_decode_are_no_reason_for_a_warning() {
    let bench = Bench::new();
    for (index, kind) in [BZIP2, LZFSE, LZMA].into_iter().enumerate() {
        let name = format!("{index}.dmg");
        let chunks = [(ZERO, 0, 64, 0, 0), (kind, 64, 64, 0, 100)];
        fs::write(bench.path(&name), apple_disk_image(&[0; 512], &chunks, 128)).unwrap();
        let row = ["measure", "-O", "qcow2", &name];
        let (ours, theirs) = (bench.drop_in(&row), bench.reference(&row));
        assert_eq!((ours.code, &ours.stdout), (theirs.code, &theirs.stdout));
        assert_eq!((ours.code, ours.stderr.as_str()), (Some(0), ""));
    }
}

/// Tells whether a file is opened.
struct Watch(File);

impl Watch {
    fn on(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: no pointer is passed but a string that lives through the call; the descriptor is ours alone.
        let file = unsafe {
            let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            assert!(fd >= 0);
            assert!(libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_OPEN | libc::IN_ACCESS) >= 0);
            File::from_raw_fd(fd)
        };
        Self(file)
    }

    fn opened(&mut self) -> bool {
        self.0.read(&mut [0; 4096]).is_ok()
    }
}

/// docs/quirks.md: a name inside an image is reported, never followed.
#[test]
fn references_are_denied_and_nothing_is_opened() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "raw", "base.raw", "1M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "base.qcow2", "1M"]);
    let absolute = bench.path("base.raw");
    let absolute = absolute.to_str().unwrap();
    for (name, backing, format) in [
        ("relative.qcow2", "base.raw", "raw"),
        ("absolute.qcow2", absolute, "raw"),
        ("chain.qcow2", "relative.qcow2", "qcow2"),
        ("itself.qcow2", "./itself.qcow2", "qcow2"),
        ("json.qcow2", r#"json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"}}"#, "raw"),
        ("device.qcow2", "/dev/zero", "raw"),
        ("missing.qcow2", "no-such-file", "raw"),
        ("control.qcow2", "a\x1b[31mred\nnew line", "raw"),
    ] {
        bench.make(&["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, name, "1M"]);
    }
    bench.make(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=base.raw,data_file_raw=on",
        "data.qcow2",
        "1M",
    ]);

    let mut watch = Watch::on(&bench.path("base.raw"));
    assert_eq!(bench.reference(&["measure", "-O", "qcow2", "relative.qcow2"]).code, Some(0));
    assert!(watch.opened(), "qemu-img follows the name, and the test can tell");

    for name in fs::read_dir(bench.directory()).unwrap() {
        let name = name.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".qcow2") || name == "base.qcow2" {
            continue;
        }
        for target in ["raw", "qcow2"] {
            let said = bench.instar(&["measure", "-O", target, &name]);
            assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{name}: {said}");
            assert_eq!(said.stderr.lines().count(), 1, "{name}: {said}");
            assert!(said.stderr.contains(&format!("instar: Could not open '{name}': ")), "{name}: {said}");
            assert!(said.stderr.contains("(reference-denied: "), "{name}: {said}");
            assert!(!said.stderr.contains('\x1b'), "{name}: {said}");
        }
    }
    assert!(!watch.opened(), "a file named by an image was opened");
}
