//! Writes a raw image of 4 GiB to time conversions with: every second MiB is data, out of the programs and libraries of this
//! machine, the others are holes.
//!
//! Usage: `half_full FILE`.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 4 << 30;

/// Bytes of programs that are gathered; they are repeated.
const GATHERED: usize = 256 << 20;

fn main() {
    let path = env::args().nth(1).expect("usage: half_full FILE");
    let mut data = Vec::new();
    for directory in ["/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/sbin"] {
        gather(Path::new(directory), &mut data);
    }
    let pieces: Vec<&[u8]> = data.chunks_exact(MIB as usize).collect();
    assert!(!pieces.is_empty(), "there are no programs");
    let file = File::create(path).expect("FILE can be made");
    file.set_len(SIZE).expect("FILE can be 4 GiB long");
    for (offset, piece) in (0..SIZE).step_by(2 * MIB as usize).zip(pieces.iter().cycle()) {
        file.write_all_at(piece, offset).expect("FILE can be written");
    }
}

/// Adds the files of a directory, in the order of their names.
fn gather(directory: &Path, data: &mut Vec<u8>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file() && !file.is_symlink()) {
        if data.len() >= GATHERED {
            return;
        }
        data.extend(fs::read(file).unwrap_or_default());
    }
}
