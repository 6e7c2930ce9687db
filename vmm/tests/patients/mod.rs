//! Images of the formats beside qcow2 that have a check, each with data, and the same with some of its metadata changed.
//! Every number comes from a seed.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;

use crate::common::{Bench, Random};

/// What is done to every disk of 4 MiB: parts of it are written, one of them twice.
const COMMANDS: &[&str] = &["write 0 1M", "write 3M 64k", "write 1536k 128k", "write 1M 64k", "write 0 4k"];

/// Formats, options, and how long an entry of their tables is.
const IMAGES: [(&str, &str, usize); 15] = [
    ("vmdk", "", 4),
    ("vmdk", "subformat=streamOptimized", 4),
    ("vmdk", "subformat=twoGbMaxExtentSparse", 4),
    ("vmdk", "subformat=monolithicFlat", 4),
    ("vmdk", "zeroed_grain=on", 4),
    ("vdi", "", 4),
    ("vdi", "static=on", 4),
    ("vhdx", "block_size=1M,log_size=1M", 8),
    ("vhdx", "subformat=fixed", 8),
    ("qed", "", 8),
    ("qed", "cluster_size=4k,table_size=2", 8),
    ("parallels", "cluster_size=64k", 4),
    ("parallels", "cluster_size=1M", 4),
    ("parallels", "cluster_size=4k", 4),
    ("vpc", "", 4),
];

/// An image to be broken.
pub struct Patient {
    pub format: &'static str,
    pub options: &'static str,
    /// The file that is broken, if the image has several, and what is put in the place of its name.
    pub file: String,
    bytes: Vec<u8>,
    entry_len: usize,
    places: Vec<(usize, usize)>,
}

/// Makes an image of each kind, under names that begin with `patient-`.
pub fn patients(bench: &Bench) -> Vec<Patient> {
    IMAGES
        .iter()
        .enumerate()
        .map(|(number, &(format, options, entry_len))| {
            let name = format!("patient-{number}.{format}");
            if options == "subformat=streamOptimized" {
                bench.make(&["convert", "-f", "vmdk", "-O", "vmdk", "-o", options, "patient-0.vmdk", &name]);
            } else {
                let mut create = vec!["create", "-q", "-f", format, &name, "4M"];
                if !options.is_empty() {
                    create.extend(["-o", options]);
                }
                bench.make(&create);
                assert!(bench.qemu_io(&name, COMMANDS), "{name}");
            }
            let part = options == "subformat=twoGbMaxExtentSparse";
            let file = if part { format!("patient-{number}-s001.vmdk") } else { name.clone() };
            let bytes = fs::read(bench.path(&file)).unwrap();
            let places = places(format, &bytes);
            Patient { format, options, file, bytes, entry_len, places }
        })
        .collect()
}

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// Where the metadata is: start and end, what is small as often as it takes to be hit. The high bytes of lengths are
/// spared: which of them still open is for other tests, and `qemu-img` tells of each entry of a table.
fn places(format: &str, bytes: &[u8]) -> Vec<(usize, usize)> {
    match format {
        "vmdk" if bytes.starts_with(b"KDMV") => {
            let directory = 512 * number(bytes, 56, 8);
            if directory >= bytes.len() {
                // It stands at the end of a stream.
                let end = bytes.len() - 1024;
                let directory = 512 * number(bytes, end + 56, 8);
                let table = 512 * number(bytes, directory, 4);
                return vec![(4, 12), (end + 4, end + 16), (directory, directory + 4), (table, table + 256)];
            }
            let table = 512 * number(bytes, directory, 4);
            let header = [(4, 16), (20, 22), (44, 46), (56, 59), (64, 79)];
            [&header[..], &[(directory, directory + 4)], &[(table, table + 256); 4]].concat()
        }
        "vmdk" => vec![(0, 21)],
        "vdi" => vec![(0x154, 0x182), (0x184, 0x188), (0x200, 0x210), (0x200, 0x210)],
        "vhdx" => vec![(0x20_0000, 0x20_0020); 3],
        "qed" => {
            let l1 = number(bytes, 40, 8);
            let l2 = number(bytes, l1, 8);
            vec![(4, 64), (16, 24), (l1, l1 + 16), (l2, l2 + 512), (l2, l2 + 512), (l2, l2 + 512)]
        }
        "parallels" => {
            let entries = number(bytes, 32, 4);
            vec![(44, 56), (44, 52), (64, 64 + 4 * entries), (64, 64 + 4 * entries.min(16))]
        }
        _ => vec![(0, 96), (512, 512 + 44), (1536, 1544), (bytes.len() - 512, bytes.len() - 416)],
    }
}

impl Patient {
    /// The file with one to three places of its metadata changed, or with its end cut off.
    pub fn broken(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..[1, 1, 1, 2, 3][random.below(5) as usize] {
            let (start, end) = self.places[random.below(self.places.len() as u64) as usize];
            let at = start + random.below((end - start) as u64) as usize;
            match random.below(16) {
                0..6 => bytes[at] ^= 1 << random.below(8),
                6..9 => bytes[at] = random.next() as u8,
                9 => bytes[at] = 0,
                10 => {
                    let cut = random.below(bytes.len() as u64 / 2) as usize;
                    bytes.truncate((bytes.len() - cut).max(end));
                }
                11 => bytes.extend(vec![1; random.below(3 << 20) as usize]),
                _ => {
                    // An entry becomes another one, or a number close to it.
                    let entry_len = self.entry_len;
                    let at = at - (at - start) % entry_len;
                    let entries = ((end - start) / entry_len).max(1);
                    let other = start + entry_len * random.below(entries as u64) as usize;
                    if at + entry_len <= bytes.len() && other + entry_len <= bytes.len() {
                        bytes.copy_within(other..other + entry_len, at);
                        bytes[at] = bytes[at].wrapping_add(random.below(3) as u8);
                    }
                }
            }
        }
        bytes
    }
}
