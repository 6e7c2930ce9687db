//! Parallels images that are created and written: the files of `qemu-img create` and `qemu-img convert`.

mod support;

use formats::parallels::{self, Create};
use support::write::{Disk, assert_files, assert_holds, converted, new_file, old_file};
use support::{Random, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    for cluster_size in [1 << 20, 512, 1536, 4096, 3 << 20, 64 << 20] {
        let options = format!("cluster_size={cluster_size}");
        for size in [0, 1, 3 * MIB + 512, 10 * GIB] {
            qemu_img_ok(&[
                "create",
                "-q",
                "-f",
                "parallels",
                "-o",
                &options,
                text(&theirs),
                &size.to_string(),
            ]);
            drop(parallels::create(new_file(&ours), &Create { size, cluster_size }).unwrap());
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
        }
    }
    let why = |size, cluster_size| {
        parallels::create(Vec::new(), &Create { size, cluster_size }).unwrap_err().message
    };
    assert_eq!(why(2 << 40, 512), "Image size is too large for this cluster size");
    assert_eq!(why(1 << 40, 512), "Catalog too large");
    assert_eq!(why(1, 1000), "Invalid image: Too big cluster");
}

#[test]
fn a_written_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.hds");
    let mut random = Random(26);
    for cluster_size in [1 << 20, 4096, 3 << 20] {
        let options = format!("cluster_size={cluster_size}");
        for size in [512, 3 * MIB, 9 * MIB + 512] {
            let disk = Disk::random(size, cluster_size.into(), &mut random);
            let theirs = converted(directory.path(), "theirs.hds", "parallels", &options, &disk);
            disk.write(&mut parallels::create(new_file(&ours), &Create { size, cluster_size }).unwrap());
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
            assert_holds(&ours, "parallels", &disk.bytes);
        }
    }
}

#[test]
fn any_order_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.hds");
    let mut random = Random(27);
    for cluster_size in [1 << 20, 512, 1536, 3 << 20] {
        let create = Create { size: 9 * MIB + 512, cluster_size };
        let mut writer = parallels::create(new_file(&path), &create).unwrap();
        let unit = u64::from(cluster_size).min(65_536);
        let mut disk = Disk { bytes: vec![0; usize::try_from(create.size).unwrap()], unit };
        disk.scribble(&mut writer, &mut random);
        assert_holds(&path, "parallels", &disk.bytes);
        drop(writer);
        disk.scribble(&mut parallels::open(old_file(&path)).unwrap(), &mut random);
        assert_holds(&path, "parallels", &disk.bytes);
    }
}

/// `qemu-img` reads what was written, and what it writes itself it does not.
#[test]
fn clusters_that_are_no_power_of_two_hold_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.hds");
    // What `qemu-img` finds to be zeros are pages of 4 KiB.
    let disk = Disk::random(MIB, 3 * 4096, &mut Random(28));
    let create = Create { size: MIB, cluster_size: 1536 };
    disk.write(&mut parallels::create(new_file(&path), &create).unwrap());
    assert_holds(&path, "parallels", &disk.bytes);
    let theirs = converted(directory.path(), "theirs.hds", "parallels", "cluster_size=1536", &disk);
    let lengths = [&path, &theirs].map(|path| std::fs::metadata(path).unwrap().len());
    assert!(lengths[1] < lengths[0] && lengths[0] < lengths[1] + 1536, "{lengths:?}");
}

#[test]
fn an_image_that_was_not_closed_is_not_written_to() {
    let mut writer = parallels::create(Vec::new(), &Create { size: MIB, cluster_size: 4096 }).unwrap();
    let mut file = std::mem::take(support::write::own(&mut writer));
    file[44..48].copy_from_slice(&0x746f_6e59_u32.to_le_bytes());
    let refused = parallels::open(file).unwrap_err();
    assert_eq!(refused.message, "Image was not closed properly and must be repaired first");
}
