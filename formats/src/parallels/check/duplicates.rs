//! Clusters that more than one entry leads to.

use zerocopy::little_endian::U32;

use super::repair::no_place;
use super::{Check, Geometry, verb};
use crate::used::Used;
use crate::{Error, ErrorKind, StorageMut};

/// Where an entry leads to.
enum Place {
    /// To the cluster of this number.
    Cluster(u64),
    /// To what is no data.
    Metadata,
    /// Past the end of the image.
    Outside,
}

impl Geometry {
    /// What is at `offset` of an image whose data ends at `end`.
    fn place(&self, offset: u64, end: u64) -> Place {
        match offset.checked_sub(self.data_start) {
            // QEMU rounds towards zero.
            None if self.data_start - offset < self.cluster_len => Place::Cluster(0),
            None => Place::Metadata,
            Some(_) if offset >= end => Place::Outside,
            Some(within) => Place::Cluster(within / self.cluster_len),
        }
    }
}

impl Check<'_, '_> {
    /// Each entry but the first that leads to a cluster gets a copy of it behind all others.
    pub(super) fn duplicates<S: StorageMut>(&mut self, storage: &mut S, memory: usize) -> Result<(), Error> {
        let end = self.findings.image_end_offset;
        if end.saturating_sub(self.geometry.data_start) < self.geometry.cluster_len {
            return Ok(());
        }
        let mut used = Used::new(memory);
        let mut last_is_duplicate = false;
        let mut bat = self.geometry.bat();
        let mut start = 0;
        while start < bat.entries() {
            let in_hole = bat.in_hole(storage, start)?;
            if in_hole > 0 {
                start += in_hole;
                continue;
            }
            let mut entries = bat.from(storage, start)?.to_vec();
            let mut changed = false;
            for (index, entry) in (start..).zip(&mut entries) {
                let offset = self.geometry.offset(*entry);
                if offset == 0 {
                    continue;
                }
                last_is_duplicate = false;
                match self.geometry.place(offset, end) {
                    Place::Outside => {}
                    // It was told as one that is not in the image.
                    Place::Metadata if self.bounded => {}
                    Place::Metadata => {
                        (self.tell)(format_args!("ERROR cluster {index} is not among the data"));
                        self.corrupt(false);
                    }
                    Place::Cluster(number) if used.insert(number)? => {}
                    Place::Cluster(_) => {
                        let fixed = self.pen.all();
                        let verb = verb(fixed);
                        (self.tell)(format_args!("{verb} duplicate offset in BAT entry {index}"));
                        if fixed {
                            *entry = self.copy(storage, offset)?;
                            changed = true;
                        }
                        self.corrupt(fixed);
                        last_is_duplicate = !fixed;
                    }
                }
            }
            if changed {
                // The copies are there before anything leads to them.
                storage.flush()?;
                self.pen.write_entries(storage, start, &entries)?;
            }
            start += entries.len() as u64;
        }
        if last_is_duplicate {
            // QEMU takes what it found last for the outcome of the check.
            return Err(Error::new(ErrorKind::Corrupt, "BAT", "Device or resource busy"));
        }
        Ok(())
    }

    /// Copies the cluster at `offset` to the end of the image; gives the entry that leads there.
    fn copy<S: StorageMut>(&mut self, storage: &mut S, offset: u64) -> Result<U32, Error> {
        let Geometry { cluster_len, unit, data_start, metadata_end, .. } = self.geometry;
        let end = self.findings.image_end_offset.max(data_start).max(metadata_end);
        let place = end.checked_next_multiple_of(unit).ok_or_else(no_place)?;
        let entry = u32::try_from(place / unit).map_err(|_| no_place())?;
        if let Err(error) = self.pen.copy(storage, offset, place, cluster_len) {
            // There is no room: the file is to be no longer than it was.
            storage.set_length(end)?;
            return Err(error);
        }
        self.findings.image_end_offset = place + cluster_len;
        Ok(U32::new(entry))
    }
}
