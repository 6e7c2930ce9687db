//! qcow2. An image has its tables in this order, a cluster each: header, refcount table, refcount block, data, L2 table;
//! behind them is the L1 table. The first cluster of the disk is data, the rest is not allocated.

use crate::{Field, SparseFile, be};

pub(crate) const VERSION: Field = be(4, 4);
pub(crate) const BACKING_OFFSET: Field = be(8, 8);
pub(crate) const BACKING_SIZE: Field = be(16, 4);
pub(crate) const CLUSTER_BITS: Field = be(20, 4);
pub(crate) const SIZE: Field = be(24, 8);
pub(crate) const CRYPT_METHOD: Field = be(32, 4);
pub(crate) const L1_SIZE: Field = be(36, 4);
pub(crate) const L1_OFFSET: Field = be(40, 8);
pub(crate) const REFTABLE_OFFSET: Field = be(48, 8);
pub(crate) const REFTABLE_CLUSTERS: Field = be(56, 4);
pub(crate) const SNAPSHOTS: Field = be(60, 4);
pub(crate) const SNAPSHOTS_OFFSET: Field = be(64, 8);
pub(crate) const INCOMPATIBLE: Field = be(72, 8);
pub(crate) const COMPATIBLE: Field = be(80, 8);
pub(crate) const AUTOCLEAR: Field = be(88, 8);
pub(crate) const REFCOUNT_ORDER: Field = be(96, 4);
pub(crate) const HEADER_LENGTH: Field = be(100, 4);
pub(crate) const COMPRESSION: Field = be(104, 1);

/// Bits of incompatible features.
pub(crate) const DATA_FILE: u64 = 4;
pub(crate) const ZSTD: u64 = 8;
pub(crate) const EXTENDED_L2: u64 = 16;

/// Kinds of header extensions.
pub(crate) const BACKING_FORMAT: u64 = 0xe279_2aca;
pub(crate) const FEATURE_NAMES: u64 = 0x6803_f857;
pub(crate) const BITMAPS: u64 = 0x2385_2875;
pub(crate) const CRYPTO: u64 = 0x0537_be77;
pub(crate) const DATA_FILE_NAME: u64 = 0x4441_5441;

pub(crate) const COPIED: u64 = 1 << 63;
pub(crate) const COMPRESSED: u64 = 1 << 62;

/// Clusters of the default size.
pub(crate) const CLUSTER: u64 = 1 << 16;
/// Where things are in an image with clusters of the default size.
pub(crate) const REFTABLE: u64 = CLUSTER;
pub(crate) const REFBLOCK: u64 = 2 * CLUSTER;
pub(crate) const DATA: u64 = 3 * CLUSTER;
pub(crate) const L2: u64 = 4 * CLUSTER;
pub(crate) const L1: u64 = 5 * CLUSTER;
/// Behind the L1 table, for what a row adds.
pub(crate) const FREE: u64 = 6 * CLUSTER;

/// End of the fixed header, where the extensions begin.
const HEADER_END: u64 = 112;
/// Where the name of a backing file is put.
const NAME: u64 = 2048;

/// A disk of `size` bytes in clusters of 2^`bits` bytes.
pub(crate) fn sized(bits: u32, size: u64) -> SparseFile {
    let cluster = 1 << bits;
    let entries = size.div_ceil(cluster << (bits - 3));
    let clusters = 5 + (entries * 8).div_ceil(cluster);
    let (data, l2, l1) = (3 * cluster, 4 * cluster, 5 * cluster);
    let image = SparseFile::from("QFI\u{fb}".chars().map(|c| c as u8).collect::<Vec<_>>())
        .set(VERSION, 3)
        .set(CLUSTER_BITS, bits.into())
        .set(SIZE, size)
        .set(L1_SIZE, entries)
        .set(L1_OFFSET, l1)
        .set(REFTABLE_OFFSET, cluster)
        .set(REFTABLE_CLUSTERS, 1)
        .set(REFCOUNT_ORDER, 4)
        .set(HEADER_LENGTH, HEADER_END)
        .set(be(cluster, 8), 2 * cluster)
        .put(2 * cluster, [0, 1].repeat(clusters as usize))
        .put(data, [7; 512])
        .set(be(l2, 8), data | COPIED);
    let image = if entries == 0 { image } else { image.set(be(l1, 8), l2 | COPIED) };
    image.with_length(clusters * cluster)
}

/// A disk of 1 MiB in clusters of 64 KiB.
pub(crate) fn image() -> SparseFile {
    sized(16, 1 << 20)
}

/// The same in version 2.
pub(crate) fn version_2() -> SparseFile {
    image().put(72, [0; 40]).set(VERSION, 2)
}

/// The same with subclusters: the data is the first of them.
pub(crate) fn extended() -> SparseFile {
    image().set(INCOMPATIBLE, EXTENDED_L2).set(be(L2 + 8, 8), 1)
}

/// Adds header extensions: kind, length that the extension claims, what is there.
pub(crate) fn with_extensions(image: SparseFile, extensions: &[(u64, u64, &[u8])]) -> SparseFile {
    let (mut image, mut at) = (image, HEADER_END);
    for (kind, length, data) in extensions {
        image = image.set(be(at, 4), *kind).set(be(at + 4, 4), *length).put(at + 8, data);
        at += 8 + (data.len() as u64).next_multiple_of(8);
    }
    image
}

/// Adds one header extension.
pub(crate) fn with_extension(image: SparseFile, kind: u64, data: &[u8]) -> SparseFile {
    with_extensions(image, &[(kind, data.len() as u64, data)])
}

/// The disk on a backing file of this name and format; without data of its own.
pub(crate) fn overlay(name: impl AsRef<[u8]>, format: &str) -> SparseFile {
    let image = image().set(be(L1, 8), 0);
    let image = match format {
        "" => image,
        format => with_extension(image, BACKING_FORMAT, format.as_bytes()),
    };
    let name = name.as_ref();
    image.put(NAME, name).set(BACKING_OFFSET, NAME).set(BACKING_SIZE, name.len() as u64)
}

/// The disk with its data in another file, at the same offset as on the disk.
pub(crate) fn with_data_file(name: &str) -> SparseFile {
    with_extension(image(), DATA_FILE_NAME, name.as_bytes())
        .set(INCOMPATIBLE, DATA_FILE)
        .set(be(L2, 8), COPIED)
}

/// The disk with bitmaps, as their extension describes them: number, bytes of the directory, its offset.
pub(crate) fn with_bitmaps(count: u64, length: u64, offset: u64) -> SparseFile {
    let extension = SparseFile::new().set(be(0, 4), count).set(be(4, 4), 0).set(be(8, 8), length);
    let extension = extension.set(be(16, 8), offset).bytes(0, 24);
    with_extension(image(), BITMAPS, &extension).set(AUTOCLEAR, 1)
}

/// An entry of the bitmap directory for a bitmap of the 1 MiB disk, whose table is at [`FREE`] + 1 cluster.
pub(crate) fn bitmap(name: &[u8], granularity_bits: u64) -> Vec<u8> {
    let entry = SparseFile::new().set(be(0, 8), FREE + CLUSTER).set(be(8, 4), 1).set(be(16, 1), 1);
    let entry = entry.set(be(17, 1), granularity_bits).set(be(18, 2), name.len() as u64);
    entry.put(24, name).bytes(0, (24 + name.len()).next_multiple_of(8))
}

/// An entry of the snapshot table.
pub(crate) fn snapshot(l1: u64, l1_size: u64, extra: u64) -> SparseFile {
    SparseFile::new()
        .set(be(0, 8), l1)
        .set(be(8, 4), l1_size)
        .set(be(12, 2), 1)
        .set(be(14, 2), 1)
        .set(be(36, 4), extra)
        .put(40 + extra, "1a")
}

/// A cluster descriptor for compressed data: its offset, and the number of further sectors it takes.
pub(crate) fn compressed(offset: u64, sectors: u64) -> u64 {
    COMPRESSED | sectors << 54 | offset
}
