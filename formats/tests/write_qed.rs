//! QED images that are created and written: the files of `qemu-img create`, and as long as those of `qemu-img convert`, which
//! puts a table behind the first clusters that it leads to.

mod support;

use std::fs;

use formats::qed::{self, Create};
use formats::write::Writer;
use support::write::{Disk, assert_files, assert_holds, assert_same, converted, new_file, old_file};
use support::{Random, patch, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Sizes of clusters and tables.
const SIZES: [(u32, u32); 4] = [(65_536, 4), (4096, 2), (1 << 20, 16), (65_536, 8)];

fn new(size: u64, (cluster_size, table_size): (u32, u32)) -> Create<'static> {
    Create { size, cluster_size, table_size, backing_file: None, backing_is_raw: false }
}

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    qemu_img_ok(&["create", "-q", "-f", "qed", text(&directory.path().join("base")), "1M"]);
    for sizes in SIZES {
        let options = format!("cluster_size={},table_size={}", sizes.0, sizes.1);
        for size in [0, 1, 3 * MIB, GIB] {
            let command = ["create", "-q", "-f", "qed", "-o", &options];
            let image = [text(&theirs), &size.to_string()];
            qemu_img_ok(&[&command[..], &image].concat());
            drop(qed::create(new_file(&ours), &new(size, sizes)).unwrap());
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
            for format in ["raw", "qed"] {
                qemu_img_ok(&[&command[..], &["-b", "base", "-F", format], &image].concat());
                let backing_is_raw = format == "raw";
                let create = Create { backing_file: Some(b"base"), backing_is_raw, ..new(size, sizes) };
                drop(qed::create(new_file(&ours), &create).unwrap());
                assert_files(&ours, &theirs, &[], &format!("{options} {size} over {format}"));
            }
        }
    }
    let why = |create: &Create<'_>| qed::create(Vec::new(), create).unwrap_err().message;
    assert!(why(&new((64 << 40) + 1, SIZES[0])).ends_with("and less than 70368744177664 bytes"));
    assert_eq!(why(&new(1, (65_536, 1))), "QED table offset is invalid");
    assert!(why(&new(1, (65_536, 3))).starts_with("QED table size must be"));
    assert!(why(&new(1, (2048, 4))).starts_with("QED cluster size must be"));
    let name = [b'x'; 4095];
    assert_eq!(why(&Create { backing_file: Some(&name), ..new(1, SIZES[1]) }), "Backing file name too long");
}

#[test]
fn a_written_image_is_as_long_as_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.qed");
    let mut random = Random(24);
    for sizes in SIZES {
        let options = format!("cluster_size={},table_size={}", sizes.0, sizes.1);
        for size in [512, 9 * MIB + 512] {
            let disk = Disk::random(size, sizes.0.into(), &mut random);
            let theirs = converted(directory.path(), "theirs.qed", "qed", &options, &disk);
            disk.write(&mut qed::create(new_file(&ours), &new(size, sizes)).unwrap());
            let length = |path| fs::metadata(path).unwrap().len();
            assert_eq!(length(&ours), length(&theirs), "{options} {size}");
            assert_holds(&ours, "qed", &disk.bytes);
        }
    }
}

#[test]
fn any_order_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let (path, base) = (directory.path().join("image.qed"), directory.path().join("base"));
    let mut random = Random(25);
    let size = 9 * MIB + 512;
    for backing_file in [None, Some(&b"base"[..])] {
        for sizes in SIZES {
            let mut disk = Disk { bytes: vec![0; usize::try_from(size).unwrap()], unit: sizes.0.into() };
            if backing_file.is_some() {
                disk = Disk::random(size, sizes.0.into(), &mut random);
                fs::write(&base, &disk.bytes).unwrap();
            }
            let create = Create { backing_file, backing_is_raw: true, ..new(size, sizes) };
            for round in 0..2 {
                let mut writer = match round {
                    0 => qed::create(new_file(&path), &create).unwrap(),
                    _ => qed::open(old_file(&path)).unwrap(),
                };
                disk.scribble(&mut writer, &mut random);
                drop(writer);
                let raw = path.with_extension("raw");
                qemu_img_ok(&["check", "-q", "-f", "qed", text(&path)]);
                qemu_img_ok(&["convert", "-f", "qed", "-O", "raw", text(&path), text(&raw)]);
                assert_same(&fs::read(&raw).unwrap(), &disk.bytes, &path);
            }
        }
    }
}

#[test]
fn an_image_that_was_not_closed_is_not_written_to() {
    let mut writer = qed::create(Vec::new(), &new(MIB, SIZES[0])).unwrap();
    writer.finish().unwrap();
    let mut file = std::mem::take(support::write::own(&mut writer));
    assert!(qed::open(file.clone()).is_ok());
    patch(&mut file, &[(16, 1, 2)]);
    let refused = qed::open(file).unwrap_err();
    assert_eq!(refused.message, "Image was not closed properly and must be repaired first");
}
