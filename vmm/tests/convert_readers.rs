//! What `convert` writes, read back by readers that have nothing to do with `qemu-img`: libyal's libvhdi, libvmdk and
//! libqcow, by way of Debian's Python modules for them.

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use common::{Bench, Random, assert_none, differences};

/// Targets: the library that reads them, format, `-o` list, and what else is on the command line.
const TARGETS: &[(&str, &str, &str, &[&str])] = &[
    ("vhdi", "vpc", "", &[]),
    ("vhdi", "vpc", "force_size=on", &[]),
    ("vhdi", "vpc", "subformat=fixed", &[]),
    ("vhdi", "vpc", "subformat=fixed,force_size=on", &[]),
    ("vhdi", "vhdx", "", &[]),
    ("vhdi", "vhdx", "block_size=1M,block_state_zero=off", &[]),
    ("vhdi", "vhdx", "subformat=fixed,block_size=1M", &[]),
    ("vmdk", "vmdk", "", &[]),
    ("vmdk", "vmdk", "adapter_type=lsilogic,hwversion=10", &[]),
    ("vmdk", "vmdk", "subformat=monolithicFlat", &[]),
    ("vmdk", "vmdk", "subformat=twoGbMaxExtentSparse", &[]),
    ("vmdk", "vmdk", "subformat=twoGbMaxExtentFlat", &[]),
    ("vmdk", "vmdk", "subformat=streamOptimized", &[]),
    ("qcow", "qcow", "", &[]),
    ("qcow", "qcow", "", &["-c"]),
    ("qcow", "qcow2", "compat=0.10", &[]),
    ("qcow", "qcow2", "compat=0.10,cluster_size=4k", &["-c"]),
    ("qcow", "qcow2", "compat=1.1", &[]),
    ("qcow", "qcow2", "compat=1.1,cluster_size=512", &[]),
    ("qcow", "qcow2", "compat=1.1,compression_type=zlib", &["-c"]),
    ("qcow", "qcow2", "compat=1.1,cluster_size=2M", &["-c"]),
];

/// The two ends of a disk that is in several parts, in bytes.
const LONG: u64 = (2 << 30) + (3 << 20) + 512;

/// A disk of no whole clusters, blocks or grains: noise, text, zeros, and sectors alone among zeros.
fn disk() -> Vec<u8> {
    let mut random = Random(5);
    let mut disk = vec![0; (5 << 20) + 1536];
    let end = disk.len();
    for range in [0..70_000, 200_704..201_216, 1 << 20..1_400_000, end - 512..end] {
        disk[range].fill_with(|| random.next() as u8);
    }
    for (at, byte) in disk[2 << 20..2_600_000].iter_mut().enumerate() {
        *byte = b"the quick brown fox jumps over the lazy dog\n"[at % 44];
    }
    disk
}

/// Reads `image` by `library` and compares the disk with the raw image `disk`. What is behind that in it is zeros.
fn read_back(bench: &Bench, library: &str, image: &str, disk: &str) -> Result<(), String> {
    common::read_by(bench, library, image, &format!("{image}.read"))?;
    let read = format!("{image}.read");
    let compared = bench.reference(&["compare", "-f", "raw", "-F", "raw", disk, &read]);
    fs::remove_file(bench.path(&read)).unwrap();
    match compared.code {
        Some(0) => Ok(()),
        _ => Err(format!("{compared}")),
    }
}

fn converted(bench: &Bench, disk: &str, name: &str, target: usize) -> Result<(), String> {
    let (library, format, list, more) = TARGETS[target];
    let options: &[&str] = if list.is_empty() { &[] } else { &["-o", list] };
    let convert = [&["convert", "-f", "raw", "-O", format], options, more, &[disk, name]].concat();
    let said = bench.drop_in(&convert);
    match said.code {
        Some(0) => read_back(bench, library, name, disk),
        _ => Err(format!("{said}")),
    }
}

#[test]
fn other_readers_find_the_disk_in_every_format() {
    let bench = Bench::new();
    fs::write(bench.path("disk.raw"), disk()).unwrap();
    let targets: Vec<usize> = (0..TARGETS.len()).collect();
    let found = differences(&targets, |&target| {
        let wrong = converted(&bench, "disk.raw", &format!("{target}.vmdk"), target).err();
        wrong.map(|why| format!("{:?}: {why}", TARGETS[target]))
    });
    assert_none(&found, targets.len());
}

#[test]
fn other_readers_find_the_disk_in_several_extents() {
    let bench = Bench::new();
    let file = File::create(bench.path("disk.raw")).unwrap();
    file.set_len(LONG).unwrap();
    let part = disk();
    for offset in [0, (2 << 30) - (1 << 20), LONG - part.len() as u64] {
        file.write_all_at(&part, offset).unwrap();
    }
    for (target, &(.., list, _)) in TARGETS.iter().enumerate() {
        if list.contains("twoGb") {
            assert_eq!(converted(&bench, "disk.raw", &format!("{target}.vmdk"), target), Ok(()), "{list}");
            assert!(bench.directory().read_dir().unwrap().count() > 4);
        }
    }
}
