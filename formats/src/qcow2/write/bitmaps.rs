//! Bitmaps of an image that is written to: those that are kept up to date have a bit set for all that is written. Section
//! "Bitmaps".

use alloc::vec::Vec;
use core::ops::Range;

use super::super::bitmaps::{Entry, FLAG_AUTO, FLAG_IN_USE};
use super::super::bits::{ALL_ONES, OFFSET_MASK};
use super::Writer;
use super::pages::Kind;
use crate::reader::Reader;
use crate::{Error, StorageMut};

/// File offset of the flags in an entry of the directory, in bytes.
const FLAGS: u64 = 12;

/// A bitmap that was in order when the image was opened. As long as it is written to it is marked as being in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracked {
    /// File offset of its flags.
    flags_at: u64,
    flags: u32,
    granularity_bits: u32,
    /// File offset of its table, and entries of it.
    table: (u64, u64),
}

impl Tracked {
    /// Marks the bitmaps of a directory, which was found to be in order, as being in use.
    pub(super) fn begin<S: StorageMut>(
        storage: &mut S,
        offset: u64,
        length: u64,
    ) -> Result<Vec<Self>, Error> {
        let (mut tracked, mut at) = (Vec::new(), offset);
        while at < offset + length {
            let mut reader = Reader::new(storage);
            reader.seek(at);
            let entry: Entry = reader.record()?;
            let flags = entry.flags.get();
            if flags & FLAG_IN_USE == 0 {
                let bitmap = Self {
                    flags_at: at + FLAGS,
                    flags,
                    granularity_bits: u32::from(entry.granularity_bits).min(63),
                    table: (entry.table_offset.get(), entry.table_size.get().into()),
                };
                bitmap.write_flags(storage, flags | FLAG_IN_USE)?;
                tracked.push(bitmap);
            }
            let fixed = size_of::<Entry>() as u64 + u64::from(entry.extra_data_len.get());
            at += (fixed + u64::from(entry.name_len.get())).next_multiple_of(8);
        }
        if !tracked.is_empty() {
            storage.flush()?;
        }
        Ok(tracked)
    }

    fn write_flags<S: StorageMut>(&self, storage: &mut S, flags: u32) -> Result<(), Error> {
        Ok(storage.write_at(self.flags_at, &flags.to_be_bytes())?)
    }
}

impl<S: StorageMut> Writer<S> {
    /// Sets the bits for a range of the disk that was written.
    pub(super) fn mark_written(&mut self, range: &Range<u64>) -> Result<(), Error> {
        for number in 0..self.bitmaps.len() {
            let Some(&bitmap) = self.bitmaps.get(number) else { break };
            if bitmap.flags & FLAG_AUTO != 0 && range.start < range.end {
                let first = range.start >> bitmap.granularity_bits;
                let last = (range.end - 1) >> bitmap.granularity_bits;
                self.set_bits(bitmap.table, first..last + 1)?;
            }
        }
        Ok(())
    }

    /// Bitmaps that were in order when the image was opened are in order again.
    pub(super) fn release_bitmaps(&mut self) -> Result<(), Error> {
        for bitmap in core::mem::take(&mut self.bitmaps) {
            bitmap.write_flags(&mut self.storage, bitmap.flags)?;
        }
        Ok(())
    }

    /// Sets bits of the bitmap that has this table.
    fn set_bits(&mut self, (table, entries): (u64, u64), bits: Range<u64>) -> Result<(), Error> {
        let cluster_len = self.shape.cluster();
        let per_cluster = cluster_len * 8;
        let mut at = bits.start;
        while at < bits.end && at / per_cluster < entries {
            let place = table + at / per_cluster * 8;
            let stop = bits.end.min((at / per_cluster + 1) * per_cluster);
            let entry = self.space.pages.word(&mut self.storage, Kind::BitmapTable, place)?;
            let mut offset = entry & OFFSET_MASK;
            if offset == 0 && entry & ALL_ONES != 0 {
                at = stop;
                continue;
            }
            if offset == 0 {
                offset = self.space.allocate(&mut self.storage, 1)?;
                self.space.pages.begin(&mut self.storage, Kind::Bitmap, offset, cluster_len)?;
                self.space.pages.set_word(&mut self.storage, Kind::BitmapTable, place, offset)?;
                self.end = self.end.max(offset + cluster_len);
            }
            self.check_table(offset)?;
            while at < stop {
                let within = at % per_cluster;
                let bytes = self.space.pages.get_mut(&mut self.storage, Kind::Bitmap, offset + within / 8)?;
                at += set(bytes, within % 8, stop - at);
            }
        }
        Ok(())
    }
}

/// Sets up to `count` bits from bit number `first`, below 8, of these bytes on, and says how many there were.
pub(super) fn set(bytes: &mut [u8], first: u64, count: u64) -> u64 {
    let count = count.min(bytes.len() as u64 * 8 - first.min(8));
    for bit in first..first + count {
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
            *byte |= 1 << (bit % 8);
        }
    }
    count.max(1)
}
