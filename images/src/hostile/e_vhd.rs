//! Section E: VHD.

use super::{CORRUPT, Class, INVALID, LIMIT, OK, Row, Stage, UNSUPPORTED, row};
use crate::build::vpc::{self, *};
use crate::{Field, SparseFile, be};

/// The dynamic disk with a field changed and the checksums made right.
fn set(field: Field, value: u64) -> impl Fn() -> SparseFile + Send + Sync {
    move || seal(dynamic().set(field, value))
}

/// Footer and copy say different things.
const DIFFERS: Class = Class::Flag("footer differs from its copy");

pub(super) fn rows() -> Vec<Row> {
    [headers(), tables(), footers()].into_iter().flatten().collect()
}

fn headers() -> Vec<Row> {
    vec![
        row("E00-sound", "a sound dynamic disk", OK, dynamic).agrees(),
        row("E01-block-size-0", "blocks of no length", INVALID, set(BLOCK_SIZE, 0)),
        row("E01-block-size-3", "blocks of three bytes", INVALID, set(BLOCK_SIZE, 3)),
        row("E01-block-size-256", "blocks of less than a sector", INVALID, set(BLOCK_SIZE, 256)),
        row("E01-block-size-odd", "blocks of 2 MiB and 512 bytes", INVALID, set(BLOCK_SIZE, (2 << 20) + 512)),
        row(
            "E01-block-size-2-31",
            "blocks of 2 GiB, the first of which ends past the end of the file",
            CORRUPT,
            set(BLOCK_SIZE, 1 << 31),
        ),
        row(
            "E01-block-size-512",
            "blocks of a sector, so that the table is too small",
            INVALID,
            set(BLOCK_SIZE, 512),
        ),
        row(
            "E02-entries-afl5",
            "a table of 2^30 and one entries (afl5)",
            LIMIT,
            set(TABLE_ENTRIES, 0x4000_0001),
        ),
        row(
            "E02-entries-2-32",
            "a table of 2^32 - 1 entries",
            LIMIT,
            set(TABLE_ENTRIES, u64::from(u32::MAX)),
        ),
        row(
            "E02-entries-too-few",
            "a table with too few entries for the disk",
            INVALID,
            set(TABLE_ENTRIES, 3),
        ),
        row("E02-entries-0", "a table without entries", INVALID, set(TABLE_ENTRIES, 0)),
        row(
            "E03-data-offset-none",
            "a dynamic disk without a dynamic header",
            INVALID,
            set(DATA_OFFSET, u64::MAX),
        ),
        row(
            "E03-data-offset-past-the-end",
            "a dynamic header past the end of the file",
            INVALID,
            set(DATA_OFFSET, 1 << 40),
        ),
        row("E03-data-offset-at-0", "the footer as the dynamic header", INVALID, set(DATA_OFFSET, 0)),
        row(
            "E04-size-2040g",
            "a disk of 2040 GiB and a sector",
            LIMIT,
            set(CURRENT_SIZE, (2040 << 30) + 512),
        ),
        row("E04-size-2-64", "a disk of 2^64 - 1 bytes", LIMIT, set(CURRENT_SIZE, u64::MAX)),
        row("E04-size-0", "a disk of no length", OK, set(CURRENT_SIZE, 0)).agrees(),
        row("E05-geometry-0", "no geometry, by a program that goes by it", OK, || {
            seal(dynamic().put(CREATOR, "qemu").set(GEOMETRY, 0))
        })
        .agrees(),
        row(
            "E05-geometry-larger",
            "a geometry larger than the size, by a program that goes by it",
            INVALID,
            || seal(dynamic().put(CREATOR, "vpc ").set(GEOMETRY, 0x4000_10ff)),
        ),
        row(
            "E05-geometry-largest",
            "the largest geometry, by a program that then goes by the size",
            OK,
            || seal(dynamic().put(CREATOR, "vpc ").set(GEOMETRY, 0xffff_10ff)),
        )
        .agrees(),
        row("E06-type-5", "a disk of an unknown type", UNSUPPORTED, set(DISK_TYPE, 5)),
        row("E06-type-0", "a disk of no type", UNSUPPORTED, set(DISK_TYPE, 0)),
        row("E06-type-differencing", "a differencing disk that names no parent", INVALID, set(DISK_TYPE, 4)),
    ]
}

fn tables() -> Vec<Row> {
    let lies = |id, trick, field, value| row(id, trick, CORRUPT, set(field, value)).at(Stage::Mapping);
    vec![
        lies("E07-block-is-footer-copy", "the footer's copy as a block", FIRST_BLOCK, 0),
        lies("E07-block-is-header", "the dynamic header as a block", FIRST_BLOCK, 1),
        lies("E07-block-is-table", "the table as a block", FIRST_BLOCK, 3),
        row("E07-block-is-footer", "the footer as a block", CORRUPT, set(FIRST_BLOCK, FOOTER / 512)),
        row("E07-block-past-the-end", "a block past the end of the file", CORRUPT, set(FIRST_BLOCK, 1 << 30)),
        row(
            "E07-block-at-2-32",
            "a block at the last sector there is",
            CORRUPT,
            set(FIRST_BLOCK, u64::from(u32::MAX) - 1),
        ),
        row("E08-blocks-twice", "two blocks of the disk in one of the file", CORRUPT, || {
            seal(dynamic().set(SECOND_BLOCK, BLOCK / 512)).with_length(8 << 20)
        })
        .at(Stage::Consistency),
        row("E08-blocks-all-the-same", "four blocks in a file that has room for one", CORRUPT, || {
            seal(dynamic().put(TABLE, ((BLOCK / 512) as u32).to_be_bytes().repeat(4)))
        })
        .at(Stage::Mapping),
        row(
            "E08-table-past-the-end",
            "a table past the end of the file",
            CORRUPT,
            set(TABLE_OFFSET, 1 << 40),
        ),
        row("E08-table-at-2-63", "a table whose end wraps round", INVALID, set(TABLE_OFFSET, u64::MAX)),
        row("E08-table-is-footer-copy", "the footer's copy as the table", CORRUPT, set(TABLE_OFFSET, 0)),
    ]
}

fn footers() -> Vec<Row> {
    vec![
        row("E09-checksum-of-copy", "a wrong checksum of the footer's copy", INVALID, || {
            dynamic().set(CHECKSUM, 1)
        }),
        row("E09-checksum-of-footer", "a wrong checksum of the footer, whose copy is right", DIFFERS, || {
            dynamic().set(be(FOOTER + 64, 4), 1)
        })
        .agrees(),
        row(
            "E09-checksum-of-header",
            "a wrong checksum of the dynamic header, as some programs make it",
            Class::Flag("wrong checksum"),
            || dynamic().set(HEADER_CHECKSUM, 1),
        )
        .agrees(),
        row("E10-footer-differs", "a footer of another disk than its copy", DIFFERS, || {
            dynamic().set(be(FOOTER + 48, 8), 1 << 30)
        })
        .agrees(),
        row("E10-footer-missing", "a disk whose footer was cut off", Class::Flag("no footer"), || {
            dynamic().with_length(FOOTER)
        })
        .agrees(),
        row("E10-footer-511", "a footer of 511 bytes, as old programs made it", OK, || {
            dynamic().with_length(FOOTER + 511)
        })
        .agrees(),
        row("E10-fixed-511", "a fixed disk with a footer of 511 bytes", OK, || {
            vpc::fixed(SparseFile::from([7; 512]).with_length(1 << 20)).with_length((1 << 20) + 511)
        })
        .said_to_be("vpc")
        .agrees(),
        row("E10-fixed-checksum", "a fixed disk with a wrong checksum", INVALID, || {
            vpc::fixed(SparseFile::from([7; 512]).with_length(1 << 20)).set(be((1 << 20) + 64, 4), 1)
        })
        .said_to_be("vpc"),
        row("E11-cut-in-header", "a file that ends in the dynamic header", CORRUPT, || {
            dynamic().with_length(600)
        }),
        row("E11-cut-in-copy", "a file that ends in the footer's copy", INVALID, || {
            dynamic().with_length(300)
        }),
    ]
}
