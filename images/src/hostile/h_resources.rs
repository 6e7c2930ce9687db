//! Section H: images that cost nothing to make and all there is to read.

use super::{CORRUPT, Class, Files, OK, Row, Stage, row};
use crate::build::{parallels, qcow, qcow2, qed, stream, vdi, vmdk, vpc};
use crate::{SparseFile, be, le};

/// It takes its time.
const LARGE: Class = Class::Flag("large");

pub(super) fn rows() -> Vec<Row> {
    [empty(), tables(), bombs()].into_iter().flatten().collect()
}

fn empty() -> Vec<Row> {
    vec![
        row("H01-raw-8e", "a raw disk as long as a file can be, all one hole", LARGE, || {
            SparseFile::new().with_length(i64::MAX as u64 & !511)
        })
        .agrees(),
        row("H01-raw-10000-holes", "a raw disk of 10000 pieces of data and as many holes", LARGE, || {
            (0..10_000)
                .fold(SparseFile::new(), |file, index| file.put(index * 65536, [7]))
                .with_length(10_000 << 16)
        })
        .agrees(),
        row("H02-qcow2-8e", "the longest disk that clusters of 2 MiB allow, all zeros", LARGE, || {
            // 2^22 L1 entries that each cover 512 GiB, and none that is used.
            qcow2::sized(21, 4 << 20)
                .set(qcow2::SIZE, 1 << 61)
                .set(qcow2::L1_SIZE, 1 << 22)
                .set(be(5 << 21, 8), 0)
                .with_length(64 << 20)
        }),
        row("H02-qcow2-2p-of-holes", "2 PiB in clusters of 64 KiB, the L1 table a hole", LARGE, || {
            qcow2::sized(16, 1 << 20)
                .set(qcow2::SIZE, 1 << 51)
                .set(qcow2::L1_SIZE, 1 << 22)
                .set(be(qcow2::L1, 8), 0)
                .with_length(64 << 20)
        }),
        row("H02-vmdk-2p", "a sparse VMDK of 2 TiB, its directory a hole", LARGE, || {
            vmdk::hosted()
                .set(vmdk::CAPACITY, 1 << 32)
                .set(vmdk::DIRECTORY, 1 << 16)
                .with_length((1 << 25) + (1 << 20))
        })
        .agrees(),
        row("H02-qcow-l1-of-2g", "the longest table of a qcow, all of it a hole", LARGE, || {
            qcow::image()
                .set(qcow::CLUSTER_BITS, 16)
                .set(qcow::L2_BITS, 13)
                .set(qcow::SIZE, ((1 << 28) - 1) << 29)
                .set(qcow::L1_OFFSET, 1 << 16)
                .with_length(3 << 30)
        }),
        row("H02-parallels-table-of-1g", "a Parallels image of 1 PiB, its table a hole", LARGE, || {
            parallels::image()
                .with_length(64)
                .set(parallels::ENTRIES, 1 << 28)
                .set(parallels::SECTORS, 1 << 39)
                .with_length(2 << 30)
        }),
        row(
            "H02-vdi-map-of-2g",
            "a VDI of 512 TiB, its map a hole: every block is the first",
            CORRUPT,
            || {
                vdi::image()
                    .set(vdi::SIZE, 0x1fff_ff80 << 20)
                    .set(vdi::BLOCKS, 0x1fff_ff80)
                    .set(vdi::MAP_OFFSET, 1 << 20)
                    .set(vdi::DATA_OFFSET, 3 << 30)
                    .with_length(4 << 30)
            },
        )
        .at(Stage::Mapping),
        row("H02-vhd-2040g", "a VHD of 2040 GiB without a block", LARGE, || {
            let size = 2040 << 30;
            let table = vec![0xff; (size >> 21) as usize * 4];
            vpc::seal(
                vpc::dynamic()
                    .set(vpc::CURRENT_SIZE, size)
                    .set(vpc::TABLE_ENTRIES, size >> 21)
                    .set(vpc::TABLE_OFFSET, 3 << 20)
                    .put(3 << 20, table),
            )
        })
        .agrees(),
    ]
}

fn tables() -> Vec<Row> {
    vec![
        row(
            "H03-one-l2-everywhere",
            "2 PiB whose every L1 entry leads to one full L2 table",
            CORRUPT,
            || {
                let image = qcow2::sized(16, 1 << 20).set(qcow2::SIZE, 1 << 51).set(qcow2::L1_SIZE, 1 << 22);
                let entry = (qcow2::L2 | qcow2::COPIED).to_be_bytes();
                image.put(qcow2::L2, full_table()).put(qcow2::L1, entry.repeat(1 << 22))
            },
        )
        .at(Stage::Mapping),
        row(
            "H03-one-l2-in-a-long-file",
            "the same in a file that is long enough for as many tables",
            CORRUPT,
            || {
                let image = qcow2::sized(16, 1 << 20).set(qcow2::SIZE, 1 << 51).set(qcow2::L1_SIZE, 1 << 22);
                let entry = (qcow2::L2 | qcow2::COPIED).to_be_bytes();
                image.put(qcow2::L2, full_table()).put(qcow2::L1, entry.repeat(1 << 22)).with_length(1 << 40)
            },
        )
        .at(Stage::Mapping),
        row(
            "H03-l2-tables-in-holes",
            "2 PiB whose L1 entries lead to as many tables, all of them holes",
            LARGE,
            || {
                let image = qcow2::sized(16, 1 << 20).set(qcow2::SIZE, 1 << 51).set(qcow2::L1_SIZE, 1 << 22);
                let entry = |index: u64| (((index + 1024) << 16) | qcow2::COPIED).to_be_bytes();
                image.put(qcow2::L1, (0..1 << 22).flat_map(entry).collect::<Vec<_>>()).with_length(1 << 40)
            },
        ),
        row(
            "H03-vmdk-one-table-in-a-long-file",
            "a VMDK whose directory leads to one full table, in a long file",
            CORRUPT,
            || {
                let entries = 1 << 23;
                vmdk::hosted()
                    .set(vmdk::CAPACITY, 65536 * entries)
                    .set(vmdk::DIRECTORY, 1 << 11)
                    .put(
                        22 * 512,
                        (0..512_u32).flat_map(|index| (99_999 - 2 * index).to_le_bytes()).collect::<Vec<_>>(),
                    )
                    .put(1 << 20, 22_u32.to_le_bytes().repeat(1 << 23))
                    .with_length(1 << 40)
            },
        )
        .at(Stage::Mapping),
        row(
            "H03-qcow-one-table-in-a-long-file",
            "a qcow whose L1 table leads to one full table, in a long file",
            CORRUPT,
            || {
                let entries = 1 << 22;
                qcow::image()
                    .set(qcow::SIZE, entries << 21)
                    .set(qcow::L1_OFFSET, 1 << 20)
                    .put(
                        qcow::L2,
                        (0..512_u64)
                            .flat_map(|index| ((9999 - 2 * index) << 12).to_be_bytes())
                            .collect::<Vec<_>>(),
                    )
                    .put(1 << 20, qcow::L2.to_be_bytes().repeat(1 << 22))
                    .with_length(1 << 40)
            },
        )
        .at(Stage::Mapping),
        row(
            "H03-qed-one-table-in-a-long-file",
            "a QED whose L1 table leads to one full table, in a long file",
            CORRUPT,
            || {
                // Tables of 4 MiB in clusters of 256 KiB.
                let (cluster, table) = (256 << 10, 4_u64 << 20);
                let (l1, l2) = (cluster, cluster + table);
                qed::image()
                    .with_length(64)
                    .set(qed::CLUSTER_SIZE, cluster)
                    .set(qed::TABLE_SIZE, 16)
                    .set(qed::L1_OFFSET, l1)
                    .set(qed::SIZE, 1 << 56)
                    .put(l1, l2.to_le_bytes().repeat(1 << 19))
                    .put(
                        l2,
                        (0..1_u64 << 19)
                            .flat_map(|index| (((1 << 20) - index) << 18).to_le_bytes())
                            .collect::<Vec<_>>(),
                    )
                    .with_length(8 << 40)
            },
        )
        .at(Stage::Mapping),
        row("H04-fragments-2-20", "2^20 clusters, no two of which are neighbours", LARGE, fragments).agrees(),
        row(
            "H04-refcounts-of-8-tib",
            "a long file whose refcount table leads to one block everywhere",
            LARGE,
            || {
                let entry = qcow2::REFBLOCK.to_be_bytes();
                let image =
                    qcow2::image().set(qcow2::REFTABLE_OFFSET, 8 << 20).set(qcow2::REFTABLE_CLUSTERS, 128);
                image.put(8 << 20, entry.repeat(1 << 20)).with_length(8 << 40)
            },
        ),
        row("H05-chain-of-16-tebibytes", "a chain of 16 disks of 1 TiB each", super::DENIED, || {
            let name = |number: usize| format!("image-{number}");
            let image = |number: usize| {
                let overlay = qcow2::overlay(name(number + 1), "qcow2");
                overlay.set(qcow2::SIZE, 1 << 40).set(qcow2::L1_SIZE, 2048)
            };
            let last = qcow2::sized(16, 1 << 40);
            (1..15)
                .fold(Files::new(image(0)), |files, number| files.file(name(number), image(number)))
                .file(name(15), last)
        })
        .with_references(OK),
        row(
            "H05-vmdk-tables-shared",
            "a VMDK whose every directory entry leads to one table",
            CORRUPT,
            || {
                let entries = 1 << 20;
                vmdk::hosted()
                    .set(vmdk::CAPACITY, 65536 * entries)
                    .set(vmdk::DIRECTORY, 1 << 11)
                    .put(1 << 20, 22_u32.to_le_bytes().repeat(1 << 20))
            },
        )
        .at(Stage::Mapping),
    ]
}

/// An L2 table all of whose clusters are data, no two of them neighbours.
fn full_table() -> Vec<u8> {
    let entry = |index: u64| (((8192 - index) << 16) | qcow2::COPIED).to_be_bytes();
    (0..8192).flat_map(entry).collect()
}

/// 4 GiB in clusters of 4 KiB, each of which lies before the one before it.
fn fragments() -> SparseFile {
    let (bits, clusters) = (12, 1_u64 << 20);
    let tables = clusters >> 9;
    let image = qcow2::sized(bits, clusters << bits);
    let (l2, data) = (1_u64 << 24, 1_u64 << 26);
    let l1: Vec<u8> =
        (0..tables).flat_map(|table| ((l2 + (table << bits)) | qcow2::COPIED).to_be_bytes()).collect();
    let entry = |index: u64| ((data + ((clusters - index) << bits)) | qcow2::COPIED).to_be_bytes();
    image
        .put(5 << bits, l1)
        .put(l2, (0..clusters).flat_map(entry).collect::<Vec<_>>())
        .with_length(data + ((clusters + 1) << bits))
}

fn bombs() -> Vec<Row> {
    vec![
        row("H06-bombs", "512 MiB of disk, each cluster a bomb of its own", LARGE, || {
            let stream = stream::deflate_zeros(1 << 20);
            let (sectors, step) =
                ((stream.len() as u64).div_ceil(512) - 1, (stream.len() as u64).next_multiple_of(512));
            (0..8192).fold(qcow2::sized(16, 512 << 20), |image, index| {
                let place = (1 << 20) + index * step;
                image.set(be(qcow2::L2 + 8 * index, 8), qcow2::compressed(place, sectors)).put(place, &stream)
            })
        })
        .agrees(),
        row(
            "H06-one-bomb-everywhere",
            "512 MiB of disk, each cluster the same bomb",
            Class::Flag("shared clusters"),
            || {
                let stream = stream::deflate_zeros(16 << 20);
                let sectors = (stream.len() as u64).div_ceil(512) - 1;
                let entry = qcow2::compressed(qcow2::FREE, sectors).to_be_bytes();
                qcow2::sized(16, 512 << 20).put(qcow2::L2, entry.repeat(8192)).put(qcow2::FREE, &stream)
            },
        )
        .agrees(),
        row(
            "H06-vmdk-one-grain-everywhere",
            "32 MiB of stream, each grain the same bomb",
            Class::Flag("shared clusters"),
            || vmdk::stream_of(16 << 20).put(22 * 512, 128_u32.to_le_bytes().repeat(512)).set(le(20, 8), 128),
        )
        .agrees(),
    ]
}
