//! cloop images, made by hand: `qemu-img` neither writes nor maps them.

mod support;

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit};
use formats::{Extent, ExtentKind, Format, Image};
use support::Memory;
use support::cases::Expect::{ReadUnmapped, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, complaint, flips, open_and_walk};

const BLOCK: (usize, usize) = (128, 4);
const BLOCKS: (usize, usize) = (132, 4);
/// The first offset.
const OFFSETS: usize = 136;
const START: u64 = 168;

fn set((offset, length): (usize, usize), value: u64) -> Patch {
    (offset, length, value)
}

/// 3 blocks of 64 KiB, each in 100 bytes.
fn sample() -> Vec<u8> {
    let mut bytes =
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n".to_vec();
    bytes.resize(128, 0);
    bytes.extend(65536u32.to_be_bytes());
    bytes.extend(3u32.to_be_bytes());
    for index in 0..4 {
        bytes.extend((START + 100 * index).to_be_bytes());
    }
    bytes.resize(bytes.len() + 300, 0);
    bytes
}

#[test]
fn each_block_is_a_stream() {
    let mut image = Image::open(Memory::new(sample()), None).unwrap();
    assert_eq!((image.format(), image.virtual_size()), (Format::Cloop, 3 << 16));
    assert!(!image.reports_block_status());
    let extent = image.extent_at(0x1_8000).unwrap();
    let kind = ExtentKind::Compressed { offset: START + 100, length: 100 };
    assert_eq!(extent, Extent::own(0x1_8000, 0x8000, kind));
}

#[test]
fn fields_and_offsets() {
    let block = |message| Refused(InvalidFormat, "block_size", message);
    let large = |field, message| Refused(Limit, field, message);
    let order = |message| Refused(Corrupt, "offsets", message);
    let at = |index: usize, value| -> Patch { (OFFSETS + 8 * index, 8, value) };
    check(
        Format::Cloop,
        &sample(),
        Order::Big,
        &[
            (&[], ReadUnmapped),
            (&[(0, 1, 0)], ReadUnmapped),
            (&[set(BLOCK, 0)], block("block_size cannot be zero")),
            (&[set(BLOCK, 511)], block("block_size 511 must be a multiple of 512")),
            (&[set(BLOCK, 64 << 20)], ReadUnmapped),
            (
                &[set(BLOCK, (64 << 20) + 512)],
                large("block_size", "block_size 67109376 must be 64 MB or less"),
            ),
            (&[set(BLOCK, u32::MAX.into())], block("block_size 4294967295 must be a multiple of 512")),
            (&[set(BLOCKS, 0)], ReadUnmapped),
            (&[set(BLOCKS, 1)], ReadUnmapped),
            (
                &[set(BLOCKS, 4)],
                order("offsets not monotonically increasing at index 4, image file is corrupt"),
            ),
            (
                &[set(BLOCKS, 100)],
                order("offsets not monotonically increasing at index 4, image file is corrupt"),
            ),
            (
                &[set(BLOCKS, 1 << 26)],
                large("num_blocks", "image requires too many offsets, try increasing block size"),
            ),
            (&[set(BLOCKS, 1 << 29)], large("num_blocks", "n_blocks 536870912 must be 536870911 or less")),
            (&[at(0, 1000)], order("offsets not monotonically increasing at index 1, image file is corrupt")),
            (&[at(2, 1)], order("offsets not monotonically increasing at index 2, image file is corrupt")),
            (&[at(3, (128 << 20) + START + 200)], ReadUnmapped),
            (
                &[at(3, (128 << 20) + START + 201)],
                order("invalid compressed block size at index 3, image file is corrupt"),
            ),
            (&[at(0, u64::MAX), at(1, u64::MAX), at(2, u64::MAX), at(3, u64::MAX)], ReadUnmapped),
        ],
    );
}

/// `qemu-img` reads what is missing as zeros, so that a short file is a long disk that cannot be read.
#[test]
fn offsets_past_the_end_of_the_file_are_refused() {
    let outside = RefusedOtherwise(Corrupt, "offsets", "Offsets lie beyond the end of the file", None);
    check(Format::Cloop, &sample()[..OFFSETS], Order::Big, &[(&[], outside)]);
    let order = "offsets not monotonically increasing at index 1, image file is corrupt";
    check(Format::Cloop, &sample()[..OFFSETS + 8], Order::Big, &[(&[], Refused(Corrupt, "offsets", order))]);
}

/// `qemu-img` counts sectors in 32 bits: this disk of 2 TiB is one of none to it.
#[test]
fn the_number_of_sectors_does_not_wrap_round() {
    let mut bytes =
        support::cases::patched(&sample(), Order::Big, &[set(BLOCK, 64 << 20), set(BLOCKS, 1 << 15)]);
    bytes.resize(OFFSETS, 0);
    bytes.resize(OFFSETS + 8 * ((1 << 15) + 1), 0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.cloop");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(complaint(Format::Cloop, &path), None);
    let lines = open_and_walk(Format::Cloop, &path).unwrap();
    assert_eq!(lines.iter().map(|line| line.length).sum::<u64>(), 2 << 40);
}

#[test]
fn damage_is_survived() {
    flips(&sample(), Format::Cloop, OFFSETS + 32, 3000);
}
