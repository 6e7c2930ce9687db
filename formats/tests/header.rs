//! Every header field at its limits: accepted or refused as `qemu-img` does it, in the same words.

mod support;

use formats::ErrorKind::{self, Corrupt, InvalidFormat, Key, Limit, Unsupported};
use formats::{Error, Format, Image};
use support::{Memory, create, patch, qemu_complaint, walk};

// Fields of the header: offset and length in bytes.
const MAGIC: (usize, usize) = (0, 4);
const VERSION: (usize, usize) = (4, 4);
const BACKING_OFFSET: (usize, usize) = (8, 8);
const BACKING_SIZE: (usize, usize) = (16, 4);
const CLUSTER_BITS: (usize, usize) = (20, 4);
const SIZE: (usize, usize) = (24, 8);
const CRYPT: (usize, usize) = (32, 4);
const L1_SIZE: (usize, usize) = (36, 4);
const L1_OFFSET: (usize, usize) = (40, 8);
const REFTABLE_OFFSET: (usize, usize) = (48, 8);
const REFTABLE_CLUSTERS: (usize, usize) = (56, 4);
const SNAPSHOTS: (usize, usize) = (60, 4);
const SNAPSHOTS_OFFSET: (usize, usize) = (64, 8);
const INCOMPATIBLE: (usize, usize) = (72, 8);
const COMPATIBLE: (usize, usize) = (80, 8);
const AUTOCLEAR: (usize, usize) = (88, 8);
const REFCOUNT_ORDER: (usize, usize) = (96, 4);
const HEADER_LENGTH: (usize, usize) = (100, 4);
const COMPRESSION: (usize, usize) = (104, 1);

type Values<'a> = &'a [((usize, usize), u64)];

/// A refusal: its kind, the field to blame, and `qemu-img`'s words for it.
type Refusal = Option<(ErrorKind, &'static str, &'static str)>;

const OK: Refusal = None;

const fn no(kind: ErrorKind, field: &'static str, message: &'static str) -> Refusal {
    Some((kind, field, message))
}

fn open_and_walk(bytes: Vec<u8>) -> Result<(), Error> {
    let mut image = Image::open(Memory::new(bytes), Some(Format::Qcow2))?;
    walk(&mut image).map(|_| ())
}

/// Patches an image, opens it both ways, and compares: with the expectation and with each other.
fn check(options: &str, cases: &[(Values<'_>, Refusal)]) {
    let directory = tempfile::tempdir().unwrap();
    let base = std::fs::read(create(directory.path(), "base.qcow2", options, "64M")).unwrap();
    let path = directory.path().join("patched.qcow2");
    for (values, expected) in cases {
        let mut bytes = base.clone();
        let patches: Vec<_> =
            values.iter().map(|&((offset, length), value)| (offset, length, value)).collect();
        patch(&mut bytes, &patches);
        std::fs::write(&path, &bytes).unwrap();
        let found = open_and_walk(bytes).err();
        let expected = expected.map(|(kind, field, message)| Error::new(kind, field, message));
        assert_eq!(found, expected, "{values:x?}");
        assert_eq!(found.map(|error| error.message), qemu_complaint(&path), "{values:x?}");
    }
}

#[test]
fn version_3_fields() {
    let version = |text| no(Unsupported, "version", text);
    let bits = |text| no(Unsupported, "cluster_bits", text);
    let short = no(InvalidFormat, "header_length", "qcow2 header too short");
    let long = no(InvalidFormat, "header_length", "qcow2 header exceeds cluster size");
    let extension = no(InvalidFormat, "header extension", "Header extension too large");
    let backing = no(InvalidFormat, "backing_file_offset", "Invalid backing file offset");
    let name = no(InvalidFormat, "backing_file_size", "Backing file name too long");
    let table_small = no(InvalidFormat, "l1_size", "L1 table is too small");
    let too_big = no(Limit, "size", "Image is too big");
    let too_large = no(Limit, "size", "Could not refresh total sector count: File too large");
    let crypt = |text| no(Unsupported, "crypt_method", text);
    let l1_offset = no(InvalidFormat, "l1_table_offset", "Active L1 table offset invalid");
    let l1_large = no(Limit, "l1_size", "Active L1 table too large");
    let reftable = no(InvalidFormat, "refcount_table_offset", "Reference count table offset invalid");
    let reftable_large = no(Limit, "refcount_table_clusters", "Reference count table too large");
    let snapshots = no(InvalidFormat, "snapshots_offset", "Snapshot table offset invalid");
    let snapshots_large = no(Limit, "nb_snapshots", "Snapshot table too large");
    let feature = |text| no(Unsupported, "incompatible_features", text);
    let compression_bit = |text| no(InvalidFormat, "incompatible_features", text);
    let unknown_compression = |text| no(Unsupported, "compression_type", text);
    let bit_unset = compression_bit("qcow2: Compression type incompatible feature bit must not be set");
    let bit_set = compression_bit("qcow2: Compression type incompatible feature bit must be set");
    let raw = no(InvalidFormat, "autoclear_features", "data-file-raw requires a data file");
    let order = "Reference count entry width too large; may not exceed 64 bits";
    let wide = no(InvalidFormat, "refcount_order", order);
    check(
        "",
        &[
            (&[], OK),
            (&[(MAGIC, 0x5146_49fc)], no(InvalidFormat, "magic", "Image is not in qcow2 format")),
            (&[(VERSION, 0)], version("Unsupported qcow2 version 0")),
            (&[(VERSION, 1)], version("Unsupported qcow2 version 1")),
            (&[(VERSION, 2)], OK),
            (&[(VERSION, 4)], version("Unsupported qcow2 version 4")),
            (&[(VERSION, 0xffff_ffff)], version("Unsupported qcow2 version 4294967295")),
            (&[(CLUSTER_BITS, 0)], bits("Unsupported cluster size: 2^0")),
            (&[(CLUSTER_BITS, 8)], bits("Unsupported cluster size: 2^8")),
            (&[(CLUSTER_BITS, 9)], table_small),
            (&[(CLUSTER_BITS, 15)], OK),
            (&[(CLUSTER_BITS, 21)], reftable),
            (&[(CLUSTER_BITS, 22)], bits("Unsupported cluster size: 2^22")),
            (&[(CLUSTER_BITS, 63)], bits("Unsupported cluster size: 2^63")),
            (&[(CLUSTER_BITS, 0xffff_ffff)], bits("Unsupported cluster size: 2^4294967295")),
            (&[(HEADER_LENGTH, 0)], short),
            (&[(HEADER_LENGTH, 103)], short),
            (&[(HEADER_LENGTH, 104)], OK),
            (&[(HEADER_LENGTH, 105)], OK),
            (&[(HEADER_LENGTH, 108)], extension),
            (&[(HEADER_LENGTH, 65536)], OK),
            (&[(HEADER_LENGTH, 65537)], long),
            (&[(HEADER_LENGTH, 0xffff_ffff)], long),
            (&[(BACKING_OFFSET, 1)], OK),
            (&[(BACKING_OFFSET, 65536)], OK),
            (&[(BACKING_OFFSET, 65537)], backing),
            (&[(BACKING_OFFSET, u64::MAX)], backing),
            (&[(BACKING_OFFSET, 300)], extension),
            (&[(BACKING_OFFSET, 0x8000), (BACKING_SIZE, 1023)], OK),
            (&[(BACKING_OFFSET, 0x8000), (BACKING_SIZE, 1024)], name),
            (&[(BACKING_OFFSET, 0x8000), (BACKING_SIZE, 0xffff_ffff)], name),
            (&[(BACKING_OFFSET, 0xffff), (BACKING_SIZE, 1)], OK),
            (&[(BACKING_OFFSET, 0xffff), (BACKING_SIZE, 2)], name),
            (&[(BACKING_OFFSET, 0x10000), (BACKING_SIZE, 1)], name),
            (&[(SIZE, 0)], OK),
            (&[(SIZE, 511)], OK),
            (&[(SIZE, 513)], OK),
            (&[(SIZE, 1 << 29)], OK),
            (&[(SIZE, (1 << 29) + 1)], table_small),
            (&[(SIZE, 1 << 60)], too_big),
            (&[(SIZE, 1 << 63)], too_big),
            (&[(SIZE, (1 << 63) - 512)], too_big),
            (&[(SIZE, 0u64.wrapping_sub(1 << 29))], too_big),
            (&[(SIZE, 0u64.wrapping_sub(1 << 29) + 1)], too_large),
            (&[(SIZE, u64::MAX)], too_large),
            (&[(CRYPT, 1)], no(Key, "key-secret", "Parameter 'encrypt.key-secret' is required for cipher")),
            (&[(CRYPT, 2)], no(InvalidFormat, "crypt_method", "Missing CRYPTO header for crypt method 2")),
            (&[(CRYPT, 3)], crypt("Unsupported encryption method 3")),
            (&[(CRYPT, 0xffff_ffff)], crypt("Unsupported encryption method -1")),
            (&[(L1_SIZE, 0)], table_small),
            (&[(L1_SIZE, 2)], OK),
            (&[(L1_SIZE, 0x40_0000)], OK),
            (&[(L1_SIZE, 0x40_0001)], l1_large),
            (&[(L1_SIZE, 0xffff_ffff)], l1_large),
            (&[(L1_OFFSET, 512)], l1_offset),
            (&[(L1_OFFSET, 0x3_0001)], l1_offset),
            (&[(L1_OFFSET, 1 << 63)], l1_offset),
            (&[(REFTABLE_OFFSET, 512)], reftable),
            (&[(REFTABLE_OFFSET, 1 << 63)], reftable),
            (
                &[(REFTABLE_CLUSTERS, 0)],
                no(
                    InvalidFormat,
                    "refcount_table_clusters",
                    "Image does not contain a reference count table",
                ),
            ),
            (&[(REFTABLE_CLUSTERS, 2)], OK),
            (&[(REFTABLE_CLUSTERS, 129)], reftable_large),
            (&[(REFTABLE_CLUSTERS, 0xffff_ffff)], reftable_large),
            (&[(SNAPSHOTS, 65537)], snapshots_large),
            (&[(SNAPSHOTS, 0xffff_ffff)], snapshots_large),
            (&[(SNAPSHOTS_OFFSET, 512)], snapshots),
            (&[(SNAPSHOTS_OFFSET, 512), (SNAPSHOTS, 1)], snapshots),
            (&[(SNAPSHOTS_OFFSET, 1 << 63)], snapshots),
            (&[(SNAPSHOTS_OFFSET, 0x40000)], OK),
            (&[(INCOMPATIBLE, 1)], OK),
            (&[(INCOMPATIBLE, 2)], OK),
            (&[(INCOMPATIBLE, 8)], bit_unset),
            (&[(INCOMPATIBLE, 16)], OK),
            (&[(INCOMPATIBLE, 16), (CLUSTER_BITS, 13)], bits("Unsupported subcluster size: 256")),
            (
                &[(INCOMPATIBLE, 32)],
                feature("Unsupported qcow2 feature(s): Unknown incompatible feature: 20"),
            ),
            (
                &[(INCOMPATIBLE, 1 << 63)],
                feature("Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000"),
            ),
            (&[(COMPATIBLE, u64::MAX)], OK),
            (&[(AUTOCLEAR, 1)], OK),
            (&[(AUTOCLEAR, 2)], raw),
            (&[(AUTOCLEAR, 1 << 63)], OK),
            (&[(REFCOUNT_ORDER, 0)], OK),
            (&[(REFCOUNT_ORDER, 6)], OK),
            (&[(REFCOUNT_ORDER, 7)], wide),
            (&[(REFCOUNT_ORDER, 0xffff_ffff)], wide),
            (&[(COMPRESSION, 1)], bit_set),
            (&[(COMPRESSION, 1), (INCOMPATIBLE, 8)], OK),
            (&[(COMPRESSION, 2)], unknown_compression("qcow2: unknown compression type: 2")),
            (
                &[(COMPRESSION, 255), (INCOMPATIBLE, 8)],
                unknown_compression("qcow2: unknown compression type: 255"),
            ),
            (&[(COMPRESSION, 1), (HEADER_LENGTH, 104)], OK),
            (&[(INCOMPATIBLE, 8), (HEADER_LENGTH, 104)], bit_unset),
        ],
    );
}

#[test]
fn version_2_has_no_features() {
    let key = "Parameter 'encrypt.key-secret' is required for cipher";
    check(
        "compat=0.10",
        &[
            (&[], OK),
            (&[(INCOMPATIBLE, 1 << 40), (AUTOCLEAR, 2), (REFCOUNT_ORDER, 9), (HEADER_LENGTH, 3)], OK),
            (&[(CRYPT, 1)], no(Key, "key-secret", key)),
        ],
    );
}

#[test]
fn the_first_of_several_faults_is_the_one_reported() {
    check(
        "",
        &[
            (
                &[(VERSION, 9), (CLUSTER_BITS, 0), (CRYPT, 9)],
                no(Unsupported, "version", "Unsupported qcow2 version 9"),
            ),
            (
                &[(REFCOUNT_ORDER, 7), (CRYPT, 9), (L1_OFFSET, 1)],
                no(
                    InvalidFormat,
                    "refcount_order",
                    "Reference count entry width too large; may not exceed 64 bits",
                ),
            ),
            (
                &[(SIZE, u64::MAX), (CRYPT, 1)],
                no(Key, "key-secret", "Parameter 'encrypt.key-secret' is required for cipher"),
            ),
            (
                &[(HEADER_LENGTH, 108), (CRYPT, 9)],
                no(Unsupported, "crypt_method", "Unsupported encryption method 9"),
            ),
        ],
    );
}

#[test]
fn metadata_is_there_without_key_or_data_file() {
    let directory = tempfile::tempdir().unwrap();
    let base = std::fs::read(create(directory.path(), "base.qcow2", "", "64M")).unwrap();
    for (offset, length, value) in [(32, 4, 1), (72, 8, 4), (88, 8, 2)] {
        let mut bytes = base.clone();
        patch(&mut bytes, &[(offset, length, value)]);
        // Without a name the data file is for the caller to find.
        assert_eq!(Image::open(Memory::new(bytes.clone()), None).is_ok(), offset == 72);
        let image = Image::open_metadata(Memory::new(bytes), None).unwrap();
        assert_eq!(image.encrypted(), offset == 32);
        assert_eq!(image.data_file().is_some(), offset == 72);
        assert_eq!(image.virtual_size(), 64 << 20);
    }
}

/// What `qemu-img` reads as zeros, or as a table that is none, is refused before the mapping is used.
#[test]
fn tables_that_cannot_be_tables_are_refused_at_the_first_look_at_the_mapping() {
    let directory = tempfile::tempdir().unwrap();
    let base = std::fs::read(create(directory.path(), "base.qcow2", "", "64M")).unwrap();
    let beyond = "Active L1 table lies beyond the end of the file";
    let reftable_beyond = "Reference count table lies beyond the end of the file";
    for ((offset, length), value, field, message) in [
        (L1_OFFSET, 0, "l1_table_offset", "Active L1 table overlaps the header"),
        (L1_OFFSET, 0x1_0000, "l1_table_offset", "Active L1 table overlaps the reference count table"),
        (L1_OFFSET, 0x4_0000, "l1_table_offset", beyond),
        (L1_OFFSET, 1 << 62, "l1_table_offset", beyond),
        (REFTABLE_OFFSET, 0, "refcount_table_offset", "Reference count table overlaps the header"),
        (REFTABLE_OFFSET, 0x4_0000, "refcount_table_offset", reftable_beyond),
        (REFTABLE_CLUSTERS, 3, "refcount_table_offset", reftable_beyond),
    ] {
        let mut bytes = base.clone();
        patch(&mut bytes, &[(offset, length, value)]);
        assert_eq!(
            open_and_walk(bytes.clone()),
            Err(Error::new(Corrupt, field, message)),
            "{message} {value:x}"
        );
        Image::open(Memory::new(bytes), None).unwrap();
    }
}
