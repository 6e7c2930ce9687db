//! New qcow2 images are, byte for byte, those that `qemu-img create` makes.

mod support;

use formats::ErrorKind;
use formats::qcow2::create;
use formats::write::Writer as _;
use support::qcow2::options;
use support::{qemu_img, qemu_img_ok, text};

fn assert_equal(directory: &std::path::Path, list: &str, size: u64) {
    let path = directory.join("image");
    let data = directory.join("data");
    std::fs::write(directory.join("base"), vec![0; 1 << 20]).unwrap();
    let _ = std::fs::remove_file(&data);
    let list = list
        .replace("data_file=x", &format!("data_file={}", text(&data)))
        .replace("backing_file=base", &format!("backing_file={}", text(&directory.join("base"))));
    let (arguments, size_text) = (["create", "-q", "-f", "qcow2"], size.to_string());
    let mut arguments = arguments.to_vec();
    if !list.is_empty() {
        arguments.extend(["-o", &list]);
    }
    arguments.extend([text(&path), &size_text]);
    qemu_img_ok(&arguments);
    let expected = std::fs::read(&path).unwrap();
    let options = options(&list, size);
    let data_file = options.data_file.is_some().then(Vec::new);
    let mut writer = create(Vec::new(), data_file, &options).unwrap();
    writer.finish().unwrap();
    let (image, data_file) = writer.into_storage();
    if image != expected {
        let first = image.iter().zip(&expected).position(|(ours, theirs)| ours != theirs);
        let (ours, theirs) = (image.len(), expected.len());
        panic!("{list} {size}: lengths {ours} {theirs}, first difference {first:x?}");
    }
    assert_eq!(
        data_file.map(|data| data.len() as u64),
        options.data_file.map(|_| std::fs::metadata(&data).unwrap().len()),
        "{list} {size}"
    );
}

#[test]
fn empty_images_are_those_of_the_reference() {
    let directory = tempfile::tempdir().unwrap();
    for cluster in [512, 2048, 4096, 16384, 65536, 2 << 20] {
        for more in [
            "",
            ",compat=0.10",
            ",refcount_bits=1",
            ",refcount_bits=64",
            ",lazy_refcounts=on",
            ",compression_type=zstd",
            ",backing_file=base,backing_fmt=raw",
            ",compat=0.10,backing_file=base,backing_fmt=raw",
            ",data_file=x",
            ",extended_l2=on",
        ] {
            if more.contains("extended") && cluster < 16384 {
                continue;
            }
            let large = if more.contains("data_file") { 100 << 20 } else { (3 << 30) + 512 };
            for size in [0, 1000, 1 << 20, large] {
                assert_equal(directory.path(), &format!("cluster_size={cluster}{more}"), size);
            }
        }
    }
    for size in [0, 512, 1 << 30, 1 << 40, 1 << 50] {
        assert_equal(directory.path(), "", size);
    }
}

#[test]
fn space_is_set_aside_as_by_the_reference() {
    let directory = tempfile::tempdir().unwrap();
    for (cluster, sizes) in [
        (512, [0, 1 << 20, 3_000_320]),
        (4096, [4096, 5_000_704, 20 << 20]),
        (65536, [0, 100 << 10, 40 << 20]),
    ] {
        for geometry in ["", ",refcount_bits=1", ",refcount_bits=64", ",compat=0.10", ",extended_l2=on"] {
            if geometry.contains("extended") && cluster < 16384 {
                continue;
            }
            for how in ["metadata", "falloc", "full"] {
                for size in sizes {
                    let list = format!("cluster_size={cluster}{geometry},preallocation={how}");
                    assert_equal(directory.path(), &list, size);
                }
            }
        }
    }
    for list in [
        "data_file=x,data_file_raw=on",
        "data_file=x,preallocation=metadata",
        "data_file=x,preallocation=falloc",
    ] {
        assert_equal(directory.path(), list, (70 << 20) + 512);
    }
}

#[test]
fn what_cannot_be_made_is_refused_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let long = "x".repeat(400);
    for (list, size) in [
        ("cluster_size=512".to_owned(), 1 << 40),
        ("compat=0.10,lazy_refcounts=on".to_owned(), 1 << 20),
        ("compat=0.10,refcount_bits=8".to_owned(), 1 << 20),
        ("compat=0.10,data_file=x".to_owned(), 1 << 20),
        ("compat=0.10,extended_l2=on".to_owned(), 1 << 20),
        ("compat=0.10,compression_type=zstd".to_owned(), 1 << 20),
        ("cluster_size=8192,extended_l2=on".to_owned(), 1 << 20),
        ("data_file_raw=on".to_owned(), 1 << 20),
        ("refcount_bits=3".to_owned(), 1 << 20),
        ("refcount_bits=128".to_owned(), 1 << 20),
        (format!("cluster_size=512,backing_file={long},backing_fmt=raw"), 1 << 20),
    ] {
        let output =
            qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &list, text(&path), &size.to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let options = options(&list, size);
        let data_file = options.data_file.is_some().then(Vec::new);
        let error = create(Vec::new(), data_file, &options).unwrap_err();
        assert!(said.contains(&error.message), "{list}: {said}{}", error.message);
        assert!(matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Limit));
    }
}
