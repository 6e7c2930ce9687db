//! VDI images that are created and written: the files of `qemu-img create` and `qemu-img convert`, byte for byte up to
//! the two uuids, which are given.

mod support;

use std::path::Path;

use formats::vdi::{self, Create};
use formats::write::Writer;
use formats::{Format, Image, StorageMut};
use support::write::{Disk, assert_files, assert_holds, converted, field, new_file, old_file, own};
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
            let disk = Disk::random(size, 64 << 10, &mut random);
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
        let mut disk = Disk { bytes: vec![0; usize::try_from(create.size).unwrap()], unit: 77 * 512 };
        disk.scribble(&mut vdi::create(new_file(&path), &create).unwrap(), &mut random);
        assert_holds(&path, "vdi", &disk.bytes);
        disk.unit = 2 * MIB;
        disk.scribble(&mut vdi::open(old_file(&path)).unwrap(), &mut random);
        assert_holds(&path, "vdi", &disk.bytes);
    }
}

/// What a file has behind its blocks is not in the blocks that come to be there.
#[test]
fn the_rest_of_a_new_block_is_zeros() {
    let create = Create { size: 2 * MIB, is_static: false, uuid: [1; 16], uuid_last_snapshot: [2; 16] };
    let mut writer = vdi::create(Vec::new(), &create).unwrap();
    let mut file = std::mem::take(own(&mut writer));
    file.resize(file.len() + (1 << 19), 0xaa);
    let mut writer = vdi::open(file).unwrap();
    let place = writer.allocate(MIB + 512, 512).unwrap();
    assert_eq!(place.length, 512);
    own(&mut writer).write_at(place.offset, &[7; 512]).unwrap();
    writer.finish().unwrap();
    let mut image = Image::open(std::mem::take(own(&mut writer)), Some(Format::Vdi)).unwrap();
    let mut bytes = vec![0; 2 << 20];
    image.read(0, &mut bytes).unwrap();
    let data = bytes.iter().enumerate().filter(|&(_, &byte)| byte != 0);
    assert!(data.map(|(at, _)| at).eq((1 << 20) + 512..(1 << 20) + 1024));
}
