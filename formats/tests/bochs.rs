//! Bochs' growing disks, made by hand: `qemu-img` neither writes nor maps them.

mod support;

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit};
use formats::{Error, Format, Image};
use support::cases::Expect::{ReadUnmapped, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, flips, patched, survive};
use support::{Kind, Line, Memory, qemu_img_ok, text, walk};

const VERSION: (usize, usize) = (64, 4);
const HEADER: (usize, usize) = (68, 4);
const CATALOG: (usize, usize) = (72, 4);
const BITMAP: (usize, usize) = (76, 4);
const EXTENT: (usize, usize) = (80, 4);
const DISK: (usize, usize) = (88, 8);
/// The first entry of the catalog.
const ENTRIES: usize = 512;

fn set((offset, length): (usize, usize), value: u64) -> Patch {
    (offset, length, value)
}

/// 16 KiB in extents of 4 KiB: one without data, one with sectors 0, 1 and 7, one more without, one full.
fn sample() -> Vec<u8> {
    let mut bytes = vec![0; ENTRIES];
    bytes[..22].copy_from_slice(b"Bochs Virtual HD Image");
    bytes[32..39].copy_from_slice(b"Redolog");
    bytes[48..55].copy_from_slice(b"Growing");
    let fields = [
        set(VERSION, 0x2_0000),
        set(HEADER, 512),
        set(CATALOG, 4),
        set(BITMAP, 1),
        set(EXTENT, 4096),
        set(DISK, 16384),
    ];
    bytes = patched(&bytes, Order::Little, &fields);
    for entry in [u32::MAX, 1, u32::MAX, 0] {
        bytes.extend(entry.to_le_bytes());
    }
    for bitmap in [0xff, 0x83] {
        bytes.push(bitmap);
        bytes.extend([0; 511]);
        bytes.extend([7; 4096]);
    }
    bytes
}

#[test]
fn bitmaps_tell_sectors_of_data_from_zeros() {
    let bytes = sample();
    let mut image = Image::open(Memory::new(bytes.clone()), None).unwrap();
    assert_eq!(image.format(), Format::Bochs);
    assert!(!image.reports_block_status());
    let first = 512 + 16 + 512;
    let line = |start, length, kind| Line { start, length, kind };
    let lines = walk(&mut image).unwrap();
    let expected = [
        line(0, 4096, Kind::Zero),
        line(4096, 1024, Kind::Data(first + 4608)),
        line(5120, 2560, Kind::Zero),
        line(7680, 512, Kind::Data(first + 4608 + 3584)),
        line(8192, 4096, Kind::Zero),
        line(12288, 4096, Kind::Data(first)),
    ];
    assert_eq!(lines, expected);
    // What qemu-img reads at those places is the same.
    let directory = tempfile::tempdir().unwrap();
    let (path, raw) = (directory.path().join("disk.bochs"), directory.path().join("disk.raw"));
    std::fs::write(&path, &bytes).unwrap();
    qemu_img_ok(&["convert", "-f", "bochs", "-O", "raw", text(&path), text(&raw)]);
    let mut ours = vec![0; 16384];
    for Line { start, length, kind } in lines {
        if let Kind::Data(offset) = kind {
            let at = |from: u64| usize::try_from(from).unwrap();
            ours[at(start)..at(start + length)].copy_from_slice(&bytes[at(offset)..at(offset + length)]);
        }
    }
    assert_eq!(std::fs::read(raw).unwrap(), ours);
}

#[test]
fn fields_of_the_header() {
    let magic = Refused(InvalidFormat, "magic", "Image not in Bochs format");
    let large = Refused(Limit, "catalog", "Catalog size is too large");
    let small = Refused(InvalidFormat, "catalog", "Catalog size is too small for this disk size");
    let extent = |message| Refused(InvalidFormat, "extent", message);
    let outside = RefusedOtherwise(Corrupt, "catalog", "Catalog lies beyond the end of the file", None);
    check(
        Format::Bochs,
        &sample(),
        Order::Little,
        &[
            (&[], ReadUnmapped),
            (&[(0, 1, 0)], magic),
            (&[(22, 1, 65)], magic),
            (&[(25, 1, 65)], ReadUnmapped),
            (&[(32, 1, 0)], magic),
            (&[(48, 1, 0)], magic),
            (&[set(VERSION, 0x3_0000)], magic),
            (&[set(VERSION, 0x1_0000)], small),
            (&[set(VERSION, 0x1_0000), (84, 8, 8192)], ReadUnmapped),
            (&[set(CATALOG, (1 << 20) + 1), set(EXTENT, 0)], large),
            (&[set(CATALOG, u32::MAX.into())], large),
            (&[set(CATALOG, 1 << 20)], ReadUnmapped),
            (&[set(CATALOG, 3)], small),
            (&[set(BITMAP, 0)], ReadUnmapped),
            (&[set(BITMAP, u32::MAX.into())], ReadUnmapped),
            (&[set(EXTENT, 0)], extent("Extent size must be at least 512")),
            (&[set(EXTENT, 256)], extent("Extent size must be at least 512")),
            (&[set(EXTENT, 1536)], extent("Extent size 1536 is not a power of two")),
            (&[set(EXTENT, 1 << 24)], Refused(Limit, "extent", "Extent size 16777216 is too large")),
            (&[set(EXTENT, 1 << 23)], ReadUnmapped),
            (&[set(DISK, 511)], ReadUnmapped),
            (&[set(DISK, 16385)], ReadUnmapped),
            (&[set(DISK, 16896)], small),
            (&[set(DISK, u64::MAX)], small),
            // What qemu-img reads as zeros, or as entries that all point to one extent.
            (&[set(HEADER, u32::MAX.into())], outside),
            (&[set(CATALOG, 1 << 20), set(EXTENT, 1 << 23), set(DISK, 1 << 43)], outside),
        ],
    );
}

/// Every entry points to one extent: `qemu-img` reads it again and again.
#[test]
fn a_shared_extent_does_not_make_a_walk_without_end() {
    let fields = [set(CATALOG, 1 << 16), set(EXTENT, 1 << 23), set(DISK, 1 << 39)];
    let mut bytes = patched(&sample()[..ENTRIES], Order::Little, &fields);
    bytes.resize(ENTRIES + (4 << 16) + 4096, 0);
    let mut image = Image::open(Memory::new(bytes), None).unwrap();
    let message = "Catalog has more extents than the file has room for";
    assert_eq!(walk(&mut image), Err(Error::new(Corrupt, "catalog", message)));
}

#[test]
fn damage_is_survived() {
    let base = sample();
    flips(&base, Format::Bochs, 0x400, 3000);
    // An extent whose place has more than 64 bits.
    let far = [set(BITMAP, 0), set(EXTENT, 1 << 23), set(CATALOG, 4), (ENTRIES, 4, 0xffff_fffe)];
    survive(&patched(&base, Order::Little, &far), None);
}
