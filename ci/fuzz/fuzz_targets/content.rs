//! Reading what an image holds: compressed clusters that are anything are decoded or refused, and never more of them than a
//! cluster.
#![no_main]

use formats::{ExtentKind, Format, Image};
use instar_fuzz::storage::Liar;
use libfuzzer_sys::fuzz_target;

/// Bytes of a cluster of the image that is made here.
const CLUSTER: usize = 4096;

/// Extents that are read of an image that is anything.
const PATIENCE: u32 = 200;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    match kind % 4 {
        0 | 1 => {
            let bytes = one_cluster(rest, kind % 4 == 1);
            let mut image = Image::open(&bytes[..], Some(Format::Qcow2)).expect("a valid image");
            let mut whole = [0; CLUSTER];
            if image.read(0, &mut whole).is_ok() {
                // The second time from memory, and by parts.
                let mut part = [0; 100];
                image.read(1000, &mut part).expect("the same cluster");
                assert_eq!(part, whole[1000..1100]);
            }
        }
        2 => read_all(rest, Format::Qcow2),
        _ => read_all(rest, Format::Vmdk),
    }
});

/// An image of one cluster, compressed as `stream`, or as the part of it that fits.
fn one_cluster(stream: &[u8], zstd: bool) -> Vec<u8> {
    let mut bytes = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let sectors = stream.len().div_ceil(512).clamp(1, 16) as u64 - 1;
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &12_u32.to_be_bytes());
    put(24, &(CLUSTER as u64).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &(2 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(72, &(u64::from(zstd) << 3).to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &112_u32.to_be_bytes());
    put(104, &[u8::from(zstd)]);
    put(2 * CLUSTER, &((1 << 63) | (3 * CLUSTER as u64)).to_be_bytes());
    put(3 * CLUSTER, &((1 << 62) | (sectors << 58) | (4 * CLUSTER as u64)).to_be_bytes());
    bytes.extend(stream);
    bytes
}

/// Reads the first and the last bytes of each extent.
fn read_all(input: &[u8], format: Format) {
    let Ok(mut image) = Image::open(Liar::new(input), Some(format)) else { return };
    let (mut offset, end) = (0, image.virtual_size());
    for _ in 0..PATIENCE {
        let Some(extent) = (offset < end).then(|| image.extent_at(offset)).and_then(Result::ok) else {
            return;
        };
        let mut buffer = [0xff; 64];
        let length = extent.length.min(64);
        for within in [0, extent.length - length] {
            let read = image.read_extent(&extent, within, &mut buffer[..length as usize]);
            let zero = matches!(
                extent.kind,
                ExtentKind::Unallocated { .. } | ExtentKind::Zero { .. } | ExtentKind::Hole { .. }
            );
            if zero {
                read.expect("nothing to read");
                assert!(buffer[..length as usize].iter().all(|&byte| byte == 0));
            }
        }
        offset += extent.length;
    }
}
