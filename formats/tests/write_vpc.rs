//! VHD images that are created and written: the files of `qemu-img create` and `qemu-img convert`, byte for byte up to
//! time and unique id, which are given.

mod support;

use std::fs;

use formats::vpc::{self, Create};
use support::write::{Disk, assert_files, assert_holds, converted, field, new_file, old_file};
use support::{Random, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Options, and what they are here.
const OPTIONS: [(&str, bool, bool); 4] = [
    ("subformat=dynamic", false, false),
    ("force_size=on", false, true),
    ("subformat=fixed", true, false),
    ("subformat=fixed,force_size=on", true, true),
];

/// What an image of `qemu-img` was made with.
fn made_with(path: &std::path::Path, size: u64, fixed: bool, force_size: bool) -> Create {
    let footer = fs::metadata(path).unwrap().len() - 512;
    let timestamp = u32::from_be_bytes(field(path, footer + 24));
    Create { size, fixed, force_size, timestamp, unique_id: field(path, footer + 68) }
}

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    for (options, fixed, force_size) in OPTIONS {
        for size in [
            0,
            1,
            512,
            MIB,
            3 * MIB + 512,
            1023 * 4 * 17 * 512,
            1024 * 16 * 17 * 512,
            1024 * 16 * 31 * 512,
            GIB,
            100 * GIB,
            65535 * 16 * 63 * 512,
            65535 * 16 * 255 * 512,
            2040 * GIB,
        ] {
            let what = format!("{options} {size}");
            qemu_img_ok(&["create", "-q", "-f", "vpc", "-o", options, text(&theirs), &size.to_string()]);
            let create = made_with(&theirs, size, fixed, force_size);
            drop(vpc::create(new_file(&ours), &create).unwrap());
            assert_files(&ours, &theirs, &[], &what);
        }
    }
    let long =
        Create { size: 2040 * GIB + 1, fixed: false, force_size: false, timestamp: 0, unique_id: [0; 16] };
    let refused = vpc::create(Vec::new(), &long).unwrap_err();
    assert_eq!(refused.message, "Disk size is too large, max size is 2040 GiB");
}

#[test]
fn a_written_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.vpc");
    let mut random = Random(11);
    for (options, fixed, force_size) in OPTIONS {
        for size in [512, 2 * MIB, 17 * MIB + 512] {
            let disk = Disk::random(size, 64 << 10, &mut random);
            let theirs = converted(directory.path(), "theirs.vpc", "vpc", options, &disk);
            let create = made_with(&theirs, size, fixed, force_size);
            let mut writer = vpc::create(new_file(&ours), &create).unwrap();
            disk.write(&mut writer);
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
            assert_holds(&ours, "vpc", &disk.bytes);
        }
    }
}

#[test]
fn any_order_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.vpc");
    for (index, (_, fixed, force_size)) in OPTIONS.into_iter().enumerate() {
        let create = Create { size: 23 * MIB + 512, fixed, force_size, timestamp: 1, unique_id: [1; 16] };
        let mut random = Random(20 + index as u64);
        let mut writer = vpc::create(new_file(&path), &create).unwrap();
        let size = usize::try_from(formats::write::Writer::virtual_size(&writer)).unwrap();
        let mut disk = Disk { bytes: vec![0; size], unit: 77 * 512 };
        disk.scribble(&mut writer, &mut random);
        assert_holds(&path, "vpc", &disk.bytes);
        drop(writer);
        disk.unit = 2 * MIB;
        disk.scribble(&mut vpc::open(old_file(&path)).unwrap(), &mut random);
        assert_holds(&path, "vpc", &disk.bytes);
    }
}
