//! qcow2 images with something of everything in their metadata, and the same with some of its bytes changed. Every number
//! comes from a seed.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;

use crate::common::{Bench, Random};

/// How an image is made.
struct Recipe {
    options: &'static str,
    /// What `qemu-io` does to it.
    commands: &'static [&'static str],
    /// What it does after a snapshot was made, if one is.
    after_snapshot: Option<&'static [&'static str]>,
    bitmaps: &'static [&'static str],
}

const fn recipe(
    options: &'static str,
    commands: &'static [&'static str],
    after_snapshot: Option<&'static [&'static str]>,
    bitmaps: &'static [&'static str],
) -> Recipe {
    Recipe { options, commands, after_snapshot, bitmaps }
}

const RECIPES: [Recipe; 8] = [
    recipe("cluster_size=4k", EVERYTHING, Some(&["write 128k 64k", "write 0 8k"]), &["one", "two"]),
    recipe("cluster_size=4k", EVERYTHING, Some(&["write 128k 64k", "write 0 8k"]), &[]),
    recipe("cluster_size=1k,compat=0.10", &["write 0 64k", "write -c 2M 64k"], Some(&["write 0 8k"]), &[]),
    recipe("cluster_size=16k,extended_l2=on", EVERYTHING, Some(&["write 1k 1k", "write -z 300k 20k"]), &[]),
    recipe("cluster_size=512,refcount_bits=1", EVERYTHING, None, &[]),
    recipe("cluster_size=512,refcount_bits=64", EVERYTHING, Some(&["write 0 8k"]), &[]),
    recipe("cluster_size=2k,refcount_bits=8,lazy_refcounts=on", EVERYTHING, Some(&["write 0 8k"]), &["one"]),
    recipe(
        "cluster_size=4k,data_file=data.raw",
        &["write 0 64k", "write 1M 64k", "write -z 2M 64k"],
        None,
        &[],
    ),
];

const EVERYTHING: &[&str] = &[
    "write 0 64k",
    "write 256k 32k",
    "write -z 512k 64k",
    "write 1M 128k",
    "write -c 2M 64k",
    "write -c 2112k 64k",
];

/// An image to be broken.
pub struct Victim {
    /// What it was made with.
    pub options: &'static str,
    /// Whether it has both snapshots and bitmaps.
    pub has_both: bool,
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Bytes of metadata: start and end.
type Place = (usize, usize);

/// Makes all images; they have disks of 4 MiB.
pub fn victims(bench: &Bench) -> Vec<Victim> {
    RECIPES.iter().map(|recipe| victim(bench, recipe)).collect()
}

fn victim(bench: &Bench, recipe: &Recipe) -> Victim {
    let &Recipe { options, commands, after_snapshot, bitmaps } = recipe;
    bench.make(&["create", "-q", "-f", "qcow2", "-o", options, "victim", "4M"]);
    bench.qemu_io("victim", commands);
    if let Some(after) = after_snapshot {
        bench.make(&["snapshot", "-c", "before", "victim"]);
        bench.qemu_io("victim", after);
        bench.make(&["snapshot", "-c", "after", "victim"]);
    }
    for bitmap in bitmaps {
        bench.make(&["bitmap", "--add", "victim", bitmap]);
    }
    let bytes = fs::read(bench.path("victim")).unwrap();
    let places = places(&bytes);
    Victim { options, has_both: after_snapshot.is_some() && !bitmaps.is_empty(), bytes, places }
}

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// Where the metadata is, small parts of it as often as it takes for them to be hit.
fn places(bytes: &[u8]) -> Vec<Place> {
    let cluster = 1 << number(bytes, 20, 4);
    let (l1_size, l1) = (number(bytes, 36, 4), number(bytes, 40, 8));
    let (table, snapshots, snapshot_table) =
        (number(bytes, 48, 8), number(bytes, 60, 4), number(bytes, 64, 8));
    let mut places = vec![(20, 112), (36, 72), (72, 104), (l1, l1 + 8 * l1_size), (table, table + 32)];
    let offset = |at| number(bytes, at, 8) & 0x00ff_ffff_ffff_fe00;
    for l2 in (0..l1_size).map(|index| offset(l1 + 8 * index)).filter(|&l2| l2 != 0) {
        places.push((l2, l2 + cluster));
        let used = (l2..l2 + cluster).step_by(8).filter(|&at| number(bytes, at, 8) != 0);
        places.extend(used.map(|at| (at, at + 8)));
    }
    let block = offset(table);
    places.extend([(block, block + cluster.min(600)); 6]);
    if snapshots != 0 {
        places.extend([(snapshot_table, snapshot_table + 120); 4]);
    }
    places
}

impl Victim {
    /// The image with one to six places of its metadata changed.
    pub fn broken(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = bytes.len() as u64;
        for _ in 0..[1, 1, 1, 2, 3, 6][random.below(6) as usize] {
            let (start, end) = self.places[random.below(self.places.len() as u64) as usize];
            let at = start + random.below((end.min(bytes.len()) - start) as u64) as usize;
            match random.below(20) {
                0..10 => bytes[at] ^= 1 << random.below(8),
                10..15 => bytes[at] = random.next() as u8,
                15..17 => bytes[at] = 0,
                _ => {
                    let near = random.below(length + 8192) & !511;
                    let entries = [0, 1, 1 << 63, 1 << 63 | near, near, near + 1, 1 << 62 | near];
                    let entry: u64 = entries[random.below(entries.len() as u64) as usize];
                    let at = at & !7;
                    bytes[at..at + 8].copy_from_slice(&entry.to_be_bytes());
                }
            }
        }
        bytes
    }
}
