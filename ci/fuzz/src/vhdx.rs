//! A VHDX image that is anything, its checksums put right. The file is 8 MiB long with 4 KiB of the input at each place
//! where something can be.

/// Bytes of the input at one place.
const PAGE: usize = 4096;

/// Offsets of the places, in KiB: identifier, two headers, two region tables, log, block allocation table, metadata table
/// and items, data.
const PLACES: [usize; 12] = [0, 64, 128, 192, 256, 1024, 1028, 1032, 2048, 3072, 3136, 4096];

/// Bytes of the file.
const LENGTH: usize = 8 << 20;

/// The file that a fuzzer's input stands for.
pub fn file(input: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    for (part, place) in input.chunks(PAGE).zip(PLACES) {
        bytes[place << 10..][..part.len()].copy_from_slice(part);
    }
    for (start, length) in [(64 << 10, PAGE), (128 << 10, PAGE), (192 << 10, 64 << 10), (256 << 10, 64 << 10)]
    {
        put_right(&mut bytes[start..start + length]);
    }
    // Entries of the log have their length in their header.
    for start in [1024 << 10, 1028 << 10, 1032 << 10] {
        let length = u32::from_le_bytes(bytes[start + 8..start + 12].try_into().expect("4 bytes")) as usize;
        if bytes[start..].starts_with(b"loge") && (PAGE..=1 << 20).contains(&length) {
            put_right(&mut bytes[start..start + length]);
        }
    }
    bytes
}

/// Writes the CRC-32C of `bytes` to where it stands in all structures: behind the signature.
fn put_right(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let mut sum = !0_u32;
    for &byte in bytes.iter() {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    bytes[4..8].copy_from_slice(&(!sum).to_le_bytes());
}
