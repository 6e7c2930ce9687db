//! Files that images name, in real virtual machines: what the user allowed is read as by `qemu-img`, and nothing else.

mod common;

use common::Bench;

/// Whether both say the same of the image, what it names being allowed beneath the directory.
fn agree(bench: &Bench, image: &str, more: &[&str]) -> String {
    let arguments = [&["measure", "-O", "qcow2"], more, &[image]].concat();
    let theirs = bench.reference(&arguments);
    let directory = bench.directory().to_str().unwrap();
    let arguments = [&["measure", "--allow-references", directory, "-O", "qcow2"], more, &[image]].concat();
    let ours = bench.drop_in(&arguments);
    assert_eq!(
        (ours.code, &ours.stdout, &ours.stderr),
        (theirs.code, &theirs.stdout, &theirs.stderr),
        "{image}"
    );
    ours.stdout + &ours.stderr
}

/// An image of each kind that consists of more than its file.
fn make(bench: &Bench) {
    bench.make(&["create", "-q", "-f", "raw", "base.raw", "4M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "middle.qcow2", "8M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2", "16M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "split.qcow2", "8M"]);
    bench.make(&["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "parts.vmdk", "5G"]);
    bench.make(&["create", "-q", "-f", "vmdk", "-b", "parts.vmdk", "-F", "vmdk", "child.vmdk"]);
    bench.make(&["snapshot", "-c", "before", "top.qcow2"]);
}

#[test]
fn what_an_image_names_is_read_beneath_the_directory_only() {
    let bench = Bench::new();
    make(&bench);
    for image in ["top.qcow2", "split.qcow2", "parts.vmdk", "child.vmdk"] {
        let said = agree(&bench, image, &[]);
        assert!(said.starts_with("required size: "), "{image}: {said}");
        let denied = bench.instar(&["measure", "-O", "qcow2", image]);
        assert_eq!(denied.code, Some(1));
        assert!(denied.stderr.contains(" was not followed (see --allow-references)"), "{image}: {denied}");
    }
    agree(&bench, "top.qcow2", &["-l", "before"]);
    agree(&bench, "top.qcow2", &["-l", "after"]);
}

#[test]
fn what_is_missing_is_told_as_by_qemu_img() {
    let bench = Bench::new();
    make(&bench);
    for (missing, image) in [
        ("base.raw", "top.qcow2"),
        ("middle.qcow2", "top.qcow2"),
        ("data.raw", "split.qcow2"),
        ("parts-s002.vmdk", "child.vmdk"),
        ("parts.vmdk", "child.vmdk"),
    ] {
        std::fs::remove_file(bench.path(missing)).unwrap();
        let said = agree(&bench, image, &[]);
        assert!(said.contains("No such file or directory"), "{missing}: {said}");
    }
}
