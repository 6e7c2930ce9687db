//! Section G: the formats that few still use.

use super::{CORRUPT, Class, INVALID, LIMIT, LOCKED, OK, Row, Stage, UNSUPPORTED, row};
use crate::build::{bochs, cloop, luks, parallels, qcow, qed, vdi};
use crate::{Field, SparseFile, be, le};

const MAX: u64 = u32::MAX as u64;

/// A row for each way to change a sound image.
type Rows = Vec<Row>;

pub(super) fn rows() -> Vec<Row> {
    [vdi_rows(), parallels_rows(), qed_rows(), bochs_rows(), cloop_rows(), qcow_rows(), luks_rows()]
        .into_iter()
        .flatten()
        .collect()
}

fn vdi_rows() -> Rows {
    let set = |field: Field, value| move || vdi::image().set(field, value);
    let entry = |index: u64, value| move || vdi::image().set(le(vdi::MAP + 4 * index, 4), value);
    vec![
        row("G01-vdi", "a sound VDI", OK, vdi::image).agrees(),
        row("G01-vdi-version-0", "a VDI of version 0", UNSUPPORTED, set(vdi::VERSION, 1)),
        row(
            "G01-vdi-block-size-2m",
            "a VDI with blocks of 2 MiB",
            UNSUPPORTED,
            set(vdi::BLOCK_SIZE, 2 << 20),
        ),
        row("G01-vdi-block-size-0", "a VDI with blocks of no length", UNSUPPORTED, set(vdi::BLOCK_SIZE, 0)),
        row(
            "G01-vdi-sector-size-4096",
            "a VDI with sectors of 4096 bytes",
            UNSUPPORTED,
            set(vdi::SECTOR_SIZE, 4096),
        ),
        row("G01-vdi-blocks-2-29", "a VDI of 2^29 blocks", LIMIT, set(vdi::BLOCKS, 1 << 29)),
        row(
            "G01-vdi-blocks-too-few",
            "a VDI with too few blocks for the disk",
            UNSUPPORTED,
            set(vdi::BLOCKS, 3),
        ),
        row("G01-vdi-size-2-64", "a VDI of 2^64 - 1 bytes", LIMIT, set(vdi::SIZE, u64::MAX)),
        row(
            "G01-vdi-map-past-the-end",
            "a VDI whose block map is past the end of the file",
            CORRUPT,
            set(vdi::MAP_OFFSET, 1 << 30),
        ),
        row(
            "G01-vdi-map-unaligned",
            "a VDI whose block map is amid a sector",
            UNSUPPORTED,
            set(vdi::MAP_OFFSET, 511),
        ),
        row(
            "G01-vdi-data-2-32",
            "a VDI whose data begins 4 GiB past the end of the file",
            Class::Flag("data past the end"),
            set(vdi::DATA_OFFSET, MAX - 511),
        ),
        row(
            "G01-vdi-blocks-twice",
            "a VDI with two blocks of the disk in one of the file",
            CORRUPT,
            entry(1, 0),
        )
        .at(Stage::Consistency),
        row(
            "G01-vdi-block-past-the-end",
            "a VDI with a block past the end of the file",
            CORRUPT,
            entry(1, MAX - 2),
        )
        .at(Stage::Consistency),
        row("G01-vdi-discarded", "a VDI with a discarded block", OK, entry(0, MAX - 1)).agrees(),
        row("G01-vdi-parent", "a VDI with a parent", UNSUPPORTED, || vdi::image().put(vdi::PARENT_UUID, [1])),
        row("G01-vdi-link", "a VDI with a snapshot before it", UNSUPPORTED, || {
            vdi::image().put(vdi::LINK_UUID, [1])
        }),
        row("G01-vdi-type-9", "a VDI of an unknown type", Class::Flag("unknown type"), set(vdi::TYPE, 9)),
    ]
}

fn parallels_rows() -> Rows {
    let set = |field: Field, value| move || parallels::image().set(field, value);
    let entry = |index: u64, value| move || parallels::image().set(le(parallels::BAT + 4 * index, 4), value);
    vec![
        row("G02-parallels", "a sound Parallels image", OK, parallels::image).agrees(),
        row("G02-parallels-tracks-0", "Parallels: clusters of no length", INVALID, set(parallels::TRACKS, 0)),
        row("G02-parallels-tracks-2-32", "Parallels: clusters of 2 TiB", LIMIT, set(parallels::TRACKS, MAX)),
        row(
            "G02-parallels-catalog-2-31",
            "Parallels: a catalog of 2^31 entries",
            LIMIT,
            set(parallels::ENTRIES, 1 << 31),
        ),
        row(
            "G02-parallels-catalog-short",
            "Parallels: a catalog that the file has no room for",
            OK,
            set(parallels::ENTRIES, 1 << 28),
        ),
        row(
            "G02-parallels-data-0",
            "Parallels: data at offset 0",
            Class::Flag("no data offset"),
            set(parallels::DATA_OFFSET, 0),
        ),
        row(
            "G02-parallels-data-past-the-end",
            "Parallels: data past the end of the file",
            Class::Flag("data past the end"),
            set(parallels::DATA_OFFSET, 1 << 30),
        ),
        row(
            "G02-parallels-in-use",
            "Parallels: an image that was not closed",
            Class::Flag("dirty"),
            set(parallels::IN_USE, 0x746f_6e59),
        )
        .agrees(),
        row(
            "G02-parallels-size-2-55",
            "Parallels: a disk of 2^64 bytes",
            LIMIT,
            set(parallels::SECTORS, 1 << 55),
        ),
        row(
            "G02-parallels-version-3",
            "Parallels: an unknown version, so raw bytes",
            Class::Flag("may be Parallels"),
            set(parallels::VERSION, 3),
        )
        .agrees(),
        row(
            "G02-parallels-extension-2-64",
            "Parallels: an extension past the end of any file",
            INVALID,
            set(parallels::EXTENSION, u64::MAX),
        ),
        row(
            "G02-parallels-extension-none",
            "Parallels: an extension that is none",
            INVALID,
            set(parallels::EXTENSION, 2),
        ),
        row(
            "G02-parallels-cluster-past-the-end",
            "Parallels: a cluster past the end of the file",
            CORRUPT,
            entry(1, MAX),
        )
        .at(Stage::Consistency),
        row(
            "G02-parallels-clusters-twice",
            "Parallels: two clusters of the disk in one of the file",
            CORRUPT,
            entry(1, 1),
        )
        .at(Stage::Consistency),
    ]
}

fn qed_rows() -> Rows {
    let set = |field: Field, value| move || qed::image().set(field, value);
    vec![
        row("G03-qed", "a sound QED", OK, qed::image).agrees(),
        row("G03-qed-features", "QED: unknown features", UNSUPPORTED, set(qed::FEATURES, 1 << 63)),
        row(
            "G03-qed-dirty",
            "QED: an image that was not closed",
            Class::Flag("dirty"),
            set(qed::FEATURES, 2),
        ),
        row("G03-qed-cluster-size-0", "QED: clusters of no length", INVALID, set(qed::CLUSTER_SIZE, 0)),
        row(
            "G03-qed-cluster-size-128m",
            "QED: clusters of 128 MiB",
            INVALID,
            set(qed::CLUSTER_SIZE, 128 << 20),
        ),
        row("G03-qed-table-size-3", "QED: tables of three clusters", INVALID, set(qed::TABLE_SIZE, 3)),
        row("G03-qed-header-size-2-32", "QED: a header of 16 TiB (116)", INVALID, set(qed::HEADER_SIZE, MAX)),
        row("G03-qed-size-2-64", "QED: a disk of 2^64 - 512 bytes", INVALID, set(qed::SIZE, u64::MAX - 511)),
        row(
            "G03-qed-l1-past-the-end",
            "QED: an L1 table past the end of the file",
            INVALID,
            set(qed::L1_OFFSET, 1 << 40),
        ),
        row(
            "G03-qed-l2-past-the-end",
            "QED: an L2 table past the end of the file",
            CORRUPT,
            set(le(qed::L1, 8), 1 << 40),
        )
        .at(Stage::Mapping),
        row("G03-qed-l2-is-header", "QED: the header as an L2 table", CORRUPT, set(le(qed::L1, 8), 1))
            .at(Stage::Mapping),
        row(
            "G03-qed-data-past-the-end",
            "QED: data past the end of the file",
            CORRUPT,
            set(le(qed::L2, 8), 1 << 40),
        )
        .at(Stage::Mapping),
        row(
            "G03-qed-backing-outside",
            "QED: a name of a backing file outside of the header",
            INVALID,
            || qed::image().set(qed::FEATURES, 1).set(qed::BACKING_OFFSET, 4090).set(qed::BACKING_SIZE, 100),
        ),
    ]
}

fn bochs_rows() -> Rows {
    let set = |field: Field, value| move || bochs::image().set(field, value);
    vec![
        row("G04-bochs", "a sound Bochs disk", OK, bochs::image).agrees(),
        row(
            "G04-bochs-version",
            "Bochs: an unknown version, so raw bytes",
            Class::Flag("may be Bochs"),
            set(bochs::VERSION, 3),
        )
        .agrees(),
        row("G04-bochs-extent-0", "Bochs: extents of no length", INVALID, set(bochs::EXTENT, 0)),
        row("G04-bochs-extent-odd", "Bochs: extents of 65537 bytes", INVALID, set(bochs::EXTENT, 65537)),
        row("G04-bochs-extent-2-31", "Bochs: extents of 2 GiB (078)", LIMIT, set(bochs::EXTENT, 1 << 31)),
        row(
            "G04-bochs-catalog-2-32",
            "Bochs: a catalog of 2^32 - 1 entries (078)",
            LIMIT,
            set(bochs::CATALOG, MAX),
        ),
        row(
            "G04-bochs-catalog-short",
            "Bochs: a catalog that is too small for the disk",
            INVALID,
            set(bochs::CATALOG, 1),
        ),
        row("G04-bochs-disk-2-64", "Bochs: a disk of 2^64 - 1 bytes", INVALID, set(bochs::DISK, u64::MAX)),
        row(
            "G04-bochs-bitmap-0",
            "Bochs: bitmaps of no length",
            Class::Flag("odd bitmap"),
            set(bochs::BITMAP, 0),
        ),
        row("G04-bochs-extents-twice", "Bochs: more extents than the file has room for", CORRUPT, || {
            let catalog = 1 << 20;
            bochs::image()
                .set(bochs::CATALOG, catalog)
                .set(bochs::DISK, catalog << 16)
                .put(bochs::ENTRIES, vec![0; 4 << 20])
                .put(bochs::ENTRIES, [0; 64])
                .with_length(bochs::ENTRIES + (4 << 20))
        })
        .at(Stage::Data),
        row(
            "G04-bochs-catalog-past-the-end",
            "Bochs: a catalog past the end of the file",
            CORRUPT,
            set(le(68, 4), 1 << 30),
        )
        .at(Stage::Data),
        row(
            "G04-bochs-extent-past-the-end",
            "Bochs: an extent past the end of any file",
            CORRUPT,
            set(le(bochs::ENTRIES, 4), MAX - 1),
        )
        .at(Stage::Consistency),
    ]
}

fn cloop_rows() -> Rows {
    let set = |field: Field, value| move || cloop::image().set(field, value);
    vec![
        row("G05-cloop", "a sound cloop", OK, cloop::image).agrees(),
        row("G05-cloop-block-size-0", "cloop: blocks of no length", INVALID, set(cloop::BLOCK_SIZE, 0)),
        row("G05-cloop-block-size-513", "cloop: blocks of 513 bytes", INVALID, set(cloop::BLOCK_SIZE, 513)),
        row(
            "G05-cloop-block-size-4g",
            "cloop: blocks of almost 4 GiB (075)",
            LIMIT,
            set(cloop::BLOCK_SIZE, MAX - 511),
        ),
        row("G05-cloop-blocks-2-32", "cloop: 2^32 - 1 blocks (075)", LIMIT, set(cloop::BLOCKS, MAX)),
        row(
            "G05-cloop-blocks-2-26",
            "cloop: 2^26 blocks, whose offsets are too long",
            LIMIT,
            set(cloop::BLOCKS, 1 << 26),
        ),
        row("G05-cloop-blocks-in-a-hole", "cloop: 2^26 - 1 blocks whose offsets are a hole", CORRUPT, || {
            cloop::image().set(cloop::BLOCKS, (1 << 26) - 1).with_length(1 << 30)
        }),
        row(
            "G05-cloop-offsets-descend",
            "cloop: offsets that go back (075)",
            CORRUPT,
            set(be(cloop::OFFSETS + 8, 8), 1),
        ),
        row(
            "G05-cloop-offset-2-64",
            "cloop: a block of almost 2^64 bytes",
            CORRUPT,
            set(be(cloop::OFFSETS + 16, 8), u64::MAX),
        ),
        row(
            "G05-cloop-offsets-past-the-end",
            "cloop: offsets that the file has no room for",
            CORRUPT,
            || cloop::image().set(cloop::BLOCKS, 1000).with_length(cloop::OFFSETS + 24),
        ),
        row("G05-cloop-stream", "cloop: a block that is no stream", CORRUPT, || {
            cloop::image().put(cloop::OFFSETS + 24, [0; 8])
        })
        .at(Stage::Data),
    ]
}

fn qcow_rows() -> Rows {
    let set = |field: Field, value| move || qcow::image().set(field, value);
    vec![
        row("G06-qcow", "a sound qcow", OK, qcow::image).agrees(),
        row(
            "G06-qcow-cluster-bits-8",
            "qcow: clusters of 256 bytes (092)",
            INVALID,
            set(qcow::CLUSTER_BITS, 8),
        ),
        row(
            "G06-qcow-cluster-bits-255",
            "qcow: clusters by a shift that is too wide",
            INVALID,
            set(qcow::CLUSTER_BITS, 255),
        ),
        row("G06-qcow-l2-bits-5", "qcow: L2 tables of 32 entries (092)", INVALID, set(qcow::L2_BITS, 5)),
        row(
            "G06-qcow-l2-bits-255",
            "qcow: L2 tables by a shift that is too wide",
            INVALID,
            set(qcow::L2_BITS, 255),
        ),
        row("G06-qcow-size-0", "qcow: a disk of no length", INVALID, set(qcow::SIZE, 0)),
        row("G06-qcow-size-2-64", "qcow: a disk of 2^64 - 1 bytes (092)", LIMIT, set(qcow::SIZE, u64::MAX)),
        row(
            "G06-qcow-size-2-60",
            "qcow: a disk of 2^60 bytes, whose L1 table is 4 TiB",
            LIMIT,
            set(qcow::SIZE, 1 << 60),
        ),
        row(
            "G06-qcow-crypt-method-1",
            "qcow: encryption that is long deprecated",
            LOCKED,
            set(qcow::CRYPT_METHOD, 1),
        )
        .at(Stage::Contents),
        row(
            "G06-qcow-crypt-method-2",
            "qcow: encryption of an unknown kind",
            UNSUPPORTED,
            set(qcow::CRYPT_METHOD, 2),
        ),
        row(
            "G06-qcow-backing-1024",
            "qcow: a name of a backing file that is too long (092)",
            INVALID,
            || qcow::image().set(qcow::BACKING_OFFSET, 64).set(qcow::BACKING_SIZE, 1024),
        ),
        row(
            "G06-qcow-l1-past-the-end",
            "qcow: an L1 table past the end of the file",
            CORRUPT,
            set(qcow::L1_OFFSET, 1 << 40),
        )
        .at(Stage::Mapping),
        row(
            "G06-qcow-l2-past-the-end",
            "qcow: an L2 table past the end of the file",
            CORRUPT,
            set(be(qcow::L1, 8), 1 << 40),
        )
        .at(Stage::Mapping),
        row(
            "G06-qcow-compressed-past-the-end",
            "qcow: a compressed cluster past the end of the file",
            CORRUPT,
            set(be(qcow::L2, 8), 1 << 63 | 1 << 40),
        )
        .at(Stage::Data),
    ]
}

/// A LUKS volume is refused before anything is read: there is no key. What is wrong with its header is for who asks
/// what it is.
fn luks_rows() -> Rows {
    let locked = |id, trick, image: fn() -> SparseFile| row(id, trick, LOCKED, image).at(Stage::Contents);
    vec![
        locked("G07-luks", "a sound LUKS volume", luks::image),
        locked("G07-luks-stripes-4001", "LUKS: a key slot of 4001 stripes", || luks::image().set(luks::STRIPES, 4001))
            .described(INVALID),
        locked("G07-luks-slots-overlap", "LUKS: key slots over one another", || luks::image().set(luks::KEY_OFFSET, 10))
            .described(INVALID),
        locked("G07-luks-slot-wraps", "LUKS: a key slot whose end wraps round", || luks::image().set(luks::KEY_OFFSET, MAX))
            .described(INVALID),
        locked("G07-luks-iterations-2-32", "LUKS: a key of 2^32 - 1 iterations, hours of work", || {
            luks::image().set(luks::ITERATIONS, MAX)
        }),
        locked("G07-luks-iterations-2-26", "LUKS: a key of 2^26 iterations, minutes of work", || {
            luks::image().set(luks::ITERATIONS, 1 << 26)
        }),
        locked("G07-luks-payload-2-32", "LUKS: a payload past the end of the file", || {
            luks::image().set(luks::PAYLOAD_OFFSET, MAX)
        })
        .described(INVALID),
        locked("G07-luks2", "LUKS 2: 4 MiB of JSON, Argon2 in 4 GiB of memory", || {
            let json = r#"{"keyslots":{"0":{"kdf":{"type":"argon2id","time":4294967295,"memory":4194304,"cpus":4}}}}"#;
            luks::image().set(luks::VERSION, 2).set(be(8, 8), 4 << 20).put(4096, json).with_length(16 << 20)
        })
        .said_to_be("luks")
        .described(UNSUPPORTED),
    ]
}
