//! VMDK files: those that no tool at hand writes, and the smallest of the others.

use super::stream;
use crate::{Field, SparseFile, le};

/// A descriptor with these extent lines.
pub fn descriptor(create_type: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\
         # Extent description\n{extents}\n"
    )
}

/// Overwrites bytes with little-endian numbers: offset, length of the number in bytes, value.
pub fn patch(bytes: &mut Vec<u8>, patches: &[(usize, usize, u64)]) {
    for &(offset, length, value) in patches {
        if bytes.len() < offset + length {
            bytes.resize(offset + length, 0);
        }
        bytes[offset..offset + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }
}

/// A little-endian number.
pub fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    (0..length).rev().fold(0, |value, at| value << 8 | u64::from(bytes[offset + at]))
}

/// Moves the place of the grain directory from the header of a stream to a footer, as other programs write it.
pub fn with_footer(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let header = bytes[..512].to_vec();
    patch(&mut bytes, &[(56, 8, u64::MAX)]);
    let mut marker = vec![0; 512];
    patch(&mut marker, &[(0, 8, 1), (12, 4, 3)]);
    bytes.extend(marker);
    bytes.extend(header);
    bytes.extend([0; 512]);
    bytes
}

/// A `COWD` file of `grains` grains of `grain_sectors`, those of `stored` holding data, with a descriptor inside.
pub fn cowd(grains: usize, grain_sectors: usize, stored: &[usize]) -> Vec<u8> {
    let (tables, first) = (grains.div_ceil(4096), 32);
    let mut bytes = b"COWD".to_vec();
    let header = [1, 3, grains * grain_sectors, grain_sectors, 24, tables];
    let fields: Vec<_> =
        header.iter().enumerate().map(|(index, &value)| (4 + 4 * index, 4, value as u64)).collect();
    patch(&mut bytes, &fields);
    bytes.resize(512, 0);
    bytes.extend(descriptor("vmfsSparse", "RW 1 VMFSSPARSE \"x\"").bytes());
    bytes.resize((first + tables * 32) * 512, 0);
    for &grain in stored {
        let (table, sector) = (first + grain / 4096 * 32, bytes.len() / 512);
        patch(
            &mut bytes,
            &[
                (24 * 512 + 4 * (grain / 4096), 4, table as u64),
                (table * 512 + 4 * (grain % 4096), 4, sector as u64),
            ],
        );
        bytes.resize(bytes.len() + grain_sectors * 512, 7);
    }
    bytes
}

/// Grain table entries of [`se_sparse`] that stand for no data: a grain that is not there.
pub const UNMAPPED: u64 = 1 << 60;
/// A grain of zeros.
pub const ZERO: u64 = 2 << 60;

/// A `SESPARSE` file of `sectors` sectors: `entries` are numbers of grains and what is in their table entry, where 0
/// stands for the next free grain.
pub fn se_sparse(sectors: u64, entries: &[(usize, u64)]) -> Vec<u8> {
    let grains = usize::try_from(sectors.div_ceil(8)).unwrap();
    let tables = grains.div_ceil(4096);
    let directory_sectors = tables.div_ceil(64);
    let (directory, first_table) = (2, 2 + directory_sectors);
    let first_grain = first_table + tables * 64;
    let mut bytes = Vec::new();
    let fields = [
        (0, 0xcafe_babe),
        (1, 0x2_0000_0001),
        (2, sectors),
        (3, 8),
        (4, 64),
        (10, 1),
        (11, 1),
        (16, directory as u64),
        (17, directory_sectors as u64),
        (18, first_table as u64),
        (19, (tables * 64) as u64),
        (24, first_grain as u64),
        (25, 8),
        (64, 0xcafe_cafe),
    ];
    patch(&mut bytes, &fields.map(|(index, value): (usize, u64)| (8 * index, 8, value)));
    bytes.resize(first_grain * 512, 0);
    let mut next = 0u64;
    for &(grain, value) in entries {
        let value = if value == 0 {
            bytes.resize(bytes.len() + 4096, 7);
            next += 1;
            3 << 60 | ((next - 1) & 0xfff) << 48 | (next - 1) >> 12
        } else {
            value
        };
        patch(
            &mut bytes,
            &[
                (directory * 512 + 8 * (grain / 4096), 8, 1 << 60 | (grain / 4096) as u64),
                ((first_table + grain / 4096 * 64) * 512 + 8 * (grain % 4096), 8, value),
            ],
        );
    }
    bytes
}

pub(crate) const VERSION: Field = le(4, 4);
pub(crate) const FLAGS: Field = le(8, 4);
pub(crate) const CAPACITY: Field = le(12, 8);
pub(crate) const GRAIN_SIZE: Field = le(20, 8);
pub(crate) const TABLE_ENTRIES: Field = le(44, 4);
pub(crate) const REDUNDANT_DIRECTORY: Field = le(48, 8);
pub(crate) const DIRECTORY: Field = le(56, 8);
pub(crate) const OVERHEAD: Field = le(64, 8);
/// The first entry of a [`hosted`] file's grain directory, and of its first grain table.
pub(crate) const FIRST_TABLE: Field = le(21 * 512, 4);
pub(crate) const FIRST_GRAIN: Field = le(22 * 512, 4);

/// A hosted sparse file of 32 MiB in grains of 64 KiB, the first of which is there: the descriptor at sector 1, the
/// directory at 21, its table at 22, the grain at 128.
pub(crate) fn hosted() -> SparseFile {
    let text = descriptor("monolithicSparse", "RW 65536 SPARSE \"image\"");
    SparseFile::from("KDMV")
        .set(VERSION, 1)
        .set(FLAGS, 1)
        .set(CAPACITY, 65536)
        .set(GRAIN_SIZE, 128)
        .set(le(28, 8), 1)
        .set(le(36, 8), 20)
        .set(TABLE_ENTRIES, 512)
        .set(DIRECTORY, 21)
        .set(OVERHEAD, 128)
        .put(73, "\n \r\n")
        .put(512, text)
        .set(FIRST_TABLE, 22)
        .set(FIRST_GRAIN, 128)
        .put(128 * 512, [7; 512])
        .with_length(256 * 512)
}

/// The same with another text in place of its descriptor.
pub(crate) fn hosted_with(text: impl AsRef<[u8]>) -> SparseFile {
    hosted().put(512, [0; 20 * 512]).put(512, text)
}

/// The same as a stream, its one grain holding this many zeros compressed; the marker is at sector 128.
pub(crate) fn stream_of(length: usize) -> SparseFile {
    let grain = stream::zlib_zeros(length);
    let text = descriptor("streamOptimized", "RW 65536 SPARSE \"image\"");
    hosted_with(text)
        .set(VERSION, 3)
        .set(FLAGS, 0x3_0001)
        .set(le(77, 2), 1)
        .put(128 * 512, [0; 512])
        .set(le(128 * 512 + 8, 4), grain.len() as u64)
        .put(128 * 512 + 12, grain)
}

/// A stream whose header is told by a footer.
pub(crate) fn stream_with_footer() -> SparseFile {
    let stream = stream_of(65536);
    let length = usize::try_from(stream.length()).unwrap_or(0);
    SparseFile::from(with_footer(stream.bytes(0, length)))
}
