//! Section "Bitmaps", "Bitmap table" and "Bitmap data": which parts of the disk a bitmap says were written.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::ops::Range;

use zerocopy::big_endian::U64;

use super::bitmaps::Bitmap;
use super::header::Header;
use crate::table::Table;
use crate::{Error, ErrorKind, Storage};

/// Bits 9 to 55 of an entry of a bitmap table: file offset of a cluster of bits.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 0 of one that has no cluster: all bits are set.
pub(super) const ALL_ONES: u64 = 1;
/// Entries of a table in memory at a time.
const WINDOW: u64 = 8192;
/// Most bytes of bits in memory.
const CHUNK: u64 = 64 << 10;

/// Joins ranges that touch before they are handed on.
struct Joined<'a> {
    last: Range<u64>,
    visit: &'a mut dyn FnMut(Range<u64>),
}

impl Joined<'_> {
    fn add(&mut self, range: Range<u64>) {
        if range.start == self.last.end {
            self.last.end = range.end;
        } else {
            self.end();
            self.last = range;
        }
    }

    fn end(&mut self) {
        if self.last.start < self.last.end {
            (self.visit)(self.last.clone());
        }
    }
}

/// Hands the parts of the disk, in bytes and ascending, that the bitmap has bits set for to `visit`.
pub(super) fn visit<S: Storage>(
    storage: &mut S,
    header: &Header,
    bitmap: &Bitmap,
    visit: &mut dyn FnMut(Range<u64>),
) -> Result<(), Error> {
    if bitmap.in_use {
        let name = String::from_utf8_lossy(&bitmap.name);
        let message = format!("Bitmap '{name}' is inconsistent and cannot be used");
        return Err(Error::new(ErrorKind::Corrupt, "bitmap directory", message));
    }
    let (cluster_bits, size) = (header.cluster_bits(), header.virtual_size());
    let bits = size.div_ceil(bitmap.granularity());
    let per_cluster = cluster_bits.size() * 8;
    let (offset, entries) = bitmap.table;
    let mut table = Table::<U64>::new(offset, entries.into(), WINDOW);
    let mut found = Joined { last: 0..0, visit };
    for index in 0..bits.div_ceil(per_cluster).min(entries.into()) {
        let entry = table.from(storage, index)?.first().map_or(0, |entry| entry.get());
        let first = index * per_cluster;
        let here = first..bits.min(first + per_cluster);
        match entry & OFFSET_MASK {
            0 if entry & ALL_ONES != 0 => add_bits(&mut found, &here, bitmap, size),
            0 => {}
            place if cluster_bits.aligned(place) => {
                read_bits(storage, place, &here, &mut |bits| add_bits(&mut found, &bits, bitmap, size))?;
            }
            _ => {
                let message = "Bitmap data offset unaligned";
                return Err(Error::new(ErrorKind::Corrupt, "bitmap table", message));
            }
        }
    }
    found.end();
    Ok(())
}

fn add_bits(found: &mut Joined<'_>, bits: &Range<u64>, bitmap: &Bitmap, size: u64) {
    let start = bits.start << bitmap.granularity_bits;
    found.add(start..size.min(bits.end << bitmap.granularity_bits));
}

/// The runs of set bits of a cluster at this place, which has the bits `here`.
fn read_bits<S: Storage>(
    storage: &mut S,
    place: u64,
    here: &Range<u64>,
    run: &mut dyn FnMut(Range<u64>),
) -> Result<(), Error> {
    let mut at = here.start;
    while at < here.end {
        let bytes = (here.end - at).div_ceil(8).min(CHUNK);
        let mut chunk = vec![0_u8; usize::try_from(bytes).unwrap_or(0)];
        storage.read_at(place + (at - here.start) / 8, &mut chunk)?;
        for (number, &byte) in (0..).zip(&chunk) {
            let first = at + number * 8;
            match byte {
                0 => {}
                0xff if first + 8 <= here.end => run(first..first + 8),
                _ => (first..here.end.min(first + 8))
                    .filter(|bit| byte >> (bit - first) & 1 != 0)
                    .for_each(|bit| run(bit..bit + 1)),
            }
        }
        at += bytes * 8;
    }
    Ok(())
}
