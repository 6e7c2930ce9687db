//! New qcow2 images with data in them: those that `qemu-img convert` writes, and without faults in whatever order they are
//! written.

mod support;

use std::path::Path;

use formats::qcow2::{Writer, create};
use formats::write::Writer as _;
use formats::{ExtentKind, Image, StorageMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use support::qcow2::{GEOMETRIES, assert_sound, content, options, scribble, write};
use support::{Random, qemu_img_ok, text, walk};

/// Where images of a test lie, and a backing file.
fn directory() -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let base = content(&mut Random(77), 1 << 20, false);
    std::fs::write(directory.path().join("base"), &base).unwrap();
    (directory, base)
}

fn new(directory: &Path, list: &str, size: u64) -> Writer<Vec<u8>> {
    let list = list.replace("backing_file=base", &format!("backing_file={}", text(&directory.join("base"))));
    create(Vec::new(), None, &options(&list, size)).unwrap()
}

/// Finishes an image, and says where it is.
fn finish(mut writer: Writer<Vec<u8>>, directory: &Path) -> std::path::PathBuf {
    writer.finish().unwrap();
    let (bytes, _) = writer.into_storage();
    walk(&mut Image::open(&bytes[..], None).unwrap()).unwrap();
    let path = directory.join("image");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn full_disks_are_written_as_by_the_reference() {
    let (directory, _) = directory();
    let raw = directory.path().join("raw");
    let path = directory.path().join("reference");
    for (list, size) in [
        ("", 5 << 20),
        ("", (5 << 20) + 512),
        ("cluster_size=512", (3 << 20) + 512),
        ("cluster_size=512,refcount_bits=64", 1 << 20),
        ("cluster_size=512,refcount_bits=1", 3 << 20),
        ("cluster_size=4096,compat=0.10", (7 << 20) + 512),
        ("cluster_size=4096,refcount_bits=64", 20 << 20),
        ("cluster_size=16384,extended_l2=on", (5 << 20) + 1536),
        ("cluster_size=2097152,extended_l2=on", (5 << 20) + 1536),
        ("cluster_size=4096,preallocation=metadata", 5 << 20),
        ("cluster_size=65536,preallocation=falloc", (5 << 20) + 512),
        ("cluster_size=65536,extended_l2=on,preallocation=full", 5 << 20),
    ] {
        let disk = content(&mut Random(size), usize::try_from(size).unwrap(), false);
        std::fs::write(&raw, &disk).unwrap();
        let mut arguments = vec!["convert", "-S", "0", "-f", "raw", "-O", "qcow2"];
        if !list.is_empty() {
            arguments.extend(["-o", list]);
        }
        arguments.extend([text(&raw), text(&path)]);
        qemu_img_ok(&arguments);
        let mut writer = new(directory.path(), list, size);
        write(&mut writer, 0, &disk);
        writer.finish().unwrap();
        let (ours, _) = writer.into_storage();
        let theirs = std::fs::read(&path).unwrap();
        if ours != theirs {
            let at = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            panic!("{list}: lengths {} {}, first difference {at:x?}", ours.len(), theirs.len());
        }
    }
}

#[test]
fn images_are_sound_in_whatever_order_they_are_written() {
    let (directory, base) = directory();
    for (number, list) in (1..).zip(GEOMETRIES) {
        let mut random = Random(number);
        for size in [512 * 1001, (4 << 20) + 512] {
            let mut disk = vec![0; usize::try_from(size).unwrap()];
            if list.contains("backing") {
                let length = base.len().min(disk.len());
                disk[..length].copy_from_slice(&base[..length]);
            }
            let mut writer = new(directory.path(), list, size);
            scribble(&mut random, &mut writer, &mut disk, 60);
            let path = finish(writer, directory.path());
            assert_sound(&path, &disk, list);
        }
    }
}

/// The stream at the start of these bytes, which holds a cluster of `unit` bytes.
fn stream(bytes: &[u8], unit: usize) -> Vec<u8> {
    let mut decoded = vec![0; unit];
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, consumed, _) = decompress(&mut DecompressorOxide::new(), bytes, &mut decoded, 0, flags);
    assert_eq!(status, TINFLStatus::Done);
    bytes[..consumed].to_vec()
}

#[test]
fn streams_are_packed_as_by_the_reference() {
    let (directory, _) = directory();
    let (raw, path) = (directory.path().join("raw"), directory.path().join("reference"));
    for (list, size) in [
        ("cluster_size=65536", (9 << 20) + 512),
        ("cluster_size=4096", 2 << 20),
        ("cluster_size=4096,refcount_bits=1", 1 << 20),
        ("cluster_size=4096,refcount_bits=2", 1 << 20),
        ("cluster_size=512,refcount_bits=64", 1 << 20),
        ("cluster_size=16384,extended_l2=on", 1 << 20),
    ] {
        let mut random = Random(size);
        let mut disk = Vec::new();
        while disk.len() < usize::try_from(size).unwrap() {
            let length = usize::try_from(random.below(100_000)).unwrap();
            let compressible = random.below(3) != 0;
            disk.extend(content(&mut random, length, compressible));
        }
        disk.truncate(usize::try_from(size).unwrap());
        std::fs::write(&raw, &disk).unwrap();
        let arguments = ["convert", "-c", "-S", "0", "-f", "raw", "-O", "qcow2", "-o", list];
        qemu_img_ok(&[&arguments[..], &[text(&raw), text(&path)]].concat());
        let theirs = std::fs::read(&path).unwrap();
        let mut image = Image::open(&theirs[..], None).unwrap();
        let mut writer = new(directory.path(), list, size);
        let unit = usize::try_from(writer.unit()).unwrap();
        for (offset, bytes) in (0..).step_by(unit).zip(disk.chunks(unit)) {
            match image.extent_at(offset).unwrap().kind {
                ExtentKind::Compressed { offset: host, .. } => {
                    let mut stream = stream(&theirs[usize::try_from(host).unwrap()..], unit);
                    let place = writer.allocate_compressed(offset, &mut stream).unwrap().unwrap();
                    assert_eq!((place.offset, place.length), (host, stream.len() as u64), "{list}");
                    writer.file(place.file).unwrap().write_at(place.offset, &stream).unwrap();
                }
                _ => write(&mut writer, offset, bytes),
            }
        }
        writer.align_end();
        assert!(writer.allocate_compressed(0, &mut vec![0; unit]).unwrap().is_none());
        writer.finish().unwrap();
        let (ours, _) = writer.into_storage();
        assert_eq!(ours.len(), theirs.len(), "{list}");
        assert!(ours == theirs, "{list}");
    }
}

#[test]
fn an_image_that_is_not_finished_is_none() {
    let mut writer = create(Vec::new(), None, &options("", 1 << 20)).unwrap();
    write(&mut writer, 0, &[1; 65536]);
    let (bytes, _) = writer.into_storage();
    assert!(bytes.iter().take(65536).all(|&byte| byte == 0));
}

#[test]
fn ranges_that_are_not_whole_clusters_are_refused() {
    let mut writer = create(Vec::new(), None, &options("", 100 << 10)).unwrap();
    for (offset, length) in [(512, 65536), (0, 512), (65536, 65536), (131_072, 1), (0, 0), (u64::MAX, 2)] {
        assert!(writer.allocate(offset, length).is_err(), "{offset} {length}");
        assert!(writer.zero(offset, length).is_err(), "{offset} {length}");
    }
    assert!(writer.allocate(65536, (100 << 10) - 65536).is_ok());
}
