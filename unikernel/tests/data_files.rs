//! `measure` of images whose data is in files beside their own, hosted, against the real `qemu-img`.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use protocol::{ErrorKind, ImageSource, Role};
use support::{
    Beside, agree, agree_on_fault, measure, printed, qemu_img, qemu_io, qemu_measure, request, text,
};
use unikernel::ops;

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Offset of the incompatible features of qcow2.
const INCOMPATIBLE: u64 = 72;

fn with_data_file(directory: &Path, name: &str, more: &str) -> (PathBuf, PathBuf) {
    let (path, data) = (directory.join(format!("{name}.qcow2")), directory.join(format!("{name}.data")));
    let options = format!("data_file={}{more}", text(&data));
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, text(&path), "8M"]);
    (path, data)
}

#[test]
fn holes_of_a_data_file_count_as_in_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    for (name, more) in [
        ("plain", ""),
        ("raw", ",data_file_raw=on"),
        ("metadata", ",preallocation=metadata"),
        ("raw-metadata", ",data_file_raw=on,preallocation=metadata"),
        ("full", ",preallocation=full"),
        ("extended", ",extended_l2=on"),
    ] {
        let (path, data) = with_data_file(directory.path(), name, more);
        qemu_io("qcow2", &path, &["write 0 64k", "write 1M 128k", "write -z 2M 64k", "write 4097k 4k"]);
        sync(&data);
        agree(&path);
    }
}

#[test]
fn a_data_file_may_be_shorter_than_the_data() {
    let directory = tempfile::tempdir().unwrap();
    for more in ["", ",preallocation=metadata"] {
        let (path, data) = with_data_file(directory.path(), "short", more);
        qemu_io("qcow2", &path, &["write 0 64k", "write 4M 64k"]);
        File::options().write(true).open(&data).unwrap().set_len((4 << 20) + 1000).unwrap();
        sync(&data);
        agree(&path);
        fs::write(&data, []).unwrap();
        agree(&path);
    }
}

/// The data file comes before what is below.
#[test]
fn a_missing_data_file_is_told_first() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base.raw");
    fs::write(&base, vec![1; 1 << 20]).unwrap();
    let (path, data) =
        with_data_file(directory.path(), "top", &format!(",backing_file={},backing_fmt=raw", text(&base)));
    agree(&path);
    let top = directory.path().join("above.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", text(&path), "-F", "qcow2", text(&top)]);
    fs::remove_file(&base).unwrap();
    agree_on_fault(&path);
    fs::remove_file(&data).unwrap();
    agree_on_fault(&path);
    assert!(agree_on_fault(&top).contains("Could not open backing file: Could not open '"));
}

#[test]
fn a_data_file_may_be_said_on_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = with_data_file(directory.path(), "a", "");
    qemu_io("qcow2", &path, &["write 0 64k"]);
    let by_options = |path: &Path, format: &str, data: &Path| {
        let mut files = Beside::default();
        let mut source = ImageSource::new(files.add(path), Some(format.into()));
        source.data_file = Some(files.add(data));
        let options =
            format!("driver={format},file.filename={},data-file.filename={}", text(path), text(data));
        let answer = ops::measure::run(&request(source, "", None), &mut files);
        assert!(files.needs.is_empty());
        (printed(answer, &options), qemu_measure(&["--image-opts", &options], ""))
    };
    let (ours, theirs) = by_options(&path, "qcow2", &data);
    assert_eq!(ours, theirs);
    let other = directory.path().join("other");
    fs::rename(&data, &other).unwrap();
    let (ours, theirs) = by_options(&path, "qcow2", &other);
    assert_eq!(ours, theirs);
    let plain = directory.path().join("plain.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&plain), "8M"]);
    let (ours, theirs) = by_options(&plain, "qcow2", &other);
    assert_eq!(ours, theirs);
    // Which of the options of the file `qemu-img` names is its business.
    let (ours, theirs) = by_options(&other, "raw", &plain);
    let (ours, theirs) = (ours.unwrap_err(), theirs.unwrap_err());
    assert_eq!(ours.trim_end().strip_suffix('\''), theirs.trim_end().strip_suffix(".filename'"));
}

#[test]
fn a_data_file_without_a_name_is_asked_of_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&path), "8M"]);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&4_u64.to_be_bytes(), INCOMPATIBLE)
        .unwrap();
    agree_on_fault(&path);
}

const SUBFORMATS: [(&str, &str, usize); 3] =
    [("monolithicFlat", "flat", 1), ("twoGbMaxExtentFlat", "f00", 3), ("twoGbMaxExtentSparse", "s00", 3)];

fn vmdk(directory: &Path, subformat: &str) -> PathBuf {
    let path = directory.join(format!("{subformat}.vmdk"));
    let options = format!("subformat={subformat}");
    qemu_img(&["create", "-q", "-f", "vmdk", "-o", &options, text(&path), "5G"]);
    qemu_io("vmdk", &path, &["write 0 64k", "write 2047M 2M", "write 5000M 100k"]);
    for entry in fs::read_dir(directory).unwrap() {
        sync(&entry.unwrap().path());
    }
    path
}

#[test]
fn vmdk_disks_in_several_files() {
    for (subformat, _, count) in SUBFORMATS {
        let directory = tempfile::tempdir().unwrap();
        let path = vmdk(directory.path(), subformat);
        agree(&path);
        let mut files = Beside::default();
        let source = ImageSource::new(files.add(&path), None);
        ops::measure::run(&request(source, "", None), &mut files).unwrap();
        assert_eq!(files.needs.len(), count);
        assert!(files.needs.iter().all(|need| need.role == Role::Extent && need.of == "disk.0"));
    }
}

#[test]
fn vmdk_disks_upon_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let base = vmdk(directory.path(), "twoGbMaxExtentSparse");
    let (middle, top) = (directory.path().join("middle.vmdk"), directory.path().join("top.vmdk"));
    for (path, below) in [(&middle, &base), (&top, &middle)] {
        qemu_img(&["create", "-q", "-f", "vmdk", "-b", text(below), "-F", "vmdk", text(path)]);
        qemu_io("vmdk", path, &["write 1G 64k"]);
    }
    agree(&top);
    // Who measures does not read from the parent, and so does not see that it is another one.
    let other = directory.path().join("other.vmdk");
    qemu_img(&["create", "-q", "-f", "vmdk", text(&other), "64M"]);
    fs::rename(&other, &middle).unwrap();
    agree(&top);
    fs::remove_file(&middle).unwrap();
    agree_on_fault(&top);
}

/// One after the other: what is wrong with the first comes before what is wrong with the second.
#[test]
fn extents_that_are_missing_or_broken_are_told_in_order() {
    for (subformat, part, count) in SUBFORMATS {
        let directory = tempfile::tempdir().unwrap();
        let path = vmdk(directory.path(), subformat);
        let extent = |number: usize| match count {
            1 => directory.path().join(format!("{subformat}-{part}.vmdk")),
            _ => directory.path().join(format!("{subformat}-{part}{number}.vmdk")),
        };
        fs::remove_file(extent(count)).unwrap();
        agree_on_fault(&path);
        if subformat == "twoGbMaxExtentSparse" {
            fs::write(extent(1), vec![0; 65536]).unwrap();
            agree_on_fault(&path);
        }
    }
}

#[test]
fn a_descriptor_is_no_part_of_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmdk");
    let descriptor = |kind: &str, more: &str| {
        let lines = format!(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\nRW 2048 {kind} \"a.vmdk\"{more}\n"
        );
        fs::write(&path, lines).unwrap();
    };
    descriptor("SPARSE", "");
    let error = measure(&path, "", None).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidFormat, "Image not in VMDK format"));
    // As bytes of the disk it will do.
    descriptor("FLAT", " 0");
    agree(&path);
}
