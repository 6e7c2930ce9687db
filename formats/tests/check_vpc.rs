//! The check of VHD images: what is found in images that are sound, and in such as were damaged.

mod support;

use std::fmt::Arguments;

use formats::check::{Findings, Release, Repair, Terms};
use formats::{Access, Format, Image, OpenOptions};
use support::{Random, cases::create_as, qemu_io};

const TERMS: Terms = Terms { release: Release { major: 11, minor: 1 }, memory: 1 << 20 };

/// Where the dynamic disk header and the block allocation table are in images by `qemu-img`.
const HEADER: usize = 512;
const BAT: usize = 1536;
/// Length of a block with its bitmap.
const BLOCK: usize = (2 << 20) + 512;

/// An image with blocks 1, 0 and 3 of its four, in this order.
fn image() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("vpc", directory.path(), "image", "force_size=on", "8M");
    qemu_io("vpc", &path, &["write 2M 64k", "write 0 64k", "write 6M 64k"]);
    std::fs::read(path).unwrap()
}

fn check(bytes: &[u8]) -> (Findings, Vec<String>) {
    let options = OpenOptions { format: Some(Format::Vpc), access: Access::Check, encryption: None };
    let mut lines = vec![];
    let mut tell = |line: Arguments<'_>| lines.push(line.to_string());
    let findings = Image::open_with(bytes, options).unwrap().check(&TERMS, &mut tell).unwrap().unwrap();
    (findings, lines)
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The number of the sector at a file offset.
fn sector(at: usize) -> u32 {
    u32::try_from(at / 512).unwrap()
}

#[test]
fn sound_images_have_no_faults() {
    let bytes = image();
    let (found, lines) = check(&bytes);
    assert_eq!(lines, [""; 0]);
    assert_eq!((found.corruptions, found.leaks, found.check_errors), (0, 0, 0));
    let clusters = found.clusters;
    assert_eq!((clusters.total, clusters.allocated, clusters.fragmented), (4, 3, 1));
    assert_eq!(found.image_end_offset, bytes.len() as u64);
    let directory = tempfile::tempdir().unwrap();
    for (options, size) in [("subformat=fixed", "3M"), ("", "0"), ("", "100M"), ("force_size=on", "1T")] {
        let path = create_as("vpc", directory.path(), "image", options, size);
        let bytes = std::fs::read(&path).unwrap();
        let (found, lines) = check(&bytes);
        assert_eq!((found.corruptions, found.leaks, lines.len()), (0, 0, 0), "{options} {size}");
        assert_eq!(found.image_end_offset, bytes.len() as u64);
    }
}

#[test]
fn faults_are_told_one_by_one() {
    let whole = image();
    let first = whole.len() - 512 - 3 * BLOCK;
    let end = whole.len() - 512;
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(Change<'_>, &str); 9] = [
        (&|bytes| bytes.truncate(end), "ERROR there is no footer at the end of the file"),
        (&|bytes| bytes[end + 100] ^= 1, "ERROR checksum of the footer at the end of the file is wrong"),
        (
            &|bytes| {
                // The creator's version, and the checksum that goes with it.
                bytes[end + 35] += 1;
                bytes[end + 67] -= 1;
            },
            "ERROR footer at the end of the file and its copy at the start differ",
        ),
        (&|bytes| bytes[HEADER + 60] ^= 1, "ERROR checksum of the dynamic disk header is wrong"),
        (&|bytes| put(bytes, BAT, sector(end)), "does not end inside the file"),
        (&|bytes| put(bytes, BAT, 0), "overlaps the copy of the footer"),
        (&|bytes| put(bytes, BAT, 2), "overlaps the dynamic disk header"),
        (&|bytes| put(bytes, BAT, 3), "overlaps the block allocation table"),
        (&|bytes| put(bytes, BAT, sector(first)), "blocks 0 and 1 overlap at offset"),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let (found, lines) = check(&bytes);
        assert!(lines.len() == 1 && lines[0].contains(expected), "{number}: {lines:?}");
        assert_eq!(found.corruptions, 1);
        // A block that nothing leads to any more is lost.
        assert_eq!(found.leaks, u64::from(number >= 4), "{number}");
    }
}

#[test]
fn blocks_that_nothing_refers_to_are_leaks() {
    let whole = image();
    let mut bytes = whole.clone();
    put(&mut bytes, BAT, u32::MAX);
    put(&mut bytes, BAT + 12, u32::MAX);
    let (found, lines) = check(&bytes);
    assert_eq!((found.corruptions, found.leaks, lines.len()), (0, 2, 0));
}

#[test]
fn more_blocks_than_there_is_memory_for_are_refused() {
    let bytes = image();
    let options = OpenOptions { format: Some(Format::Vpc), access: Access::Check, encryption: None };
    let mut image = Image::open_with(&bytes[..], options).unwrap();
    assert!(image.check(&Terms { memory: 0, ..TERMS }, &mut |_| {}).is_err());
}

#[test]
fn nothing_is_repaired() {
    let options = OpenOptions { format: Some(Format::Vpc), access: Access::Check, encryption: None };
    let mut image = Image::open_with(image(), options).unwrap();
    assert_eq!(image.repair(Repair::All, &TERMS, &mut |_| {}).unwrap(), None);
}

#[test]
fn flipped_bytes_are_survived() {
    let whole = image();
    let mut random = Random(3);
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = [
                HEADER + random.below(44) as usize,
                BAT + random.below(16) as usize,
                random.below(96) as usize,
            ];
            bytes[at[random.below(3) as usize]] ^= 1 << random.below(8);
        }
        let options = OpenOptions { format: Some(Format::Vpc), access: Access::Check, encryption: None };
        if let Ok(mut image) = Image::open_with(&bytes[..], options) {
            let _ = image.check(&TERMS, &mut |_| {});
        }
    }
}
