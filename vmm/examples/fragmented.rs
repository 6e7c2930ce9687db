//! Writes a fragmented qcow2 of 1 TiB with 16 Mi allocated clusters of 64 KiB, all of it metadata: the data is one hole.
//!
//! Usage: `fragmented FILE`

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

const CLUSTER: u64 = 64 << 10;
const SIZE: u64 = 1 << 40;
const CLUSTERS: u64 = SIZE / CLUSTER;
const ENTRIES: u64 = CLUSTER / 8;
const TABLES: u64 = CLUSTERS / ENTRIES;
/// Clusters counted by one refcount block.
const BLOCK: u64 = CLUSTER / 2;
const COPIED: u64 = 1 << 63;

const REFCOUNT_TABLE: u64 = CLUSTER;
const L1: u64 = 2 * CLUSTER;
const L2: u64 = 3 * CLUSTER;
const REFCOUNT_BLOCKS: u64 = L2 + TABLES * CLUSTER;
const BLOCKS: u64 = (CLUSTERS + TABLES + 1024).div_ceil(BLOCK);
const DATA: u64 = REFCOUNT_BLOCKS + BLOCKS * CLUSTER;

fn table(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    numbers.flat_map(u64::to_be_bytes).collect()
}

fn main() -> io::Result<()> {
    let mut file = File::create(std::env::args().nth(1).expect("usage: fragmented FILE"))?;
    let mut write = |offset, bytes: &[u8]| {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    };
    let (cluster_bits, refcount_order, header_length) = (16_u32, 4_u32, 104_u32);
    let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
    header.extend(table([0].into_iter()));
    header.extend([0_u32, cluster_bits].map(u32::to_be_bytes).concat());
    header.extend(table([SIZE].into_iter()));
    header.extend([0_u32, TABLES as u32].map(u32::to_be_bytes).concat());
    header.extend(table([L1, REFCOUNT_TABLE].into_iter()));
    header.extend([1_u32, 0].map(u32::to_be_bytes).concat());
    header.extend(table([0, 0, 0, 0].into_iter()));
    header.extend([refcount_order, header_length].map(u32::to_be_bytes).concat());
    write(0, &header)?;
    write(REFCOUNT_TABLE, &table((0..BLOCKS).map(|index| REFCOUNT_BLOCKS + index * CLUSTER)))?;
    write(L1, &table((0..TABLES).map(|index| (L2 + index * CLUSTER) | COPIED)))?;
    for index in 0..TABLES {
        // Neighbours change places, so that no two clusters follow one another.
        let entries =
            (index * ENTRIES..(index + 1) * ENTRIES).map(|cluster| (DATA + (cluster ^ 1) * CLUSTER) | COPIED);
        write(L2 + index * CLUSTER, &table(entries))?;
    }
    let used = DATA / CLUSTER + CLUSTERS;
    for index in 0..BLOCKS {
        let counts = (index * BLOCK..(index + 1) * BLOCK).map(|cluster| u16::from(cluster < used));
        write(REFCOUNT_BLOCKS + index * CLUSTER, &counts.flat_map(u16::to_be_bytes).collect::<Vec<_>>())?;
    }
    file.set_len(DATA + SIZE)
}
