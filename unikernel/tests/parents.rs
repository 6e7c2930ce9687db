//! `measure` of differencing disks, hosted. `qemu-img` cannot put them together: what is expected is known from how they
//! were made.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use images::build::vhdx::{Builder, FULL, PARTIAL, locator, put, seal_all};
use protocol::{ErrorKind, ErrorRecord};
use support::{measure, qemu_img, qemu_io, text};

/// Bytes of data that an answer counts.
fn data(path: &Path) -> u64 {
    let answer = measure(path, "cluster_size=512", None).unwrap();
    let empty = path.with_file_name("empty.raw");
    let size = fs::metadata(path.with_file_name("size")).unwrap().len();
    fs::File::create(&empty).unwrap().set_len(size).unwrap();
    answer.required - measure(&empty, "cluster_size=512", None).unwrap().required
}

/// Notes how long the disk is.
fn note(directory: &Path, size: u64) {
    fs::File::create(directory.join("size")).unwrap().set_len(size).unwrap();
}

fn fails(path: &Path) -> ErrorRecord {
    measure(path, "", None).unwrap_err()
}

/// Makes a differencing disk of a dynamic one of `qemu-img`'s: of the blocks that are there, the sectors `bits` are.
fn difference(path: &Path, id: [u8; 16], name: (&[u8; 4], &str), bits: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let utf16: Vec<u8> = name.1.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = bytes.len();
    put(&mut bytes, 60, &4_u32.to_be_bytes());
    put(&mut bytes, 512 + 40, &id);
    put(&mut bytes, 512 + 576, name.0);
    put(&mut bytes, 512 + 584, &u32::try_from(utf16.len()).unwrap().to_be_bytes());
    put(&mut bytes, 512 + 592, &u64::try_from(at).unwrap().to_be_bytes());
    for block in 0.. {
        let entry = bytes[1536 + 4 * block..][..4].try_into().map(u32::from_be_bytes).unwrap();
        if block >= 5 {
            break;
        }
        if entry != u32::MAX {
            let bitmap = entry as usize * 512;
            bytes[bitmap..bitmap + 512].fill(0);
            put(&mut bytes, bitmap, bits);
        }
    }
    put(&mut bytes, 64, &[0; 4]);
    let sum = !bytes[..512].iter().map(|&byte| u32::from(byte)).sum::<u32>();
    put(&mut bytes, 64, &sum.to_be_bytes());
    bytes.extend(utf16);
    fs::write(path, bytes).unwrap();
}

fn vhd(path: &Path, write: &str) -> [u8; 16] {
    qemu_img(&["create", "-q", "-f", "vpc", "-o", "force_size=on", text(path), "10M"]);
    qemu_io("vpc", path, &[write]);
    let footer = fs::read(path).unwrap();
    footer[68..84].try_into().unwrap()
}

#[test]
fn vhd_sector_by_sector() {
    let directory = tempfile::tempdir().unwrap();
    note(directory.path(), 10 << 20);
    let [base, middle, top] = ["base.vhd", "middle.vhd", "top.vhd"].map(|name| directory.path().join(name));
    let base_id = vhd(&base, "write 2M 4M");
    assert_eq!(data(&base), 4 << 20);
    let middle_id = vhd(&middle, "write 0 512");
    // Sectors 0 to 3 of the first block.
    difference(&middle, base_id, (b"W2ru", ".\\base.vhd"), &[0xf0]);
    assert_eq!(data(&middle), (4 << 20) + 2048);
    vhd(&top, "write 2M 512");
    difference(&top, middle_id, (b"W2ku", "C:\\vms\\middle.vhd"), &[0xff]);
    assert_eq!(data(&top), (4 << 20) + 2048);
    vhd(&top, "write 8M 512");
    difference(&top, middle_id, (b"W2ku", "C:\\vms\\middle.vhd"), &[0xff, 0x80]);
    assert_eq!(data(&top), (4 << 20) + 2048 + 9 * 512);
}

#[test]
fn a_vhd_s_parent_has_its_unique_id() {
    let directory = tempfile::tempdir().unwrap();
    let [base, top] = ["base.vhd", "top.vhd"].map(|name| directory.path().join(name));
    vhd(&base, "write 2M 4M");
    vhd(&top, "write 0 512");
    difference(&top, [7; 16], (b"W2ru", "base.vhd"), &[0xff]);
    let error = fails(&top);
    assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::InvalidFormat, Some("parent_unique_id")));
    assert_eq!(
        error.message,
        "Could not open backing file: Parent is not the vpc image whose unique id the differencing disk has"
    );
    fs::write(&base, vec![0; 4096]).unwrap();
    assert_eq!(fails(&top).message, "Could not open backing file: invalid VPC image");
    fs::remove_file(&base).unwrap();
    let expected =
        format!("Could not open backing file: Could not open '{}': No such file or directory", text(&base));
    assert_eq!(fails(&top).message, expected);
}

const MIB: usize = 1 << 20;
const DATA_GUID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const LINKAGE: &str = "{04030201-0605-0807-090a-0b0c0d0e0f10}";

fn vhdx(directory: &Path, name: &str, guid: [u8; 16], builder: &Builder) -> PathBuf {
    let mut bytes = builder.build();
    for header in [64 << 10, 128 << 10] {
        put(&mut bytes, header + 32, &guid);
    }
    // Sectors 0 to 2 and 9 of block 1.
    put(&mut bytes, 14 * MIB + MIB / 512 / 8, &[0b0000_0111, 0b0000_0010]);
    seal_all(&mut bytes);
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// To `qemu-img` a VHDX image is data from end to end, and so it is here as part of a chain.
#[test]
fn vhdx_parents_are_found_and_known_by_their_data() {
    let directory = tempfile::tempdir().unwrap();
    let base = Builder { bat: vec![(2, (5 << 20) | FULL)], ..Builder::default() };
    vhdx(directory.path(), "base.vhdx", DATA_GUID, &base);
    let child = |linkage: &str, name: (&str, &str)| {
        let bat = vec![(1, (5 << 20) | PARTIAL), (4096, (14 << 20) | FULL)];
        let parent = locator(&[("parent_linkage", linkage), name]);
        let builder = Builder { bat, length: 16, parent: Some(parent), ..Builder::default() };
        vhdx(directory.path(), "child.vhdx", [0; 16], &builder)
    };
    for name in [("relative_path", ".\\base.vhdx"), ("absolute_win32_path", "\\\\?\\D:\\vms\\base.vhdx")] {
        let answer = measure(&child(LINKAGE, name), "", None).unwrap();
        assert_eq!(answer.required, answer.fully_allocated);
    }
    let error = fails(&child("{04030201-0605-0807-090a-0b0c0d0e0f11}", ("relative_path", "base.vhdx")));
    assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::InvalidFormat, Some("parent_linkage")));
    let error = fails(&child(LINKAGE, ("relative_path", "gone.vhdx")));
    assert_eq!(error.kind, ErrorKind::Io);
}
