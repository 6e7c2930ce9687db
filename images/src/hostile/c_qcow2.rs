//! Section C, first part: headers of qcow2 images, their extensions, and what the headers point to.

use super::{CORRUPT, Class, INVALID, LIMIT, LOCKED, OK, Row, Stage, UNSUPPORTED, row};
use crate::build::qcow2::*;
use crate::{Field, SparseFile, be};

/// The image with a field changed.
fn set(field: Field, value: u64) -> impl Fn() -> SparseFile + Send + Sync {
    move || image().set(field, value)
}

pub(super) fn rows() -> Vec<Row> {
    [geometry(), tables(), features(), extensions(), bitmaps(), snapshots()].into_iter().flatten().collect()
}

fn geometry() -> Vec<Row> {
    vec![
        row("C01-cluster-bits-8", "clusters of 256 bytes", UNSUPPORTED, set(CLUSTER_BITS, 8)),
        row("C01-cluster-bits-9", "clusters of 512 bytes, the least", OK, || sized(9, 1 << 20)).agrees(),
        row("C01-cluster-bits-21", "clusters of 2 MiB, the most", OK, || sized(21, 8 << 20)).agrees(),
        row("C01-cluster-bits-22", "clusters of 4 MiB", UNSUPPORTED, set(CLUSTER_BITS, 22)),
        row("C01-cluster-bits-63", "clusters of 2^63 bytes", UNSUPPORTED, set(CLUSTER_BITS, 63)),
        row(
            "C01-cluster-bits-64",
            "clusters by a shift that is too wide",
            UNSUPPORTED,
            set(CLUSTER_BITS, 64),
        ),
        row("C02-header-length-0", "a header of no length", INVALID, set(HEADER_LENGTH, 0)),
        row("C02-header-length-103", "a header that is one byte too short", INVALID, set(HEADER_LENGTH, 103)),
        row(
            "C02-header-length-105",
            "a header that ends within the compression type's padding",
            Class::Flag("odd header length"),
            set(HEADER_LENGTH, 105),
        ),
        row("C02-header-length-cluster", "a header that is a cluster long", OK, set(HEADER_LENGTH, CLUSTER))
            .agrees(),
        row(
            "C02-header-length-more",
            "a header that is longer than a cluster",
            INVALID,
            set(HEADER_LENGTH, CLUSTER + 8),
        ),
        row("C02-header-length-2-32", "a header of 4 GiB", INVALID, set(HEADER_LENGTH, u64::from(u32::MAX))),
        row("C03-refcount-order-7", "reference counts of 128 bits", INVALID, set(REFCOUNT_ORDER, 7)),
        row(
            "C03-refcount-order-64",
            "reference counts by a shift that is too wide",
            INVALID,
            set(REFCOUNT_ORDER, 64),
        ),
        row("C04-size-0", "a disk without a byte", OK, set(SIZE, 0)).agrees(),
        row(
            "C04-size-511",
            "a disk of less than a sector",
            Class::Flag("size is no multiple of 512"),
            set(SIZE, 511),
        )
        .agrees(),
        row("C04-size-2-63", "a disk of 2^63 bytes", LIMIT, set(SIZE, 1 << 63)),
        row(
            "C04-size-2-64",
            "a disk of 2^64 - 1 bytes, which wraps round when it is rounded up",
            LIMIT,
            set(SIZE, u64::MAX),
        ),
        row(
            "C04-size-over-l1",
            "a disk that is longer than its L1 table reaches",
            INVALID,
            set(SIZE, 1 << 40),
        ),
        row("C05-crypt-method-1", "encryption that is long deprecated", LOCKED, set(CRYPT_METHOD, 1))
            .at(Stage::Contents),
        row("C05-crypt-method-2", "encryption with LUKS without its header", INVALID, set(CRYPT_METHOD, 2)),
        row("C05-crypt-method-3", "encryption of an unknown kind", UNSUPPORTED, set(CRYPT_METHOD, 3)),
    ]
}

fn tables() -> Vec<Row> {
    vec![
        row("C06-l1-size-0", "an L1 table without entries", INVALID, set(L1_SIZE, 0)),
        row("C06-l1-size-too-small", "an L1 table with an entry less than the disk takes", INVALID, || {
            sized(16, 1 << 30).set(L1_SIZE, 1)
        }),
        row("C06-l1-size-too-large", "an L1 table of 32 MiB and 8 bytes", LIMIT, set(L1_SIZE, (1 << 22) + 1)),
        row("C06-l1-size-2-32", "an L1 table of 32 GiB", LIMIT, set(L1_SIZE, u64::from(u32::MAX))),
        row("C07-l1-unaligned", "an L1 table amid a cluster", INVALID, set(L1_OFFSET, L1 + 8)),
        row("C07-l1-at-0", "an L1 table over the header", CORRUPT, set(L1_OFFSET, 0)).at(Stage::Mapping),
        row("C07-l1-past-the-end", "an L1 table past the end of the file", CORRUPT, set(L1_OFFSET, 1 << 40))
            .at(Stage::Mapping),
        row("C07-l1-at-2-63", "an L1 table past the end of any file", INVALID, set(L1_OFFSET, 1 << 63)),
        row(
            "C07-l1-at-the-last-offset",
            "an L1 table at the last offset there is",
            CORRUPT,
            set(L1_OFFSET, (1 << 63) - CLUSTER),
        )
        .at(Stage::Mapping),
        row(
            "C07-l1-over-refcounts",
            "an L1 table over the refcount table",
            CORRUPT,
            set(L1_OFFSET, REFTABLE),
        )
        .at(Stage::Mapping),
        row(
            "C08-refcount-table-0-clusters",
            "a refcount table without a cluster",
            INVALID,
            set(REFTABLE_CLUSTERS, 0),
        ),
        row(
            "C08-refcount-table-too-large",
            "a refcount table over 8 MiB",
            LIMIT,
            set(REFTABLE_CLUSTERS, 129),
        ),
        row("C08-refcount-table-at-0", "a refcount table over the header", CORRUPT, set(REFTABLE_OFFSET, 0))
            .at(Stage::Mapping),
        row(
            "C08-refcount-table-past-the-end",
            "a refcount table past the end of the file",
            CORRUPT,
            set(REFTABLE_OFFSET, 1 << 40),
        )
        .at(Stage::Mapping),
        row(
            "C08-refcount-table-unaligned",
            "a refcount table amid a cluster",
            INVALID,
            set(REFTABLE_OFFSET, REFTABLE + 512),
        ),
        row(
            "C08-refcount-block-past-the-end",
            "a refcount block past the end of the file",
            CORRUPT,
            set(be(REFTABLE, 8), 1 << 40),
        )
        .at(Stage::Consistency),
        row("C08-refcount-block-twice", "one refcount block for two parts of the file", CORRUPT, || {
            image().set(be(REFTABLE + 8, 8), REFBLOCK)
        })
        .at(Stage::Consistency),
        row("C09-cut-in-header", "a file that ends in its header", INVALID, || image().with_length(100)),
        row("C09-cut-in-tables", "a file that ends in its L2 table", CORRUPT, || {
            // The other tables first, so that they are there.
            let image = sized(16, 1 << 20).set(L1_OFFSET, DATA).set(be(DATA, 8), L2 | COPIED);
            image.with_length(L2 + 4096)
        })
        .at(Stage::Mapping),
    ]
}

fn features() -> Vec<Row> {
    vec![
        row(
            "C10-incompatible-5",
            "the first unknown incompatible feature",
            UNSUPPORTED,
            set(INCOMPATIBLE, 1 << 5),
        ),
        row(
            "C10-incompatible-61",
            "an unknown incompatible feature",
            UNSUPPORTED,
            set(INCOMPATIBLE, 1 << 61),
        ),
        row(
            "C10-incompatible-all",
            "all incompatible features",
            UNSUPPORTED,
            set(INCOMPATIBLE, u64::MAX ^ ZSTD),
        ),
        row("C10-incompatible-named", "an unknown feature whose name clears the screen", UNSUPPORTED, || {
            let mut names = vec![0; 48];
            names[..12].copy_from_slice(b"\0\x3d\x1b[2J\nfake\0");
            with_extension(image(), FEATURE_NAMES, &names).set(INCOMPATIBLE, 1 << 61)
        }),
        row(
            "C11-compatible-unknown",
            "all compatible features",
            Class::Flag("unknown features"),
            set(COMPATIBLE, u64::MAX),
        )
        .agrees(),
        row(
            "C11-autoclear-unknown",
            "an unknown autoclear feature",
            Class::Flag("unknown features"),
            set(AUTOCLEAR, 1 << 63),
        )
        .agrees(),
        row("C12-dirty", "reference counts that may be stale", Class::Flag("dirty"), set(INCOMPATIBLE, 1))
            .agrees(),
        row(
            "C12-corrupt",
            "an image that was marked as corrupt",
            Class::Flag("marked corrupt"),
            set(INCOMPATIBLE, 2),
        )
        .agrees(),
        row(
            "C12-dirty-and-corrupt",
            "an image that was marked as both dirty and corrupt",
            Class::Flag("marked corrupt"),
            set(INCOMPATIBLE, 3),
        ),
        row("C13-compression-type-2", "an unknown compression type", UNSUPPORTED, || {
            image().set(INCOMPATIBLE, ZSTD).set(COMPRESSION, 2)
        }),
        row("C13-compression-type-unflagged", "zstd without its feature", INVALID, set(COMPRESSION, 1)),
        row("C13-compression-flag-alone", "zstd's feature without it", INVALID, set(INCOMPATIBLE, ZSTD)),
        row("C14-extended-l2-small", "subclusters of 256 bytes", UNSUPPORTED, || {
            sized(13, 1 << 20).set(INCOMPATIBLE, EXTENDED_L2)
        }),
        row(
            "C14-extended-l2-v2",
            "subclusters in version 2, where there is no such bit",
            Class::Flag("bits of version 3"),
            || version_2().set(INCOMPATIBLE, EXTENDED_L2),
        )
        .agrees(),
    ]
}

fn extensions() -> Vec<Row> {
    let extension =
        |kind, length, data: &'static [u8]| move || with_extensions(image(), &[(kind, length, data)]);
    vec![
        row(
            "C15-extension-endless",
            "an extension of 2^32 - 1 bytes",
            INVALID,
            extension(0x1234_5678, u64::from(u32::MAX), b""),
        ),
        row(
            "C15-extension-to-the-end",
            "an unknown extension that takes all the cluster",
            OK,
            extension(0x1234_5678, CLUSTER - 120, b""),
        )
        .agrees(),
        row(
            "C15-extension-past-the-end",
            "an extension that takes a byte more",
            INVALID,
            extension(0x1234_5678, CLUSTER - 119, b""),
        ),
        row("C15-extensions-8000", "8000 empty extensions", OK, || {
            with_extensions(image(), &vec![(0x1234_5678, 0, &[][..]); 8000])
        })
        .agrees(),
        row("C15-extension-twice", "a bitmaps extension behind another one", INVALID, || {
            with_extensions(image().set(AUTOCLEAR, 1), &[(BITMAPS, 24, &[0; 24]), (BITMAPS, 24, &[1; 24])])
        }),
        row(
            "C16-feature-names-odd",
            "a table of feature names that ends in one",
            OK,
            extension(FEATURE_NAMES, 47, &[0; 48]),
        )
        .agrees(),
        row(
            "C16-feature-names-empty",
            "a table of feature names without a name",
            OK,
            extension(FEATURE_NAMES, 0, b""),
        )
        .agrees(),
        row(
            "C17-luks-pointer-unencrypted",
            "a LUKS header in an image that is not encrypted",
            INVALID,
            extension(CRYPTO, 16, &[0; 16]),
        ),
        row("C17-luks-pointer-past-the-end", "a LUKS header past the end of the file", LOCKED, || {
            let pointer = SparseFile::new().set(be(0, 8), 1 << 40).set(be(8, 8), 4096).bytes(0, 16);
            with_extension(image().set(CRYPT_METHOD, 2), CRYPTO, &pointer)
        })
        .at(Stage::Contents)
        .described(INVALID),
        row("C17-luks-pointer-unaligned", "a LUKS header amid a cluster", INVALID, || {
            let pointer = SparseFile::new().set(be(0, 8), FREE + 1).set(be(8, 8), 4096).bytes(0, 16);
            with_extension(image().set(CRYPT_METHOD, 2), CRYPTO, &pointer)
        }),
        row("C17-luks-pointer-short", "a LUKS header's pointer of 8 bytes", INVALID, || {
            with_extension(image().set(CRYPT_METHOD, 2), CRYPTO, &[0; 8])
        }),
    ]
}

fn bitmaps() -> Vec<Row> {
    /// The disk with these entries in its bitmap directory.
    fn with(count: u64, entries: &[u8]) -> SparseFile {
        with_bitmaps(count, entries.len() as u64, FREE).put(FREE, entries).with_length(FREE + 3 * CLUSTER)
    }
    vec![
        row("C18-bitmaps-none", "a bitmaps extension without bitmaps", INVALID, || with_bitmaps(0, 0, FREE)),
        row("C18-bitmaps-65536", "more bitmaps than there may be", INVALID, || {
            with_bitmaps(65536, 65536, FREE)
        }),
        row(
            "C18-directory-64m",
            "a bitmap directory of 64 MiB",
            Class::Refuse(&[super::Kind::InvalidFormat]),
            || with_bitmaps(65535, 64 << 20, FREE).with_length(1 << 30),
        ),
        row("C18-directory-63m", "the largest bitmap directory, all holes", LIMIT, || {
            with_bitmaps(65535, 65535 * 1024, FREE).with_length(1 << 30)
        }),
        row("C18-directory-past-the-end", "a bitmap directory past the end of the file", CORRUPT, || {
            with_bitmaps(1, 32, 1 << 40)
        }),
        row("C18-directory-unaligned", "a bitmap directory amid a cluster", INVALID, || {
            with_bitmaps(1, 32, FREE + 8)
        }),
        row("C18-directory-cut", "a bitmap directory that ends in an entry", INVALID, || {
            with(1, &bitmap(b"a", 16)[..24])
        }),
        row("C18-directory-short", "fewer bitmaps than there should be", INVALID, || {
            with(2, &bitmap(b"a", 16))
        }),
        row("C19-granularity-2-32", "a bitmap whose bits stand for 4 GiB each", INVALID, || {
            with(1, &bitmap(b"a", 32))
        }),
        row("C19-granularity-2-8", "a bitmap whose bits stand for 256 bytes each", INVALID, || {
            with(1, &bitmap(b"a", 8))
        }),
        row("C19-name-no-text", "a bitmap whose name is not UTF-8", Class::Flag("name is no text"), || {
            with(1, &bitmap(b"\xff\x1b[2J\n", 16))
        }),
        row("C19-name-twice", "two bitmaps of one name", INVALID, || {
            with(2, &[bitmap(b"a", 16), bitmap(b"a", 16)].concat())
        }),
        row(
            "C19-bitmaps-stale",
            "bitmaps that the data went on without",
            Class::Flag("stale bitmaps"),
            || with(1, &bitmap(b"a", 16)).set(AUTOCLEAR, 0),
        )
        .agrees(),
    ]
}

fn snapshots() -> Vec<Row> {
    /// The disk with this table of snapshots.
    fn with(count: u64, table: &SparseFile) -> SparseFile {
        let bytes = table.bytes(0, table.length() as usize);
        image().set(SNAPSHOTS, count).set(SNAPSHOTS_OFFSET, FREE).put(FREE, bytes).with_length(FREE + CLUSTER)
    }
    vec![
        row("C20-snapshots-65537", "more snapshots than there may be", LIMIT, set(SNAPSHOTS, 65537)),
        row("C20-snapshots-past-the-end", "a snapshot table past the end of the file", CORRUPT, || {
            image().set(SNAPSHOTS, 1).set(SNAPSHOTS_OFFSET, 1 << 40)
        }),
        row("C20-snapshots-unaligned", "a snapshot table amid a cluster", INVALID, || {
            image().set(SNAPSHOTS, 1).set(SNAPSHOTS_OFFSET, FREE + 512)
        }),
        row(
            "C20-snapshots-65536-in-a-hole",
            "65536 snapshots of nothing, in a hole",
            Class::Flag("snapshots without a name"),
            || image().set(SNAPSHOTS, 65536).set(SNAPSHOTS_OFFSET, FREE).with_length(1 << 30),
        )
        .agrees(),
        row("C21-snapshot-extra-1025", "a snapshot with 1025 bytes of extra data", LIMIT, || {
            with(1, &snapshot(L1, 1, 1025))
        }),
        row("C21-snapshot-extra-4g", "a snapshot with 4 GiB of extra data", LIMIT, || {
            with(1, &snapshot(L1, 1, 0).set(be(36, 4), u64::from(u32::MAX)))
        }),
        row("C21-snapshot-l1-shared", "a snapshot with the active L1 table", CORRUPT, || {
            with(1, &snapshot(L1, 1, 0))
        })
        .at(Stage::Consistency),
        row("C21-snapshot-l1-huge", "a snapshot with an L1 table of 32 GiB", CORRUPT, || {
            with(1, &snapshot(L1, u64::from(u32::MAX), 0))
        })
        .at(Stage::Consistency),
        row(
            "C21-snapshot-l1-past-the-end",
            "a snapshot with an L1 table past the end of the file",
            CORRUPT,
            || with(1, &snapshot(1 << 40, 1, 0)),
        )
        .at(Stage::Consistency),
    ]
}
