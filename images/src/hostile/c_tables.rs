//! Section C, second part: the mapping of qcow2 images, and compressed clusters.

use super::{CORRUPT, Class, OK, Row, Stage, row};
use crate::build::qcow2::*;
use crate::build::stream;
use crate::{SparseFile, be};

/// A cluster descriptor that no writer makes, but which means what it means.
const ODD: Class = Class::Flag("reserved bits");

pub(super) fn rows() -> Vec<Row> {
    [l1(), l2(), subclusters(), compressed_clusters(), zstd_clusters()].into_iter().flatten().collect()
}

fn l1() -> Vec<Row> {
    let entry = |value| move || image().set(be(L1, 8), value);
    let lies = |id, trick, value| row(id, trick, CORRUPT, entry(value)).at(Stage::Mapping);
    vec![
        lies("C22-l2-unaligned", "an L2 table amid a cluster", (L2 + 512) | COPIED),
        lies("C22-l2-past-the-end", "an L2 table past the end of the file", 1 << 40 | COPIED),
        lies("C22-l2-at-the-last-offset", "an L2 table at the last offset there is", 0x00ff_ffff_ffff_0000),
        lies("C22-l2-is-l1", "the L1 table as an L2 table", L1 | COPIED),
        lies("C22-l2-is-refcount-table", "the refcount table as an L2 table", REFTABLE | COPIED),
        row("C22-l2-is-refcount-block", "a refcount block as an L2 table", CORRUPT, entry(REFBLOCK | COPIED))
            .at(Stage::Consistency),
        row(
            "C22-l2-is-header",
            "an L2 table at offset 0: not allocated, but marked as used once",
            ODD,
            entry(COPIED),
        )
        .agrees(),
        row("C22-l2-is-data", "data of the disk as an L2 table", CORRUPT, || {
            image().set(be(L1, 8), DATA | COPIED).put(DATA, [7; 64])
        })
        .at(Stage::Mapping),
        row("C22-l2-twice", "one L2 table for two parts of the disk", CORRUPT, || {
            sized(16, 1 << 30).set(be(L1 + 8, 8), L2 | COPIED)
        })
        .at(Stage::Consistency),
        row(
            "C22-l1-reserved-bits",
            "an L1 entry with reserved bits",
            ODD,
            entry(L2 | COPIED | 0x1ff | 0x7f << 56),
        )
        .agrees(),
    ]
}

fn l2() -> Vec<Row> {
    let entry = |value| move || image().set(be(L2, 8), value);
    vec![
        row("C23-zero-in-v2", "a cluster of zeros in version 2", CORRUPT, || version_2().set(be(L2, 8), 1))
            .at(Stage::Mapping),
        row(
            "C23-reserved-low",
            "a cluster whose descriptor has bits 1 to 8 set",
            ODD,
            entry(DATA | COPIED | 0x1fe),
        )
        .agrees(),
        row(
            "C23-reserved-high",
            "a cluster whose descriptor has bits 56 to 61 set",
            ODD,
            entry(DATA | COPIED | 0x3f << 56),
        )
        .agrees(),
        row("C23-data-unaligned", "data amid a cluster", CORRUPT, entry((DATA + 512) | COPIED))
            .at(Stage::Mapping),
        row("C23-zeros-unaligned", "space for zeros amid a cluster", CORRUPT, entry((DATA + 512) | 1))
            .at(Stage::Mapping),
        row(
            "C23-data-is-header",
            "data at offset 0: not allocated, but marked as used once",
            ODD,
            entry(COPIED),
        )
        .agrees(),
        row("C23-data-is-l2", "the L2 table as data", CORRUPT, entry(L2 | COPIED)).at(Stage::Consistency),
        row("C23-data-past-the-end", "data past the end of the file", CORRUPT, entry(1 << 40 | COPIED))
            .at(Stage::Consistency),
        row(
            "C23-data-at-the-last-offset",
            "data at the last offset there is",
            CORRUPT,
            entry(0x00ff_ffff_ffff_0000 | COPIED),
        )
        .at(Stage::Consistency),
        row("C23-data-twice", "two clusters of the disk in one of the file", CORRUPT, || {
            image().set(be(L2 + 8, 8), DATA | COPIED)
        })
        .at(Stage::Consistency),
        row("C23-copied-wrong", "a cluster that is marked as shared and is not", CORRUPT, entry(DATA))
            .at(Stage::Consistency),
        row("C23-refcount-0", "a cluster in use that counts as free", CORRUPT, || {
            image().set(be(REFBLOCK + 6, 2), 0)
        })
        .at(Stage::Consistency),
        row("C23-leak", "a cluster that counts as used and is not", Class::Flag("leaked clusters"), || {
            image().set(be(REFBLOCK + 12, 2), 1).with_length(FREE + CLUSTER)
        })
        .agrees(),
        row(
            "C23-beyond-the-disk",
            "clusters behind the end of the disk",
            Class::Flag("data behind the disk"),
            || image().set(be(L2 + 8 * 16, 8), 1 << 40 | COPIED),
        )
        .agrees(),
    ]
}

fn subclusters() -> Vec<Row> {
    let entry = |descriptor, bitmap| move || extended().set(be(L2, 8), descriptor).set(be(L2 + 8, 8), bitmap);
    vec![
        row("C24-subclusters", "a sound image with subclusters", OK, extended).agrees(),
        row(
            "C24-subcluster-both",
            "a subcluster that is both data and zeros",
            CORRUPT,
            entry(DATA | COPIED, u64::MAX),
        )
        .at(Stage::Mapping),
        row("C24-subclusters-without-cluster", "subclusters with data in no cluster", CORRUPT, entry(0, 1))
            .at(Stage::Mapping),
        row(
            "C24-subclusters-zero-without-cluster",
            "subclusters of zeros in no cluster",
            OK,
            entry(0, u64::MAX << 32),
        )
        .agrees(),
        row(
            "C24-subclusters-alternate",
            "every other subcluster has data",
            OK,
            entry(DATA | COPIED, 0x5555_5555),
        )
        .agrees(),
        row(
            "C24-subcluster-zero-bit",
            "the bit for zeros of plain clusters",
            ODD,
            entry(DATA | COPIED | 1, 1),
        )
        .agrees(),
        row(
            "C24-subclusters-compressed",
            "a compressed cluster with a bitmap",
            CORRUPT,
            entry(compressed(FREE, 0), 1),
        )
        .at(Stage::Data),
    ]
}

/// The disk with its first cluster compressed like this, at [`FREE`].
fn with_stream(image: SparseFile, stream: &[u8]) -> SparseFile {
    let sectors = (stream.len() as u64).div_ceil(512).saturating_sub(1);
    image.set(be(L2, 8), compressed(FREE, sectors)).put(FREE, stream).with_length(FREE + CLUSTER)
}

fn compressed_clusters() -> Vec<Row> {
    let entry = |offset, sectors| move || image().set(be(L2, 8), compressed(offset, sectors));
    let broken = |id, trick, stream: fn() -> Vec<u8>| {
        row(id, trick, CORRUPT, move || with_stream(image(), &stream())).at(Stage::Data)
    };
    vec![
        row("C25-compressed", "a compressed cluster", OK, || {
            with_stream(image(), &stream::deflate(&[7; 65536]))
        })
        .agrees(),
        row("C25-past-the-end", "a compressed cluster past the end of the file", CORRUPT, entry(1 << 40, 0))
            .at(Stage::Data),
        row(
            "C25-across-the-end",
            "a compressed cluster of which the file has nothing but the first byte",
            CORRUPT,
            entry(FREE - 1, 255),
        )
        .at(Stage::Data),
        row("C25-longest", "a compressed cluster with the most sectors", CORRUPT, entry(DATA, 255))
            .at(Stage::Data),
        row("C25-is-header", "the header as a compressed cluster", CORRUPT, entry(0, 0)).at(Stage::Data),
        row("C25-all-bits", "a compressed cluster with all bits set", CORRUPT, || {
            image().set(be(L2, 8), u64::MAX)
        })
        .at(Stage::Data),
        broken("C26-stream-of-zeros", "a stream that is no stream", || vec![0; 512]),
        broken("C26-stream-short", "a stream of less than a cluster", || stream::deflate_zeros(65535)),
        broken("C26-stream-cut", "a stream that is cut off", || {
            let mut stream =
                stream::deflate(&(0..65536_u32).map(|n| ((n * n) >> 8) as u8).collect::<Vec<_>>());
            stream.truncate(stream.len() / 2);
            stream
        }),
        broken("C26-stream-with-header", "a stream with a zlib header, as in other formats", || {
            stream::zlib_zeros(65536)
        }),
        row(
            "C26-stream-long",
            "a stream of a byte more than a cluster",
            Class::Flag("trailing data"),
            || with_stream(image(), &stream::deflate_zeros(65537)),
        )
        .agrees(),
        row("C26-bomb", "a stream of 16 MiB in a cluster of 64 KiB", Class::Flag("trailing data"), || {
            with_stream(image(), &stream::deflate_zeros(16 << 20))
        })
        .agrees(),
        row("C26-shared", "every cluster is the same compressed one", Class::Flag("shared clusters"), || {
            let mut image = with_stream(sized(16, 512 << 20), &stream::deflate_zeros(65536));
            let entry = image.bytes(L2, 8).repeat(8192);
            image = image.put(L2, entry);
            image
        })
        .agrees(),
        row("C26-window", "a stream with matches from 32 KiB ago", OK, || {
            let noise: Vec<u8> =
                (0..32_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            with_stream(image(), &stream::deflate(&[&noise[..], &noise, &[0; 1536]].concat()))
        }),
    ]
}

fn zstd_clusters() -> Vec<Row> {
    let zstd = || image().set(INCOMPATIBLE, ZSTD).set(COMPRESSION, 1);
    let broken = |id, trick, stream: fn() -> Vec<u8>| {
        row(id, trick, CORRUPT, move || with_stream(zstd(), &stream())).at(Stage::Data)
    };
    vec![
        row("C27-zstd", "a cluster compressed with zstd", OK, move || {
            with_stream(zstd(), &stream::zstd(0x30, None, &[65536]))
        }),
        row("C27-zstd-frames", "a cluster in two frames", OK, move || {
            let frame = stream::zstd(0x30, None, &[32768]);
            with_stream(zstd(), &[&frame[..], &frame].concat())
        }),
        row("C27-zstd-skippable", "a frame to be skipped before the cluster", OK, move || {
            let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd";
            with_stream(zstd(), &[&skipped[..], &stream::zstd(0x30, None, &[65536])].concat())
        }),
        broken("C27-zstd-window", "a frame with a window of 1.75 TiB", || stream::zstd(0xff, None, &[65536])),
        broken("C27-zstd-dictionary", "a frame that takes a dictionary", || {
            stream::zstd(0x30, Some(7), &[65536])
        }),
        broken("C27-zstd-short", "a frame of less than a cluster", || stream::zstd(0x30, None, &[65535])),
        broken("C27-zstd-endless", "a frame whose blocks never end", || {
            let mut frame = stream::zstd(0x30, None, &[0; 100]);
            frame.truncate(frame.len() - 4);
            frame
        }),
        row(
            "C27-zstd-bomb",
            "a frame of 1 GiB in a cluster of 64 KiB",
            Class::Flag("trailing data"),
            move || with_stream(zstd(), &stream::zstd(0x38, None, &[1 << 17; 8192])),
        ),
    ]
}
