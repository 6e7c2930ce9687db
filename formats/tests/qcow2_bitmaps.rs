//! Persistent bitmaps of qcow2 images that are written to.

mod support;

use std::ops::Range;
use std::path::Path;

use formats::qcow2::{create, open};
use formats::write::{NewBitmap, Writer as _};
use formats::{ErrorKind, Image, Key};
use support::qcow2::{options, write};
use support::{create as qemu_create, qemu_img_ok, qemu_io, text};

const MIB: u64 = 1 << 20;

fn ranges(bytes: &[u8], name: &str) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let mut image = Image::open(bytes, None).unwrap();
    assert!(image.visit_bitmap(name.as_bytes(), &mut |range| found.push(range)).unwrap(), "{name}");
    found
}

/// An image with bitmaps of several kinds and granularities, and data that all but the last know of.
fn image(directory: &Path, list: &str, size: &str) -> std::path::PathBuf {
    let path = qemu_create(directory, "source", list, size);
    let add = |arguments: &[&str], name: &str| {
        qemu_img_ok(&[&["bitmap", "--add"], arguments, &[text(&path), name]].concat());
    };
    add(&["-g", "65536"], "coarse");
    add(&["-g", "4096", "--disable"], "disabled");
    add(&["-g", "512"], "fine");
    qemu_io("qcow2", &path, &["write 0 100k", "write 3M 4k", "write 5000k 512", "write -z 9M 1M"]);
    add(&["-g", "1M"], "late");
    path
}

#[test]
fn bits_that_are_set_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(image(directory.path(), "cluster_size=512", "12M")).unwrap();
    let mut fine = vec![0..100 << 10, 3 * MIB..3 * MIB + 4096, 5_120_000..5_120_512];
    fine.push(9 * MIB..10 * MIB);
    assert_eq!(ranges(&bytes, "fine"), fine);
    assert_eq!(ranges(&bytes, "disabled"), []);
    assert_eq!(ranges(&bytes, "late"), []);
    let mut image = Image::open(&bytes[..], None).unwrap();
    assert!(!image.visit_bitmap(b"none", &mut |_| {}).unwrap());
}

#[test]
fn copied_bitmaps_lie_where_the_reference_puts_them() {
    let directory = tempfile::tempdir().unwrap();
    for (list, size) in
        [("", 12 * MIB), ("cluster_size=512", 12 * MIB), ("cluster_size=4096", 11 * MIB + 512)]
    {
        let path = image(directory.path(), list, &size.to_string());
        let other = directory.path().join("other");
        let mut arguments = vec!["convert", "--bitmaps", "-S", "0", "-O", "qcow2"];
        if !list.is_empty() {
            arguments.extend(["-o", list]);
        }
        arguments.extend([text(&path), text(&other)]);
        qemu_img_ok(&arguments);
        let source = std::fs::read(&path).unwrap();
        let disk = directory.path().join("disk");
        qemu_img_ok(&["convert", "-O", "raw", text(&path), text(&disk)]);

        let mut writer = create(Vec::new(), None, &options(list, size)).unwrap();
        write(&mut writer, 0, &std::fs::read(disk).unwrap());
        for bitmap in Image::open(&source[..], None).unwrap().bitmaps() {
            let name = String::from_utf8(bitmap.name.clone()).unwrap();
            let new = NewBitmap {
                name: &bitmap.name,
                granularity_bits: bitmap.granularity_bits,
                auto: bitmap.auto,
            };
            writer
                .add_bitmap(&new, &mut |visit| {
                    ranges(&source, &name).into_iter().for_each(visit);
                    Ok(())
                })
                .unwrap();
        }
        writer.finish().unwrap();
        let (ours, _) = writer.into_storage();
        let theirs = std::fs::read(&other).unwrap();
        if ours != theirs {
            let at = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            panic!("{list}: lengths {} {}, first difference {at:x?}", ours.len(), theirs.len());
        }
    }
}

#[test]
fn bitmaps_know_of_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "cluster_size=4096", "12M");
    let bytes = std::fs::read(&path).unwrap();
    let before = ranges(&bytes, "fine");
    let mut writer = open(bytes, None, Key::None).unwrap();
    write(&mut writer, 6 * MIB, &[7; 8192]);
    writer.zero(11 * MIB, 4096).unwrap();

    // As long as it is written to, a bitmap is not to be relied upon.
    let mut unfinished = writer.file(formats::FileIndex::OWN).unwrap().clone();
    let error = Image::open(&unfinished[..], None).unwrap().visit_bitmap(b"fine", &mut |_| {}).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    unfinished.clear();

    writer.finish().unwrap();
    let (bytes, _) = writer.into_storage();
    let mut wanted = before;
    wanted.insert(3, 6 * MIB..6 * MIB + 8192);
    wanted.push(11 * MIB..11 * MIB + 4096);
    assert_eq!(ranges(&bytes, "fine"), wanted);
    assert_eq!(ranges(&bytes, "late"), [6 * MIB..7 * MIB, 11 * MIB..12 * MIB]);
    assert_eq!(ranges(&bytes, "disabled"), []);
    std::fs::write(&path, bytes).unwrap();
    qemu_img_ok(&["check", text(&path)]);
}

#[test]
fn bitmaps_that_cannot_be_are_refused() {
    let new = |list: &str| create(Vec::new(), None, &options(list, MIB)).unwrap();
    let bitmap = NewBitmap { name: b"one", granularity_bits: 16, auto: true };
    let kind =
        |list: &str, bitmap: &NewBitmap<'_>| new(list).add_bitmap(bitmap, &mut |_| Ok(())).unwrap_err().kind;
    assert_eq!(kind("compat=0.10", &bitmap), ErrorKind::Unsupported);
    assert_eq!(kind("", &NewBitmap { name: b"", ..bitmap }), ErrorKind::InvalidFormat);
    assert_eq!(kind("", &NewBitmap { name: &[b'x'; 1024], ..bitmap }), ErrorKind::InvalidFormat);
    assert_eq!(kind("", &NewBitmap { granularity_bits: 8, ..bitmap }), ErrorKind::InvalidFormat);
    assert_eq!(kind("", &NewBitmap { granularity_bits: 32, ..bitmap }), ErrorKind::InvalidFormat);
}
