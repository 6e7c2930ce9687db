//! qcow images, version 1, that are created and written: the files of `qemu-img create` and `qemu-img convert`.

mod support;

use std::fs;

use formats::qcow::{self, Create};
use formats::write::Writer;
use formats::{Codec, Image};
use miniz_oxide::deflate::compress_to_vec;
use support::write::{Disk, assert_files, assert_holds, assert_same, converted, new_file, old_file};
use support::{Random, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const CLUSTER: u64 = 4096;

fn new(size: u64) -> Create<'static> {
    Create { size, backing_file: None }
}

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    let base = directory.path().join("a base");
    fs::write(&base, [0; 512]).unwrap();
    for size in [1, 512, MIB + 512, 3 * MIB, 10 * GIB, 10 << 40] {
        qemu_img_ok(&["create", "-q", "-f", "qcow", text(&theirs), &size.to_string()]);
        drop(qcow::create(new_file(&ours), &new(size)).unwrap());
        assert_files(&ours, &theirs, &[], &format!("{size}"));
        let backing = ["create", "-q", "-f", "qcow", "-b", "a base", "-F", "raw", text(&theirs)];
        qemu_img_ok(&[&backing[..], &[&size.to_string()]].concat());
        drop(qcow::create(new_file(&ours), &Create { size, backing_file: Some(b"a base") }).unwrap());
        assert_files(&ours, &theirs, &[], &format!("{size} over another"));
    }
    let why = |create: &Create<'_>| qcow::create(Vec::new(), create).unwrap_err().message;
    assert_eq!(why(&new(0)), "Image size is too small, cannot be zero length");
    assert_eq!(why(&new(512 << 40)), "Image too large");
    assert_eq!(why(&Create { size: 1, backing_file: Some(&[b'x'; 1024]) }), "Backing file name too long");
}

#[test]
fn a_written_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.qcow");
    let mut random = Random(21);
    for size in [512, MIB, 9 * MIB + 512] {
        let disk = Disk::random(size, CLUSTER, &mut random);
        let theirs = converted(directory.path(), "theirs.qcow", "qcow", "", &disk);
        disk.write(&mut qcow::create(new_file(&ours), &new(size)).unwrap());
        assert_files(&ours, &theirs, &[], &format!("{size}"));
        assert_holds(&ours, "qcow", &disk.bytes);
    }
}

#[test]
fn any_order_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.qcow");
    let base = directory.path().join("base");
    let mut random = Random(22);
    let size = 5 * MIB + 512;
    for backing_file in [None, Some(&b"base"[..])] {
        let mut disk = Disk { bytes: vec![0; usize::try_from(size).unwrap()], unit: 0 };
        if backing_file.is_some() {
            disk = Disk::random(size, 65_536, &mut random);
            fs::write(&base, &disk.bytes).unwrap();
        }
        for round in 0..2 {
            let mut writer = match round {
                0 => qcow::create(new_file(&path), &Create { size, backing_file }).unwrap(),
                _ => qcow::open(old_file(&path)).unwrap(),
            };
            // Runs that are longer than what a table covers, too.
            disk.unit = 300 * 4096;
            disk.scribble(&mut writer, &mut random);
            disk.unit = writer.unit();
            disk.scribble(&mut writer, &mut random);
            drop(writer);
            if backing_file.is_none() {
                assert_holds(&path, "qcow", &disk.bytes);
            }
            let raw = path.with_extension("raw");
            qemu_img_ok(&["convert", "-f", "qcow", "-O", "raw", text(&path), text(&raw)]);
            assert_same(&fs::read(&raw).unwrap(), &disk.bytes, &path);
        }
    }
}

#[test]
fn clusters_that_are_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.qcow");
    let size = 4 * MIB + 512;
    let mut random = Random(23);
    let mut disk = Disk { bytes: vec![0; usize::try_from(size).unwrap()], unit: CLUSTER };
    let mut writer = qcow::create(new_file(&path), &new(size)).unwrap();
    assert_eq!(writer.codec(), Some(Codec::Deflate));
    assert_eq!(writer.allocate_compressed(0, &mut vec![1; 4096]), Ok(None));
    let unit = usize::try_from(CLUSTER).unwrap();
    for at in (0..disk.bytes.len()).step_by(3 * unit) {
        let end = disk.bytes.len().min(at + unit);
        disk.bytes[at..end].fill_with(|| u8::try_from(random.below(4)).unwrap());
        // What is decoded is a cluster, also at the end of the disk.
        let mut cluster = disk.bytes[at..end].to_vec();
        cluster.resize(unit, 0);
        let mut stream = compress_to_vec(&cluster, 1);
        let place = writer.allocate_compressed(at as u64, &mut stream).unwrap().unwrap();
        let file = writer.file(place.file).unwrap();
        formats::StorageMut::write_at(file, place.offset, &stream).unwrap();
    }
    writer.finish().unwrap();
    drop(writer);
    let raw = path.with_extension("raw");
    let reads = |disk: &Disk| {
        qemu_img_ok(&["convert", "-f", "qcow", "-O", "raw", text(&path), text(&raw)]);
        assert_same(&fs::read(&raw).unwrap(), &disk.bytes, &path);
        let mut read = vec![0; disk.bytes.len()];
        Image::open(support::FileStorage::open(&path), None).unwrap().read(0, &mut read).unwrap();
        assert_same(&read, &disk.bytes, &path);
    };
    reads(&disk);
    // They can be written to again.
    disk.scribble(&mut qcow::open(old_file(&path)).unwrap(), &mut random);
    reads(&disk);
}
