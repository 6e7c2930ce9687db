//! Section F: VHDX.

use super::{CORRUPT, Class, INVALID, LIMIT, OK, Row, Stage, UNSUPPORTED, row};
use crate::SparseFile;
use crate::build::vhdx::*;

/// Required by who made it, whoever that was.
const UNKNOWN: [u8; 16] = [0x77; 16];
/// Where the payload can be, as an entry has it.
const PLACE: u64 = PAYLOAD as u64;

pub(super) fn rows() -> Vec<Row> {
    [headers(), regions(), metadata(), blocks(), logs()].into_iter().flatten().collect()
}

/// The sound disk, its bytes changed.
fn changed(change: impl Fn(&mut Vec<u8>)) -> SparseFile {
    let mut bytes = Builder::default().build();
    change(&mut bytes);
    bytes.into()
}

/// The sound disk, bytes put over it, the checksums made right.
fn with<T: AsRef<[u8]> + Send + Sync>(at: usize, value: T) -> impl Fn() -> SparseFile + Send + Sync {
    move || {
        changed(|bytes| {
            put(bytes, at, value.as_ref());
            seal_all(bytes);
        })
    }
}

fn headers() -> Vec<Row> {
    vec![
        row("F00-sound", "a sound disk", OK, || SparseFile::from(Builder::default().build())).agrees(),
        row("F01-no-header", "both headers have wrong checksums", INVALID, || {
            changed(|bytes| HEADERS.iter().for_each(|at| put(bytes, at + 4, &[0; 4])))
        }),
        row("F01-one-header", "one header has a wrong checksum", OK, || {
            changed(|bytes| put(bytes, HEADERS[1] + 4, &[0; 4]))
        })
        .agrees(),
        row("F01-same-sequence", "both headers are as new and differ", INVALID, || {
            changed(|bytes| {
                put(bytes, HEADERS[0] + 8, &2_u64.to_le_bytes());
                put(bytes, HEADERS[0] + 20, &[1]);
                seal_all(bytes);
            })
        }),
        row("F01-version-2", "both headers of version 2", INVALID, || {
            changed(|bytes| {
                HEADERS.iter().for_each(|at| put(bytes, at + 66, &[2]));
                seal_all(bytes);
            })
        }),
        row("F01-log-version-1", "a log of an unknown version", UNSUPPORTED, || {
            changed(|bytes| {
                HEADERS.iter().for_each(|at| put(bytes, at + 64, &[1]));
                seal_all(bytes);
            })
        }),
        row("F01-cut", "a file that ends behind its signature", INVALID, || SparseFile::from("vhdxfile")),
    ]
}

fn regions() -> Vec<Row> {
    let entry = |number: usize, skip: usize| REGIONS + 16 + 32 * number + skip;
    let third = move |required: u8| {
        move || {
            changed(|bytes| {
                put(bytes, REGIONS + 8, &[3]);
                put(bytes, entry(2, 0), &UNKNOWN);
                put(bytes, entry(2, 16), &(8_u64 << 20).to_le_bytes());
                put(bytes, entry(2, 24), &(1_u32 << 20).to_le_bytes());
                put(bytes, entry(2, 28), &[required]);
                seal_all(bytes);
            })
        }
    };
    vec![
        row("F02-regions-2048", "2048 regions", LIMIT, with(REGIONS + 8, 2048_u32.to_le_bytes())),
        row("F02-regions-0", "a table without regions", INVALID, with(REGIONS + 8, [0; 4])),
        row("F02-regions-checksum", "a region table with a wrong checksum", INVALID, || {
            changed(|bytes| put(bytes, REGIONS + 4, &[0; 4]))
        }),
        row("F02-region-unknown-required", "an unknown region that is required", UNSUPPORTED, third(1)),
        row("F02-region-unknown", "an unknown region", Class::Flag("unknown region"), third(0)).agrees(),
        row(
            "F02-regions-overlap",
            "regions over one another",
            INVALID,
            with(entry(0, 16), (METADATA as u64).to_le_bytes()),
        ),
        row(
            "F02-region-over-log",
            "a region over the log",
            INVALID,
            with(entry(0, 16), (LOG as u64).to_le_bytes()),
        ),
        row("F02-region-over-headers", "a region over the headers", CORRUPT, with(entry(0, 16), [0; 8])),
        row(
            "F02-region-past-the-end",
            "a block allocation table past the end of the file",
            CORRUPT,
            with(entry(0, 16), (1_u64 << 40).to_le_bytes()),
        ),
        row("F02-region-at-2-64", "a region whose end wraps round", CORRUPT, with(entry(0, 16), [0xff; 8])),
    ]
}

fn metadata() -> Vec<Row> {
    let item = |number: usize, skip: usize| METADATA + 32 + 32 * number + skip;
    let made = |builder: fn() -> Builder| move || SparseFile::from(builder().build());
    vec![
        row("F03-metadata-items-2048", "2048 items of metadata", LIMIT, with(METADATA + 10, [0, 8])),
        row("F03-metadata-signature", "metadata without its signature", INVALID, with(METADATA, b"METADATA")),
        row("F03-item-unknown-required", "an unknown item that is required", UNSUPPORTED, move || {
            changed(|bytes| {
                put(bytes, METADATA + 10, &[6]);
                put(bytes, item(5, 0), &UNKNOWN);
                put(bytes, item(5, 24), &[4]);
            })
        }),
        row(
            "F03-item-missing",
            "metadata without the size of a physical sector",
            INVALID,
            with(METADATA + 10, [4]),
        ),
        row("F03-item-twice", "metadata with two lengths of the disk", INVALID, move || {
            changed(|bytes| {
                let one = bytes[item(1, 0)..item(2, 0)].to_vec();
                put(bytes, METADATA + 10, &[6]);
                put(bytes, item(5, 0), &one);
            })
        }),
        row("F03-item-outside", "an item outside of the metadata", CORRUPT, with(item(1, 16), [0xff; 4])),
        row("F04-block-size-0", "blocks of no length", INVALID, with(ITEMS, [0; 4])),
        row("F04-block-size-3m", "blocks of 3 MiB", INVALID, with(ITEMS, (3_u32 << 20).to_le_bytes())),
        row("F04-block-size-512m", "blocks of 512 MiB", INVALID, with(ITEMS, (512_u32 << 20).to_le_bytes())),
        row(
            "F05-sector-size-1",
            "sectors of one byte",
            INVALID,
            made(|| Builder { sector_size: 1, ..Builder::default() }),
        ),
        row(
            "F05-sector-size-0",
            "sectors of no length",
            INVALID,
            made(|| Builder { sector_size: 0, ..Builder::default() }),
        ),
        row(
            "F05-sector-size-4096",
            "sectors of 4096 bytes",
            OK,
            made(|| Builder { sector_size: 4096, ..Builder::default() }),
        ),
        row(
            "F06-size-64t",
            "a disk of 64 TiB and a sector",
            LIMIT,
            made(|| Builder { size: (64 << 40) + 512, ..Builder::default() }),
        ),
        row(
            "F06-size-2-64",
            "a disk of 2^64 - 1 bytes",
            LIMIT,
            made(|| Builder { size: u64::MAX, ..Builder::default() }),
        ),
        row(
            "F06-bat-too-small",
            "a disk whose table is longer than its region",
            CORRUPT,
            made(|| Builder { size: 1 << 40, ..Builder::default() }),
        ),
        row(
            "F06-size-511",
            "a disk of less than a sector",
            OK,
            made(|| Builder { size: 511, ..Builder::default() }),
        ),
    ]
}

fn blocks() -> Vec<Row> {
    let table = |id, trick, class, bat: &'static [(usize, u64)]| {
        row(id, trick, class, move || {
            SparseFile::from(Builder { bat: bat.to_vec(), ..Builder::default() }.build())
        })
    };
    let differencing = |bat: Vec<(usize, u64)>| {
        let parent = Some(locator(&[("relative_path", "parent.vhdx")]));
        SparseFile::from(Builder { parent, bat, ..Builder::default() }.build())
    };
    vec![
        table("F07-full", "a block that is there", OK, &[(0, PLACE | FULL)]).agrees(),
        table("F07-state-4", "a block of a state that there is not", CORRUPT, &[(0, PLACE | 4)])
            .at(Stage::Data),
        table(
            "F07-partial-without-parent",
            "a block that is there in part, but there is no parent",
            CORRUPT,
            &[(0, PLACE | PARTIAL)],
        )
        .at(Stage::Data),
        table("F07-block-past-the-end", "a block past the end of the file", CORRUPT, &[(0, 1 << 40 | FULL)]),
        table("F07-block-at-2-64", "a block whose end wraps round", CORRUPT, &[(0, !0xf_ffff | FULL)]),
        table(
            "F07-block-over-table",
            "a block over the block allocation table",
            CORRUPT,
            &[(0, BAT as u64 | FULL)],
        ),
        table("F07-block-over-headers", "a block over the headers", CORRUPT, &[(0, FULL)]).at(Stage::Data),
        table(
            "F07-blocks-twice",
            "two blocks of the disk in one of the file",
            CORRUPT,
            &[(0, PLACE | FULL), (1, PLACE | FULL)],
        )
        .at(Stage::Consistency),
        row("F07-blocks-all-the-same", "more blocks than the file has room for", CORRUPT, || {
            let bat = (0..64).map(|index| (index, PLACE | FULL)).collect();
            SparseFile::from(Builder { size: 64 << 20, bat, ..Builder::default() }.build())
        })
        .at(Stage::Data),
        row("F08-bitmap-at-0", "a sector bitmap at offset 0", super::DENIED, move || {
            differencing(vec![(0, PLACE | PARTIAL), (4096, FULL)])
        }),
        row(
            "F08-bitmap-missing",
            "a block that is there in part without a sector bitmap",
            super::DENIED,
            move || differencing(vec![(0, PLACE | PARTIAL)]),
        ),
    ]
}

fn logs() -> Vec<Row> {
    let length = 16 * MIB as u64;
    let page = || vec![0; 4096];
    /// Into a place that does not matter.
    const AT: u64 = 15 << 20;
    let entry = move |sequence, tail, at| {
        log_entry(sequence, tail, &[Change::Data { at, page: page() }], length, length)
    };
    let logged = |entries: Vec<(usize, Vec<u8>)>| {
        changed(move |bytes| entries.iter().for_each(|(at, entry)| put_log(bytes, *at, entry)))
    };
    let resealed = |mut entry: Vec<u8>, at: usize, value: &[u8]| {
        put(&mut entry, at, value);
        seal(&mut entry);
        entry
    };
    let dirty = Class::Flag("dirty log");
    vec![
        row("F10-log", "a log that is to be replayed", dirty, move || logged(vec![(0, entry(1, 0, AT))])),
        row("F10-log-empty", "a log that has a name and no entry", dirty, move || logged(vec![(0, page())])),
        row("F10-log-checksum", "a log whose entry has a wrong checksum", dirty, move || {
            let mut entry = entry(1, 0, AT);
            entry[5000] ^= 1;
            logged(vec![(0, entry)])
        }),
        row("F10-log-torn", "a log whose data is of another entry", CORRUPT, move || {
            logged(vec![(0, resealed(entry(1, 0, AT), 4096 + 4092, &[9]))])
        }),
        row("F10-log-gap", "a log with a gap in its numbers", dirty, move || {
            logged(vec![(0, entry(1, 0, AT)), (8192, entry(3, 0, AT))])
        }),
        row("F10-log-wraps", "a log that goes on at its start", dirty, move || {
            logged(vec![(MIB - 4096, entry(1, MIB - 4096, AT)), (4096, entry(2, MIB - 4096, AT))])
        }),
        row("F10-log-tail-outside", "a log whose tail is outside of it", dirty, move || {
            logged(vec![(0, entry(1, MIB, AT))])
        }),
        row("F10-log-descriptors-2-32", "a log entry of 2^32 - 1 descriptors", dirty, move || {
            logged(vec![(0, resealed(entry(1, 0, AT), 24, &[0xff; 4]))])
        }),
        row("F10-log-over-headers", "a log that writes over the headers", CORRUPT, move || {
            logged(vec![(0, entry(1, 0, HEADERS[0] as u64))])
        }),
        row("F10-log-over-regions", "a log that writes over the region table", INVALID, move || {
            logged(vec![(0, entry(1, 0, REGIONS as u64))])
        }),
        row(
            "F10-log-zero-past-the-end",
            "a log that writes zeros past the end of the file",
            dirty,
            move || {
                logged(vec![(
                    0,
                    log_entry(1, 0, &[Change::Zero { at: 1 << 40, length: 1 << 40 }], length, length),
                )])
            },
        ),
        row("F10-log-zero-at-2-64", "a log that writes zeros past the end of any file", CORRUPT, move || {
            logged(vec![(
                0,
                log_entry(1, 0, &[Change::Zero { at: 1 << 63, length: 1 << 63 }], length, length),
            )])
        }),
        row("F10-log-flushed", "a file that is shorter than its log says", CORRUPT, move || {
            logged(vec![(0, log_entry(1, 0, &[Change::Zero { at: AT, length: 4096 }], length + 1, length))])
        }),
        row("F10-log-past-the-end", "a log past the end of the file", CORRUPT, move || {
            changed(|bytes| {
                HEADERS.iter().for_each(|at| put(bytes, at + 72, &(1_u64 << 40).to_le_bytes()));
                put_log(bytes, 0, &entry(1, 0, AT));
            })
        }),
        row("F10-log-1g", "a log of 1 GiB in a hole", LIMIT, move || {
            changed(|bytes| {
                for at in HEADERS {
                    put(bytes, at + 68, &(1_u32 << 30).to_le_bytes());
                    put(bytes, at + 72, &(1_u64 << 30).to_le_bytes());
                }
                put_log(bytes, 0, &page());
            })
            .with_length(4 << 30)
        }),
        row("F10-log-unaligned", "a log of 4095 KiB", INVALID, move || {
            changed(|bytes| {
                HEADERS.iter().for_each(|at| put(bytes, at + 68, &(4095_u32 << 10).to_le_bytes()));
                put_log(bytes, 0, &entry(1, 0, AT));
            })
        }),
        row(
            "F10-log-of-decoys",
            "a log of entries each of which claims to be as long as all of it",
            LIMIT,
            move || {
                let decoy = resealed(page(), 0, b"loge");
                changed(|bytes| {
                    for at in (0..MIB).step_by(4096) {
                        let mut decoy = decoy.clone();
                        put(&mut decoy, 8, &(MIB as u32).to_le_bytes());
                        put(&mut decoy, 16, &[1]);
                        put(&mut decoy, 32, &LOG_GUID);
                        put_log(bytes, at, &decoy);
                    }
                })
            },
        ),
    ]
}
