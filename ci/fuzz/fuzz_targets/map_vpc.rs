//! A VHD image that is anything, its checksums put right.
#![no_main]

use formats::{Format, Image};
use instar_fuzz::storage::{Liar, walk};
use libfuzzer_sys::fuzz_target;

/// Bytes behind the file that make up the lies about it.
const LIES: usize = 16;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    let end = bytes.len().saturating_sub(LIES);
    let header =
        bytes.get(16..24).map_or(0, |offset| u64::from_be_bytes(offset.try_into().expect("8 bytes")));
    // Footer copy, footer, header of a dynamic disk: where each begins, its length, and where its checksum stands.
    for (start, length, at) in [(0, 512, 64), (end.saturating_sub(512), 512, 64), (header as usize, 1024, 36)]
    {
        let inside = start.checked_add(length).is_some_and(|stop| stop <= end);
        // Some stay wrong.
        if inside && bytes[start + at] != 0xff {
            let part = &mut bytes[start..start + length];
            part[at..at + 4].fill(0);
            let sum: u32 = part.iter().map(|&byte| u32::from(byte)).sum();
            part[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
        }
    }
    for format in [Some(Format::Vpc), None] {
        if let Ok(mut image) = Image::open(Liar::new(&bytes), format) {
            walk(&mut image);
        }
    }
});
