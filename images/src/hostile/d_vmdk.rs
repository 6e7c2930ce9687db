//! Section D: VMDK in one file.

use super::{CORRUPT, Class, Files, INVALID, LIMIT, OK, Row, Stage, UNSUPPORTED, row};
use crate::build::vmdk::{self, *};
use crate::{Field, SparseFile, le};

/// The hosted file with a field changed.
fn set(field: Field, value: u64) -> impl Fn() -> SparseFile + Send + Sync {
    move || hosted().set(field, value)
}

pub(super) fn rows() -> Vec<Row> {
    [headers(), tables(), streams(), servers()].into_iter().flatten().collect()
}

fn headers() -> Vec<Row> {
    vec![
        row("D00-sound", "a sound sparse file", OK, hosted).agrees(),
        row("D01-grain-0", "grains of no length", INVALID, set(GRAIN_SIZE, 0)),
        row("D01-grain-3", "grains of three sectors", Class::Flag("odd grain size"), set(GRAIN_SIZE, 3)),
        row("D01-grain-2-40", "grains of 2^49 bytes", INVALID, set(GRAIN_SIZE, 1 << 40)),
        row("D01-grain-2-63", "grains whose length wraps round", INVALID, set(GRAIN_SIZE, 1 << 63)),
        row("D02-table-entries-0", "grain tables without entries", INVALID, set(TABLE_ENTRIES, 0)),
        row("D02-table-entries-513", "grain tables of 513 entries", INVALID, set(TABLE_ENTRIES, 513)),
        row(
            "D02-table-entries-2-32",
            "grain tables of 2^32 - 1 entries",
            INVALID,
            set(TABLE_ENTRIES, u64::from(u32::MAX)),
        ),
        row("D03-capacity-2-55", "a disk of 2^64 bytes (afl9)", LIMIT, set(CAPACITY, 1 << 55)),
        row("D03-capacity-2-64", "a disk of 2^64 - 1 sectors", LIMIT, set(CAPACITY, u64::MAX)),
        row("D03-capacity-0", "a disk of no length with a descriptor", UNSUPPORTED, set(CAPACITY, 0)),
        row(
            "D03-capacity-16t",
            "a disk of 16 TiB whose directory the file has no room for",
            CORRUPT,
            set(CAPACITY, 1 << 35),
        )
        .at(Stage::Mapping),
        row(
            "D04-overhead-past-the-end",
            "a file that is shorter than its tables",
            CORRUPT,
            set(OVERHEAD, 1 << 40),
        ),
        row("D05-version-4", "a version to come", UNSUPPORTED, set(VERSION, 4)),
        row("D05-version-0", "a version before the first", Class::Flag("unknown version"), set(VERSION, 0)),
        row("D05-version-2-32", "a version of 2^32 - 1", UNSUPPORTED, set(VERSION, u64::from(u32::MAX))),
        row("D06-descriptor-missing", "a sparse file without a descriptor", INVALID, || hosted_with("")),
        row("D06-descriptor-endless", "a descriptor that fills its place and does not end", OK, || {
            hosted_with(vmdk::descriptor("monolithicSparse", &"#".repeat(9000)))
        }),
        row(
            "D06-descriptor-differs",
            "a sparse file whose descriptor names another",
            Class::Flag("names files"),
            || hosted_with(vmdk::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0")),
        )
        .agrees(),
    ]
}

fn tables() -> Vec<Row> {
    let lies = |id, trick, field, value| row(id, trick, CORRUPT, set(field, value)).at(Stage::Mapping);
    vec![
        lies("D07-directory-past-the-end", "a grain directory past the end of the file", DIRECTORY, 1 << 40),
        lies("D07-directory-at-0", "a grain directory over the header", DIRECTORY, 0),
        row(
            "D07-directory-at-2-55",
            "a grain directory whose offset wraps round",
            CORRUPT,
            set(DIRECTORY, 1 << 55),
        ),
        row("D07-redundant-at-2-55", "a second grain directory whose offset wraps round", CORRUPT, || {
            hosted().set(FLAGS, 3).set(REDUNDANT_DIRECTORY, 1 << 55)
        }),
        lies("D08-table-past-the-end", "a grain table past the end of the file", FIRST_TABLE, 1 << 30),
        lies("D08-table-is-directory", "the grain directory as a grain table", FIRST_TABLE, 21),
        row(
            "D08-table-is-header",
            "a grain table over the descriptor",
            Class::Flag("overlapping tables"),
            set(FIRST_TABLE, 1),
        ),
        row("D08-tables-twice", "one grain table for many parts of the disk", CORRUPT, || {
            let sectors = 65536 * 128;
            hosted().set(CAPACITY, sectors).put(21 * 512, 22_u32.to_le_bytes().repeat(128))
        })
        .at(Stage::Mapping),
        row(
            "D09-grain-past-the-end",
            "a grain past the end of the file",
            CORRUPT,
            set(FIRST_GRAIN, 0xffff_fff0),
        )
        .at(Stage::Consistency),
        row("D09-grain-is-header", "the descriptor as a grain", CORRUPT, set(FIRST_GRAIN, 1))
            .at(Stage::Consistency),
        row("D09-grain-twice", "two grains of the disk in one of the file", CORRUPT, || {
            hosted().set(le(22 * 512 + 4, 4), 128)
        })
        .at(Stage::Consistency),
        row(
            "D09-grain-1-unflagged",
            "the entry for zeros without its flag",
            Class::Flag("entry for zeros"),
            || hosted().set(FIRST_GRAIN, 1),
        ),
        row("D09-grain-1", "the entry for zeros", OK, || hosted().set(FLAGS, 5).set(FIRST_GRAIN, 1)).agrees(),
    ]
}

fn streams() -> Vec<Row> {
    /// Where the footer's parts are, from the end of the file.
    fn footer(from_end: u64, width: usize, value: u64) -> SparseFile {
        let stream = stream_with_footer();
        let end = stream.length();
        stream.set(le(end - from_end, width), value)
    }
    vec![
        row("D10-stream", "a sound stream", OK, || stream_of(65536)).agrees(),
        row("D10-stream-with-footer", "a sound stream with a footer", OK, stream_with_footer).agrees(),
        row("D10-footer-missing", "a stream whose footer was cut off", INVALID, || {
            stream_of(65536).set(DIRECTORY, u64::MAX)
        }),
        row("D10-footer-again", "a footer that says that the directory is in the footer", CORRUPT, || {
            footer(1024 - 56, 8, u64::MAX)
        }),
        row(
            "D10-footer-without-capacity",
            "a footer without capacity",
            Class::Flag("footer differs"),
            || footer(1024 - 12, 8, 0),
        ),
        row(
            "D10-footer-differs",
            "a footer of another disk than the header",
            Class::Flag("footer differs"),
            || footer(1024 - 12, 8, 65536 / 2),
        )
        .agrees(),
        row("D10-footer-marker-size", "a footer whose marker has a length", INVALID, || {
            footer(1536 - 8, 4, 1)
        }),
        row("D10-footer-marker-type", "a footer whose marker is another's", INVALID, || {
            footer(1536 - 12, 4, 1)
        }),
        row("D10-end-marker", "a stream that goes on behind its end", INVALID, || footer(512, 8, 1)),
        row("D11-marker-too-long", "a grain that is longer than the file", CORRUPT, || {
            stream_of(65536).set(le(128 * 512 + 8, 4), u64::from(u32::MAX))
        })
        .at(Stage::Data),
        row("D11-marker-empty", "a grain of no length", CORRUPT, || {
            stream_of(65536).set(le(128 * 512 + 8, 4), 0)
        })
        .at(Stage::Data),
        row(
            "D11-marker-elsewhere",
            "a grain that says that it belongs elsewhere",
            Class::Flag("marker differs"),
            || stream_of(65536).set(le(128 * 512, 8), 77),
        )
        .agrees(),
        row("D12-grain-short", "a grain of less than a grain", CORRUPT, || stream_of(65535)).at(Stage::Data),
        row("D12-grain-bomb", "a grain of 16 MiB in 64 KiB", CORRUPT, || stream_of(16 << 20)).at(Stage::Data),
        row("D12-grain-raw", "a grain that is not compressed", CORRUPT, || {
            stream_of(65536).put(128 * 512 + 12, [7; 512])
        })
        .at(Stage::Data),
        row(
            "D12-compression-unknown",
            "compression of an unknown kind",
            Class::Flag("unknown compression"),
            || hosted().set(le(77, 2), 2),
        ),
    ]
}

fn servers() -> Vec<Row> {
    /// A descriptor of one `SESPARSE` extent, which is beside it with a number changed.
    fn se(index: u64, value: u64) -> Files {
        let extent = SparseFile::from(se_sparse(40_000, &[(0, 0)])).set(le(8 * index, 8), value);
        let text = vmdk::descriptor("seSparse", "RW 40000 SESPARSE \"extent\"");
        Files::new(text.into()).file("extent", extent)
    }
    let named = |id, trick, index, value, class| {
        row(id, trick, super::DENIED, move || se(index, value)).with_references(class)
    };
    vec![
        row("D13-cowd", "a sound file of an old server", OK, || SparseFile::from(cowd(5000, 128, &[0])))
            .agrees(),
        row("D13-cowd-directory-2-32", "a directory of 2^32 - 1 entries", LIMIT, || {
            SparseFile::from(cowd(5000, 128, &[0])).set(le(24, 4), u64::from(u32::MAX))
        }),
        row("D13-cowd-grain-0", "grains of no length", INVALID, || {
            SparseFile::from(cowd(5000, 128, &[0])).set(le(16, 4), 0)
        }),
        row("D13-cowd-grain-2-20", "grains whose tables wrap round", INVALID, || {
            SparseFile::from(cowd(5000, 128, &[0])).set(le(16, 4), 1 << 20)
        }),
        row("D13-cowd-directory-short", "a directory that ends before the disk does", CORRUPT, || {
            SparseFile::from(cowd(50_000, 128, &[0])).set(le(24, 4), 1)
        })
        .at(Stage::Mapping),
        named("D14-sesparse", "a sound file of a new server", 0, 0xcafe_babe, OK),
        named("D14-sesparse-magic", "one with another signature", 0, 0xcafe_babf, INVALID),
        named("D14-sesparse-version", "one of another version", 1, 0x2_0000_0002, UNSUPPORTED),
        named("D14-sesparse-grain", "one with grains of 7 sectors", 3, 7, UNSUPPORTED),
        named("D14-sesparse-table", "one with tables of 63 sectors", 4, 63, UNSUPPORTED),
        named("D14-sesparse-flags", "one with unknown flags", 5, 1, UNSUPPORTED),
        named("D14-sesparse-volatile", "one whose second header is past the end", 10, 1 << 40, INVALID),
        named("D14-sesparse-directory", "one whose directory is past the end", 16, 1 << 40, CORRUPT)
            .at(Stage::Contents),
        named("D14-sesparse-journal", "one whose journal is to be replayed", 67, 1, UNSUPPORTED),
    ]
}
