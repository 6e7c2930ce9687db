//! qcow, version 1: the map that `qemu-img map` prints, and images that are refused.

mod support;

use formats::ErrorKind::{Corrupt, InvalidFormat, Key, Limit, Unsupported};
use formats::{Format, Image};
use support::cases::Expect::{Read, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, check_file, create_as, flips, survive};
use support::{FileStorage, Kind, Memory, Random, qemu_img_ok, qemu_io, text, walk, word};

const VERSION: (usize, usize) = (4, 4);
const BACKING_OFFSET: (usize, usize) = (8, 8);
const BACKING_SIZE: (usize, usize) = (16, 4);
const SIZE: (usize, usize) = (24, 8);
const CLUSTER_BITS: (usize, usize) = (32, 1);
const L2_BITS: (usize, usize) = (33, 1);
const CRYPT: (usize, usize) = (36, 4);
const L1_OFFSET: (usize, usize) = (40, 8);
/// The first entry of the L1 table.
const L1: usize = 48;

fn set((offset, length): (usize, usize), value: u64) -> Patch {
    (offset, length, value)
}

/// 10 MiB, 4 KiB clusters, some of them written.
fn sample() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("qcow", directory.path(), "sample.qcow", "", "10M");
    qemu_io("qcow", &path, &["write -P 1 0 12k", "write -P 2 32k 4k", "write -P 2 8M 100k"]);
    std::fs::read(path).unwrap()
}

#[test]
fn the_map_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    for (index, size) in [512u64, 4096, 10 << 20, (10 << 20) + 512 * 3, 1 << 30].into_iter().enumerate() {
        let path = create_as("qcow", directory.path(), &format!("{index}.qcow"), "", &size.to_string());
        check_file(Format::Qcow, &path, Read, "new");
        let commands: Vec<_> = (0..20)
            .map(|_| {
                let offset = random.below(size / 512) * 512;
                format!("write -P 1 {offset} {}", ((random.below(50) + 1) * 2048).min(size - offset))
            })
            .collect();
        qemu_io("qcow", &path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
        check_file(Format::Qcow, &path, Read, "written");
    }
}

#[test]
fn compressed_clusters() {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("qcow", directory.path(), "disk.qcow", "", "1M");
    let commands = ["write -c -P 7 0 4k", "write -c -P 8 4k 4k", "write -P 9 8k 4k", "write -c -P 10 64k 4k"];
    qemu_io("qcow", &path, &commands);
    check_file(Format::Qcow, &path, Read, "compressed");
    let lines = walk(&mut Image::open(FileStorage::open(&path), None).unwrap()).unwrap();
    assert!(lines.iter().any(|line| line.kind == Kind::Compressed));
    let base = std::fs::read(&path).unwrap();
    flips(&base, Format::Qcow, 0x500, 500);
}

#[test]
fn the_backing_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let raw = create_as("raw", directory.path(), "base.raw", "", "1M");
    let options = format!("backing_file={},backing_fmt=raw", text(&raw));
    let path = create_as("qcow", directory.path(), "over.qcow", &options, "2M");
    let image = Image::open(FileStorage::open(&path), None).unwrap();
    let backing = image.backing().unwrap();
    assert_eq!((backing.name.as_slice(), backing.format.as_deref()), (text(&raw).as_bytes(), None));
    assert_eq!(image.format(), Format::Qcow);
}

#[test]
fn an_encrypted_image_is_described_but_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aes.qcow");
    qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow",
        "--object",
        "secret,id=s,data=x",
        "-o",
        "encrypt.format=aes,encrypt.key-secret=s",
        text(&path),
        "1M",
    ]);
    let message = "Parameter 'encrypt.key-secret' is required for cipher";
    check_file(Format::Qcow, &path, Refused(Key, "key-secret", message), "encrypted");
    let image = Image::open_metadata(FileStorage::open(&path), None).unwrap();
    assert!(image.encrypted());
    assert_eq!(image.virtual_size(), 1 << 20);
}

#[test]
fn fields_of_the_header() {
    let magic = Refused(InvalidFormat, "magic", "Image not in qcow format");
    let small = Refused(InvalidFormat, "size", "Image size is too small (must be at least 2 bytes)");
    let large = Refused(Limit, "size", "Image too large");
    let cluster = Refused(InvalidFormat, "cluster_bits", "Cluster size must be between 512 and 64k");
    let l2 = Refused(InvalidFormat, "l2_bits", "L2 table size must be between 512 and 64k");
    let crypt = Refused(Unsupported, "crypt_method", "invalid encryption method in qcow header");
    let key = Refused(Key, "key-secret", "Parameter 'encrypt.key-secret' is required for cipher");
    let name = Refused(InvalidFormat, "backing_file_size", "Backing file name too long");
    let version = |text| Refused(Unsupported, "version", text);
    check(
        Format::Qcow,
        &sample(),
        Order::Big,
        &[
            (&[], Read),
            (&[(0, 4, 1)], magic),
            (&[set(VERSION, 0)], version("qcow (v1) does not support qcow version 0")),
            (&[set(VERSION, 2)], version("qcow (v1) does not support qcow version 2")),
            (&[set(VERSION, 1 << 31)], version("qcow (v1) does not support qcow version 2147483648")),
            (&[set(SIZE, 0)], small),
            (&[set(SIZE, 1)], small),
            (&[set(SIZE, 2)], Read),
            (&[set(SIZE, 513)], Read),
            (&[set(SIZE, (10 << 20) - 1)], Read),
            (&[set(SIZE, 1 << 49)], large),
            (&[set(SIZE, u64::MAX)], large),
            (&[set(SIZE, u64::MAX), set(CRYPT, 1)], key),
            (&[set(CLUSTER_BITS, 8)], cluster),
            (&[set(CLUSTER_BITS, 17)], cluster),
            (&[set(CLUSTER_BITS, 255)], cluster),
            (&[set(CLUSTER_BITS, 16)], Read),
            (&[set(L2_BITS, 5)], l2),
            (&[set(L2_BITS, 14)], l2),
            (&[set(L2_BITS, 6)], Read),
            (&[set(CRYPT, 2)], crypt),
            (&[set(BACKING_OFFSET, 48), set(BACKING_SIZE, 0)], Read),
            (&[set(BACKING_OFFSET, 48), set(BACKING_SIZE, 1024)], name),
            (&[set(BACKING_OFFSET, 1 << 40), set(BACKING_SIZE, 10)], Read),
        ],
    );
}

#[test]
fn entries_of_both_tables() {
    let base = sample();
    let l2 = usize::try_from(word(&base, L1)).unwrap();
    check(
        Format::Qcow,
        &base,
        Order::Big,
        &[
            // The same table twice.
            (&[(L1 + 8, 8, l2 as u64)], Read),
            // Clusters past the end of the file, twice the same, and compressed ones.
            (&[(l2, 8, 1 << 40)], Read),
            (&[(l2, 8, (1 << 63) - 4096)], Read),
            (&[(l2, 8, word(&base, l2 + 8))], Read),
            (&[(l2, 8, 1 << 63 | 8192)], Read),
            (&[(l2 + 8 * 511, 8, u64::MAX)], Read),
        ],
    );
}

/// What `qemu-img` maps but cannot read, or takes for zeros.
#[test]
fn tables_that_cannot_be_tables_are_refused() {
    let base = sample();
    let l2 = usize::try_from(word(&base, L1)).unwrap();
    let l1_outside = "L1 table lies beyond the end of the file";
    let outside = |message| RefusedOtherwise(Corrupt, "L1 table", message, None);
    let eio = Some("Unable to get block status: Input/output error");
    check(
        Format::Qcow,
        &base,
        Order::Big,
        &[
            (&[set(L1_OFFSET, 1 << 40)], RefusedOtherwise(Corrupt, "l1_table_offset", l1_outside, None)),
            (
                &[set(L1_OFFSET, 1 << 63)],
                RefusedOtherwise(Corrupt, "l1_table_offset", l1_outside, Some("Input/output error")),
            ),
            (
                &[(L1, 8, 1 << 40)],
                outside("L2 table offset 0x10000000000 beyond the end of the file (L1 index: 0)"),
            ),
            (
                &[(L1 + 8, 8, u64::MAX - 7)],
                RefusedOtherwise(
                    Corrupt,
                    "L1 table",
                    "L2 table offset 0xfffffffffffffff8 beyond the end of the file (L1 index: 1)",
                    eio,
                ),
            ),
            (
                &[(l2 + 16, 8, 4097)],
                RefusedOtherwise(
                    Corrupt,
                    "L2 table",
                    "Invalid cluster entry (L1 index: 0, L2 index: 2)",
                    None,
                ),
            ),
        ],
    );
}

/// 1 TiB, every L1 entry pointing to one L2 table: `qemu-img` walks 2^28 clusters.
#[test]
fn a_shared_l2_table_does_not_make_a_walk_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("qcow", directory.path(), "shared.qcow", "", "1T");
    qemu_io("qcow", &path, &["write -P 1 0 4k"]);
    let mut bytes = std::fs::read(path).unwrap();
    let entry: [u8; 8] = bytes[L1..L1 + 8].try_into().unwrap();
    for index in 0..1 << 19 {
        bytes[L1 + 8 * index..][..8].copy_from_slice(&entry);
    }
    let mut image = Image::open(Memory::new(bytes), None).unwrap();
    let error = walk(&mut image).unwrap_err();
    assert_eq!((error.kind, error.field), (Corrupt, "L1 table"));
}

#[test]
fn damage_is_survived() {
    let mut base = sample();
    base.truncate(0x3000);
    flips(&base, Format::Qcow, 0x100, 2000);
    let mut random = Random(8);
    for _ in 0..2000 {
        let mut bytes: Vec<u8> = (0..random.below(2048)).map(|_| random.next().to_le_bytes()[0]).collect();
        if bytes.len() >= 40 {
            bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x01");
            bytes[24..40].copy_from_slice(&[0, 0, 0, 0, 0, 1, 0, 0, 9, 6, 0, 0, 0, 0, 0, 0]);
        }
        survive(&bytes, None);
    }
}
