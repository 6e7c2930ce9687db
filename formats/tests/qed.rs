//! QED: the map that `qemu-img map` prints, and images that are refused.

mod support;

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit, Unsupported};
use formats::{Format, Image};
use support::cases::Expect::{Read, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, check_file, create_as, flips};
use support::{FileStorage, Memory, Random, qemu_img_ok, qemu_io, text, walk};

const CLUSTER_SIZE: (usize, usize) = (4, 4);
const TABLE_SIZE: (usize, usize) = (8, 4);
const HEADER_SIZE: (usize, usize) = (12, 4);
const FEATURES: (usize, usize) = (16, 8);
const L1_OFFSET: (usize, usize) = (40, 8);
const IMAGE_SIZE: (usize, usize) = (48, 8);
const BACKING_OFFSET: (usize, usize) = (56, 4);
const BACKING_SIZE: (usize, usize) = (60, 4);
/// The first entry of the L1 table of a sample, and of its only L2 table.
const L1: usize = 0x1000;
const L2: usize = 0x8000;

fn set((offset, length): (usize, usize), value: u64) -> Patch {
    (offset, length, value)
}

/// 10 MiB, 4 KiB clusters, tables of 4 clusters; data, a hole and zeros.
fn sample() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("qed", directory.path(), "sample.qed", "cluster_size=4096,table_size=4", "10M");
    let commands = ["write -P 1 0 12k", "write -P 2 20k 4k", "write -z 24k 8k", "write -P 3 1M 64k"];
    qemu_io("qed", &path, &commands);
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[L1..L1 + 8], (L2 as u64).to_le_bytes());
    bytes
}

#[test]
fn the_map_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    for (index, options) in
        ["", "cluster_size=4096,table_size=2", "cluster_size=4096,table_size=16", "cluster_size=1M"]
            .into_iter()
            .enumerate()
    {
        for size in [0u64, 512, 10 << 20, (10 << 20) + 512 * 3, 1 << 30] {
            let name = format!("{index}-{size}.qed");
            let path = create_as("qed", directory.path(), &name, options, &size.to_string());
            check_file(Format::Qed, &path, Read, "new");
            if size == 0 {
                continue;
            }
            let commands: Vec<_> = (0..20)
                .map(|_| {
                    let offset = random.below(size / 512) * 512;
                    let length = ((random.below(50) + 1) * 4096).min(size - offset);
                    let zero = if random.below(3) == 0 { "-z" } else { "-P 1" };
                    format!("write {zero} {offset} {length}")
                })
                .collect();
            qemu_io("qed", &path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
            check_file(Format::Qed, &path, Read, "written");
        }
    }
}

#[test]
fn the_backing_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for (format, said) in [("raw", Some(&b"raw"[..])), ("qcow2", None)] {
        let below = create_as(format, directory.path(), format, "", "1M");
        let path = directory.path().join("over.qed");
        qemu_img_ok(&["create", "-q", "-f", "qed", "-b", text(&below), "-F", format, text(&path), "2M"]);
        let image = Image::open(FileStorage::open(&path), None).unwrap();
        let backing = image.backing().unwrap();
        assert_eq!((backing.name.as_slice(), backing.format.as_deref()), (text(&below).as_bytes(), said));
        assert_eq!(image.format(), Format::Qed);
    }
}

#[test]
fn fields_of_the_header() {
    let no = |field, message| Refused(InvalidFormat, field, message);
    let magic = no("magic", "Image not in QED format");
    let cluster = no("cluster_size", "QED cluster size is invalid");
    let table = no("table_size", "QED table size is invalid");
    let size = no("image_size", "QED image size is invalid");
    let l1 = no("l1_table_offset", "QED table offset is invalid");
    let backing = no("backing_filename_offset", "QED backing filename offset is invalid");
    let name = no("backing_filename_size", "Failed to read backing filename");
    let feature = |message| Refused(Unsupported, "features", message);
    let base = sample();
    let end = base.len() as u64;
    check(
        Format::Qed,
        &base,
        Order::Little,
        &[
            (&[], Read),
            (&[(0, 4, 1), set(CLUSTER_SIZE, 0)], magic),
            (&[set(CLUSTER_SIZE, 2048)], cluster),
            (&[set(CLUSTER_SIZE, 0x3000)], cluster),
            (&[set(CLUSTER_SIZE, 128 << 20)], cluster),
            (&[set(CLUSTER_SIZE, 64 << 20)], size),
            (&[set(TABLE_SIZE, 0), set(IMAGE_SIZE, 1)], table),
            (&[set(TABLE_SIZE, 3)], table),
            (&[set(TABLE_SIZE, 32)], table),
            (&[set(TABLE_SIZE, 1)], l1),
            (&[set(HEADER_SIZE, 0)], Read),
            (&[set(HEADER_SIZE, 2)], l1),
            (&[set(HEADER_SIZE, u64::from(u32::MAX))], l1),
            (&[set(FEATURES, 2)], Read),
            (&[set(FEATURES, 4)], Read),
            (&[set(FEATURES, 8), set(CLUSTER_SIZE, 0)], feature("Unsupported QED features: 8")),
            (&[set(FEATURES, u64::MAX)], feature("Unsupported QED features: fffffffffffffff8")),
            (&[(24, 8, u64::MAX), (32, 8, u64::MAX)], Read),
            (&[set(L1_OFFSET, 0)], l1),
            (&[set(L1_OFFSET, 0x1001)], l1),
            (&[set(L1_OFFSET, end - 0x3000)], l1),
            (&[set(L1_OFFSET, 0u64.wrapping_sub(0x1000))], l1),
            (&[set(L1_OFFSET, 1), set(IMAGE_SIZE, 1)], size),
            (&[set(IMAGE_SIZE, 0)], Read),
            (&[set(IMAGE_SIZE, (10 << 20) + 1)], size),
            (&[set(IMAGE_SIZE, 1 << 34)], Read),
            (&[set(IMAGE_SIZE, (1 << 34) + 512)], size),
            (&[set(FEATURES, 1), set(BACKING_OFFSET, 4090), set(BACKING_SIZE, 7)], backing),
            (&[set(FEATURES, 1), set(BACKING_OFFSET, 64), set(BACKING_SIZE, 0)], Read),
            (&[set(FEATURES, 1), set(BACKING_OFFSET, 0), set(BACKING_SIZE, 4096)], name),
            (
                &[set(FEATURES, 1), set(BACKING_OFFSET, u32::MAX.into()), set(BACKING_SIZE, u32::MAX.into())],
                backing,
            ),
        ],
    );
}

/// `qemu-img` takes the length for an error that is none.
#[test]
fn a_disk_of_2_to_the_63_bytes_is_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let options = "cluster_size=2M,table_size=8";
    let path = create_as("qed", directory.path(), "long.qed", options, "1M");
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&path).unwrap(),
        &(1u64 << 63).to_le_bytes(),
        48,
    )
    .unwrap();
    let message = "Could not refresh total sector count: File too large";
    check_file(Format::Qed, &path, RefusedOtherwise(Limit, "image_size", message, None), "2^63");
}

/// `qemu-img` finds the same faults and says "Invalid argument".
#[test]
fn entries_of_both_tables() {
    let base = sample();
    let end = base.len() as u64;
    let theirs = Some("Unable to get block status: Invalid argument");
    let l1 = |message| RefusedOtherwise(Corrupt, "L1 table", message, theirs);
    let l2 = |message| RefusedOtherwise(Corrupt, "L2 table", message, theirs);
    check(
        Format::Qed,
        &base,
        Order::Little,
        &[
            (&[(L1, 8, 1)], l1("L2 table offset 0x1 is invalid (L1 index: 0)")),
            (&[(L1, 8, 0x8001)], l1("L2 table offset 0x8001 is invalid (L1 index: 0)")),
            (&[(L1, 8, 1 << 40)], l1("L2 table offset 0x10000000000 is invalid (L1 index: 0)")),
            (
                &[(L1, 8, 0u64.wrapping_sub(4096))],
                l1("L2 table offset 0xfffffffffffff000 is invalid (L1 index: 0)"),
            ),
            // The L1 table in the place of an L2 table, and an entry that the disk does not use.
            (&[(L1, 8, L1 as u64)], Read),
            (&[(L1 + 40, 8, 1)], Read),
            (&[(L2 + 24, 8, 2)], l2("Invalid cluster entry (L1 index: 0, L2 index: 3)")),
            (&[(L2, 8, 0x800)], l2("Invalid cluster entry (L1 index: 0, L2 index: 0)")),
            (&[(L2 + 24, 8, end)], l2("Invalid cluster entry (L1 index: 0, L2 index: 3)")),
            (&[(L2 + 24, 8, end - 4096)], Read),
            (&[(L2, 8, 0x1000), (L2 + 8, 8, 0x1000), (L2 + 16, 8, 1)], Read),
        ],
    );
    let mut cut = base.clone();
    cut.truncate(base.len() - 1);
    check(Format::Qed, &cut, Order::Little, &[(&[], Read)]);
    cut.truncate(base.len() - 512);
    let message = "Invalid cluster entry (L1 index: 0, L2 index: 271)";
    // Of a run of clusters qemu-img checks the first.
    let cut_off = RefusedOtherwise(Corrupt, "L2 table", message, None);
    check(Format::Qed, &cut, Order::Little, &[(&[], cut_off)]);
}

/// Every L1 entry points to one L2 table: `qemu-img` walks on.
#[test]
fn a_shared_l2_table_does_not_make_a_walk_without_end() {
    let mut bytes = sample();
    bytes[48..56].copy_from_slice(&(1u64 << 34).to_le_bytes());
    for index in 0..2048 {
        bytes[L1 + 8 * index..][..8].copy_from_slice(&(L2 as u64).to_le_bytes());
    }
    let mut image = Image::open(Memory::new(bytes), None).unwrap();
    let error = walk(&mut image).unwrap_err();
    assert_eq!((error.kind, error.field), (Corrupt, "L1 table"));
}

#[test]
fn damage_is_survived() {
    let base = sample();
    flips(&base[..0xd000], Format::Qed, 64, 500);
    flips(&base[..0xd000], Format::Qed, 0x8100, 1000);
}
