//! `--preset`: the rules of importers, each looked up in the bytes of the file; and that other readers find the disk in it.
//! docs/convert.md says where the rules are from.

mod common;

use std::fs;

use common::{Bench, Random};

const MIB: u64 = 1 << 20;
const SECTOR: usize = 512;

/// Makes `disk.raw`, which is no whole MiB long, with data and zeros in every grain table; answers it.
fn disk(bench: &Bench) -> Vec<u8> {
    let mut random = Random(11);
    // A grain table is of 32 MiB of the disk.
    let mut disk = vec![0; (70 << 20) + 1536];
    let end = disk.len();
    for range in [0..300_000, 33 << 20..(33 << 20) + 70_000, (69 << 20) - 700..69 << 20, end - 512..end] {
        disk[range].fill_with(|| random.next() as u8);
    }
    fs::write(bench.path("disk.raw"), &disk).unwrap();
    disk
}

/// Converts the disk, has `qemu-img` compare the two and answers the new file.
fn converted(bench: &Bench, preset: &str, format: &str, name: &str) -> Vec<u8> {
    let said = bench.instar(&["convert", "-f", "raw", "--preset", preset, "disk.raw", name]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said}");
    bench.make(&["compare", "-f", "raw", "-F", format, "disk.raw", name]);
    fs::read(bench.path(name)).unwrap()
}

fn read_elsewhere(bench: &Bench, library: &str, name: &str) -> u64 {
    common::read_by(bench, library, name, "read.raw").unwrap();
    bench.make(&["compare", "-f", "raw", "-F", "raw", "disk.raw", "read.raw"]);
    fs::metadata(bench.path("read.raw")).unwrap().len()
}

fn be64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn le64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn le32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

#[test]
fn azure_gets_a_fixed_vhd_of_whole_mebibytes() {
    let bench = Bench::new();
    disk(&bench);
    let vhd = converted(&bench, "azure", "vpc", "azure.vhd");
    let (data, footer) = vhd.split_at(vhd.len() - SECTOR);
    assert_eq!(data.len() as u64, 71 * MIB);
    assert_eq!(&footer[..8], b"conectix");
    // Creator: the size is that of the field, not of the geometry.
    assert_eq!((&footer[28..32], &footer[36..40]), (&b"qem2"[..], &b"Wi2k"[..]));
    assert_eq!((be64(footer, 40), be64(footer, 48)), (71 * MIB, 71 * MIB));
    // Disk type 2 is fixed; it has no header at another place.
    assert_eq!((&footer[60..64], be64(footer, 16)), (&[0, 0, 0, 2][..], u64::MAX));
    assert_eq!(read_elsewhere(&bench, "vhdi", "azure.vhd"), 71 * MIB);
}

#[test]
fn gcp_gets_a_raw_disk_of_whole_gibibytes() {
    let bench = Bench::new();
    let disk = disk(&bench);
    let raw = converted(&bench, "gcp", "raw", "disk-for-gcp.raw");
    assert_eq!(raw.len(), 1 << 30);
    assert!(raw.starts_with(&disk));
    assert!(raw[disk.len()..].iter().all(|&byte| byte == 0));
}

#[test]
fn hyperv_gets_a_dynamic_vhdx() {
    let bench = Bench::new();
    disk(&bench);
    let vhdx = converted(&bench, "hyperv", "vhdx", "hyperv.vhdx");
    assert!(vhdx.starts_with(b"vhdxfile"));
    // Blocks without data are not in the file.
    assert!(vhdx.len() < 60 << 20, "{}", vhdx.len());
    bench.make(&["check", "-q", "-f", "vhdx", "hyperv.vhdx"]);
    assert_eq!(read_elsewhere(&bench, "vhdi", "hyperv.vhdx"), (70 << 20) + 1536);
}

/// The markers of a strict stream, and the grains between them.
#[test]
fn esxi_gets_a_vmdk_that_can_be_read_from_front_to_back() {
    let bench = Bench::new();
    disk(&bench);
    let vmdk = converted(&bench, "esxi", "vmdk", "esxi.vmdk");
    assert!(vmdk.len().is_multiple_of(SECTOR));
    // Header: magic, version 3, compressed grains and markers, and that the directory is at the end.
    assert_eq!((&vmdk[..4], le32(&vmdk, 4), le32(&vmdk, 8)), (&b"KDMV"[..], 3, 0x3_0001));
    assert_eq!((le64(&vmdk, 56), &vmdk[77..79]), (u64::MAX, &[1, 0][..]));
    let descriptor = String::from_utf8_lossy(&vmdk[SECTOR..21 * SECTOR]);
    assert!(descriptor.contains("createType=\"streamOptimized\""), "{descriptor}");
    assert!(descriptor.contains("ddb.adapterType = \"lsilogic\""), "{descriptor}");

    let grain = le64(&vmdk, 20);
    let mut at = usize::try_from(le64(&vmdk, 64)).unwrap() * SECTOR;
    let (mut last, mut kinds, mut grains) = (None, Vec::new(), 0);
    while at < vmdk.len() {
        let (value, size) = (le64(&vmdk, at), le32(&vmdk, at + 8));
        let behind = if size > 0 {
            // A grain, by its first sector on the disk: in ascending order.
            assert!(value.is_multiple_of(grain) && last.is_none_or(|last| last < value), "{value}");
            (last, grains) = (Some(value), grains + 1);
            (12 + usize::try_from(size).unwrap()).next_multiple_of(SECTOR)
        } else {
            kinds.push(le32(&vmdk, at + 12));
            SECTOR * (1 + usize::try_from(value).unwrap())
        };
        at += behind;
    }
    assert_eq!(at, vmdk.len());
    assert!(grains > 5);
    // Grain tables (1), their directory (2), the footer (3) and the end of the stream (0).
    assert_eq!(kinds, [1, 1, 1, 2, 3, 0]);
    let footer = &vmdk[vmdk.len() - 2 * SECTOR..];
    assert_eq!((&footer[..4], le32(footer, 4)), (&b"KDMV"[..], 3));
    assert_ne!(le64(footer, 56), u64::MAX);
    assert!(vmdk.ends_with(&[0; SECTOR]));
    assert_eq!(read_elsewhere(&bench, "vmdk", "esxi.vmdk"), (70 << 20) + 1536);
}
