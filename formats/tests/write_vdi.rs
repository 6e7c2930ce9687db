//! VDI images that are created and written: the files of `qemu-img create` and `qemu-img convert`, byte for byte up to
//! the two uuids, which are given.

mod support;

use std::path::Path;

use formats::vdi::{self, Create};
use support::write::{Disk, assert_files, assert_holds, converted, field, new_file, old_file};
use support::{Random, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

const OPTIONS: [(&str, bool); 2] = [("static=off", false), ("static=on", true)];

/// What an image of `qemu-img` was made with.
fn made_with(path: &Path, size: u64, is_static: bool) -> Create {
    Create { size, is_static, uuid: field(path, 0x188), uuid_last_snapshot: field(path, 0x198) }
}

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    for (options, is_static) in OPTIONS {
        for size in [0, 1, 512, MIB, MIB + 512, 129 * MIB, GIB, 3 << 40] {
            qemu_img_ok(&["create", "-q", "-f", "vdi", "-o", options, text(&theirs), &size.to_string()]);
            drop(vdi::create(new_file(&ours), &made_with(&theirs, size, is_static)).unwrap());
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
        }
    }
    let most = 0x1fff_ff80 * MIB;
    let long = Create { size: most + 1, is_static: false, uuid: [0; 16], uuid_last_snapshot: [0; 16] };
    let refused = vdi::create(Vec::new(), &long).unwrap_err();
    assert!(refused.message.ends_with("max supported is 0x1fffff8000000)"), "{refused}");
}

#[test]
fn a_written_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.vdi");
    let mut random = Random(12);
    for (options, is_static) in OPTIONS {
        for size in [512, MIB, 17 * MIB + 512] {
            let disk = Disk::random(size, MIB, &mut random);
            let theirs = converted(directory.path(), "theirs.vdi", "vdi", options, &disk);
            let mut writer = vdi::create(new_file(&ours), &made_with(&theirs, size, is_static)).unwrap();
            disk.write(&mut writer);
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
            assert_holds(&ours, "vdi", &disk.bytes);
        }
    }
}

#[test]
fn any_order_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.vdi");
    for (_, is_static) in OPTIONS {
        let create = Create { size: 23 * MIB + 512, is_static, uuid: [1; 16], uuid_last_snapshot: [2; 16] };
        let mut random = Random(20);
        let mut disk = Disk { bytes: vec![0; usize::try_from(create.size).unwrap()], unit: MIB };
        disk.scribble(&mut vdi::create(new_file(&path), &create).unwrap(), &mut random);
        assert_holds(&path, "vdi", &disk.bytes);
        disk.scribble(&mut vdi::open(old_file(&path)).unwrap(), &mut random);
        assert_holds(&path, "vdi", &disk.bytes);
    }
}
