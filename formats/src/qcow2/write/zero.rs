//! Clusters that read as zeros.

use alloc::vec;

use super::super::entry::{COMPRESSED, COPIED, OFFSET_MASK, ZERO};
use super::Writer;
use super::map::As;
use super::pages::Kind;
use crate::files::not_attached;
use crate::write::Place;
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// Bits of an extended L2 entry for subclusters that read as zeros.
const ALL_ZERO: u64 = 0xffff_ffff << 32;

impl<S: StorageMut> Writer<S> {
    /// Makes the disk from `start` up to `end` read as zeros.
    pub(super) fn make_zero(&mut self, start: u64, end: u64) -> Result<(), Error> {
        if self.shape.data_file_raw {
            let place = Place { file: FileIndex::DATA_FILE, offset: start, length: end - start };
            self.write_zeros(start, &place)?;
        }
        let coverage_bits = self.shape.cluster_bits + self.shape.l2_bits();
        let mut at = start;
        while at < end {
            let stop = end.min(((at >> coverage_bits) + 1) << coverage_bits);
            let (table, _) = self.l1_entry(at >> coverage_bits)?;
            if table != 0 || self.shape.has_backing {
                self.zero_in_table(table, at, stop)?;
            }
            at = stop;
        }
        Ok(())
    }

    /// The same in what one L2 table covers; its file offset is 0 if there is none yet.
    fn zero_in_table(&mut self, mut table: u64, mut at: u64, stop: u64) -> Result<(), Error> {
        let (bits, cluster_len) = (self.shape.cluster_bits, self.shape.cluster());
        while at < stop {
            let (cluster, skip) = (at >> bits, at % cluster_len);
            let end = stop.min((cluster + 1) << bits);
            let within = (cluster % (1 << self.shape.l2_bits())) * self.shape.entry_len;
            let (mut old, mut bitmap) = (0, 0);
            if table != 0 {
                old = self.space.pages.word(&mut self.storage, Kind::L2, table + within)?;
                if self.shape.is_extended() {
                    bitmap = self.space.pages.word(&mut self.storage, Kind::L2, table + within + 8)?;
                }
            }
            let whole = skip == 0 && (end == (cluster + 1) << bits || end == self.shape.size);
            self.zero_cluster((at, end), whole, (old, bitmap))?;
            // It may have been made or copied for that.
            table = self.table_at_hand(cluster).unwrap_or(table);
            at = end;
        }
        Ok(())
    }

    fn zero_cluster(
        &mut self,
        (at, end): (u64, u64),
        whole: bool,
        (old, bitmap): (u64, u64),
    ) -> Result<(), Error> {
        let cluster = at >> self.shape.cluster_bits;
        let reads_below = old & (OFFSET_MASK | COMPRESSED | COPIED | ZERO) == 0 && bitmap == 0;
        if reads_below && !self.shape.has_backing {
            return Ok(());
        }
        if !self.shape.has_zero_clusters && self.shape.has_backing {
            let place = self.place(at, end, As::Data)?;
            return self.write_zeros(at, &place);
        }
        let (new, bits) = match (self.shape.is_extended(), whole) {
            (false, _) => (if self.shape.has_zero_clusters { ZERO } else { 0 }, 0),
            (true, true) => (0, ALL_ZERO),
            (true, false) if old != 0 && old & COPIED == 0 => {
                let message = "A part of a cluster that is shared or compressed cannot be made zero";
                return Err(Error::new(ErrorKind::Unsupported, "range", message));
            }
            (true, false) => {
                let skip = at % self.shape.cluster();
                let zeros = self.shape.subclusters(skip, skip + (end - at));
                (old, (bitmap & !zeros) | zeros << 32)
            }
        };
        if (new, bits) == (old, bitmap) {
            return Ok(());
        }
        let entry = self.entry_for_writing(cluster)?;
        self.space.pages.set_word(&mut self.storage, Kind::L2, entry, new)?;
        if self.shape.is_extended() {
            self.space.pages.set_word(&mut self.storage, Kind::L2, entry + 8, bits)?;
        }
        if new != old { self.free_old(old) } else { Ok(()) }
    }

    /// Writes zeros, or what they are encrypted, for the disk from `offset` on to where they are stored.
    fn write_zeros(&mut self, offset: u64, place: &Place) -> Result<(), Error> {
        let storage = match place.file {
            FileIndex::OWN => &mut self.storage,
            file => self.data_file.as_mut().ok_or_else(|| not_attached(file))?,
        };
        let Some(cipher) = &self.cipher else {
            let written = storage.write_zeros(place.offset, place.length);
            return written.map_err(|error| Error::from(error).in_file(place.file));
        };
        let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(0)];
        cipher.encrypt(offset, place, &mut bytes);
        storage.write_at(place.offset, &bytes)?;
        Ok(())
    }
}
