//! Section G, Apple disk images: known by their name, which is why each row says what it is.

use super::{CORRUPT, Class, INVALID, LIMIT, OK, Row, Stage, row};
use crate::build::dmg::*;
use crate::{SparseFile, be};

/// An image of these chunks on a disk of [`SECTORS`].
fn of(chunks: &[Chunk]) -> SparseFile {
    with_resources(vec![5; 8192], &[block(0, 0, chunks)], SECTORS).into()
}

/// The sound image with a number of 8 bytes changed.
fn set(at: usize, value: u64) -> impl Fn() -> SparseFile + Send + Sync {
    move || SparseFile::from(sample()).set(be(at as u64, 8), value)
}

pub(super) fn rows() -> Vec<Row> {
    /// The rest of the disk.
    const REST: Chunk = (ZERO, 8, 24, 0, 0);
    let chunks = |id, trick, class, chunks: &'static [Chunk]| row(id, trick, class, move || of(chunks));
    let rows = vec![
        row("G08-dmg", "DMG: a sound image", OK, || SparseFile::from(sample())).agrees(),
        row("G08-dmg-without-trailer", "DMG: an image whose trailer was cut off", INVALID, || {
            SparseFile::from(sample()).with_length(TRAILER as u64)
        }),
        row(
            "G08-dmg-trailer-twice",
            "DMG: two trailers, the second of another disk",
            Class::Flag("two trailers"),
            || {
                let image = sample();
                let trailer = image[TRAILER..].to_vec();
                SparseFile::from(image).put(TRAILER as u64 + 512, trailer)
            },
        ),
        row(
            "G08-dmg-sectors-2-63",
            "DMG: a disk of a negative number of sectors",
            INVALID,
            set(TRAILER + 0x1ec, 1 << 63),
        ),
        row("G08-dmg-sectors-2-55", "DMG: a disk of 2^64 bytes", LIMIT, set(TRAILER + 0x1ec, 1 << 55)),
        row("G08-dmg-list-2-32", "DMG: a property list of 4 GiB", INVALID, || {
            let image = SparseFile::from(with_list(vec![], &list(&[]), SECTORS));
            let at = image.length() - 512 + 0xe0;
            image.set(be(at, 8), 1 << 32)
        }),
        row("G08-dmg-list-17m", "DMG: a property list of 17 MiB", LIMIT, || {
            SparseFile::from(with_list(vec![], &" ".repeat(17 << 20), SECTORS))
        }),
        row("G08-dmg-list-endless", "DMG: a property list that ends in an element", INVALID, || {
            SparseFile::from(with_list(
                vec![],
                "<plist><dict><key>blkx</key><array><dict><key>Data</key><data>bWlza",
                SECTORS,
            ))
        }),
        row("G08-dmg-list-empty", "DMG: a property list without chunks", INVALID, || {
            SparseFile::from(with_list(vec![], &list(&[]), SECTORS))
        }),
        row(
            "G08-dmg-resources-past-the-end",
            "DMG: a resource fork past the trailer",
            INVALID,
            set(TRAILER + 0x28, 1 << 40),
        ),
        row(
            "G08-dmg-data-fork-past-the-end",
            "DMG: a data fork behind the trailer",
            INVALID,
            set(TRAILER + 0x18, 1 << 40),
        ),
        chunks(
            "G08-dmg-chunk-sectors",
            "DMG: a chunk of more than 64 MiB",
            LIMIT,
            &[(RAW, 0, (64 << 11) + 1, 0, 64 << 20), REST],
        ),
        chunks(
            "G08-dmg-chunk-length",
            "DMG: a stream of more than 64 MiB",
            LIMIT,
            &[(ZLIB, 0, 8, 0, (64 << 20) + 1), REST],
        ),
        chunks(
            "G08-dmg-chunk-length-2-40",
            "DMG: a stream of 1 TiB",
            LIMIT,
            &[(ZLIB, 0, 8, 0, 1 << 40), REST],
        ),
        chunks(
            "G08-dmg-chunk-inconsistent",
            "DMG: a stored chunk that is shorter than its sectors",
            CORRUPT,
            &[(RAW, 0, 8, 0, 512), REST],
        ),
        chunks(
            "G08-dmg-chunks-overlap",
            "DMG: chunks over one another",
            CORRUPT,
            &[(ZERO, 0, 9, 0, 0), REST],
        )
        .at(Stage::Data),
        chunks("G08-dmg-chunks-gap", "DMG: sectors in no chunk", CORRUPT, &[(ZERO, 0, 7, 0, 0), REST])
            .at(Stage::Data),
        chunks(
            "G08-dmg-chunk-past-the-end",
            "DMG: a chunk past the end of the file",
            CORRUPT,
            &[(RAW, 0, 8, 1 << 40, 4096), REST],
        )
        .at(Stage::Data),
        chunks("G08-dmg-stream", "DMG: a stream that is no stream", CORRUPT, &[(ZLIB, 0, 8, 0, 512), REST])
            .at(Stage::Data),
        row("G08-dmg-chunks-2-18", "DMG: 2^18 chunks of a sector each", Class::Flag("large"), || {
            let chunks: Vec<Chunk> =
                (0..1 << 18).map(|sector| (ZERO, (1 << 18) - 1 - sector, 1, 0, 0)).collect();
            SparseFile::from(with_resources(vec![], &[block(0, 0, &chunks)], 1 << 18))
        }),
    ];
    rows.into_iter().map(|row| row.said_to_be("dmg")).collect()
}
