//! Changes to a Parallels image, in an order in which a crash leaves an image that says that it was not closed, and no
//! less of the disk than before.

use alloc::vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::super::{Fields, IN_USE, SECTOR};
use super::{BAT_OFFSET, ENTRY_LEN};
use crate::check::{Findings, Repair};
use crate::{Error, ErrorKind, StorageMut};

/// Bytes copied at a time.
const CHUNK: u64 = 64 << 10;

/// File offsets of fields.
const IN_USE_OFFSET: u64 = core::mem::offset_of!(Fields, in_use) as u64;
const DATA_OFF_OFFSET: u64 = core::mem::offset_of!(Fields, data_off) as u64;

/// Whoever changes the image.
pub(super) struct Pen {
    repair: Repair,
    was_in_use: bool,
    /// Whether something was written.
    begun: bool,
    /// Where the last cluster ends that is only in part in the file.
    kept: u64,
}

impl Pen {
    pub(super) fn new(repair: Repair, was_in_use: bool) -> Self {
        Self { repair, was_in_use, begun: false, kept: 0 }
    }

    /// Whether the image was not closed.
    pub(super) fn was_in_use(&self) -> bool {
        self.was_in_use
    }

    /// Whether all faults are to be repaired.
    pub(super) fn all(&self) -> bool {
        self.repair == Repair::All
    }

    /// Takes note of a cluster up to `end` that is only in part in the file.
    pub(super) fn keep(&mut self, end: u64) {
        self.kept = self.kept.max(end);
    }

    /// Whether the file may be cut at `end`, what is before `floor` being no cluster.
    pub(super) fn may_cut(&self, end: u64, floor: u64) -> bool {
        self.repair != Repair::None && end >= floor && end >= self.kept
    }

    fn begin<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        if !self.begun {
            self.begun = true;
            if !self.was_in_use {
                storage.write_at(IN_USE_OFFSET, &IN_USE.to_le_bytes())?;
                storage.flush()?;
            }
        }
        Ok(())
    }

    /// Says where the data begins, in bytes: below 2^31 and a whole sector.
    pub(super) fn write_data_offset<S: StorageMut>(
        &mut self,
        storage: &mut S,
        offset: u64,
    ) -> Result<(), Error> {
        self.begin(storage)?;
        let sectors = u32::try_from(offset / SECTOR).map_err(|_| no_place())?;
        Ok(storage.write_at(DATA_OFF_OFFSET, &sectors.to_le_bytes())?)
    }

    /// Writes entries of the BAT from the number `first` on.
    pub(super) fn write_entries<S: StorageMut>(
        &mut self,
        storage: &mut S,
        first: u64,
        entries: &[U32],
    ) -> Result<(), Error> {
        self.begin(storage)?;
        Ok(storage.write_at(BAT_OFFSET + first * ENTRY_LEN, entries.as_bytes())?)
    }

    /// Makes the file as long as its clusters need it.
    pub(super) fn extend<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        if self.kept > storage.len() {
            self.begin(storage)?;
            storage.set_length(self.kept)?;
        }
        Ok(())
    }

    /// Cuts the file; what was written before is on the disk when that is done.
    pub(super) fn cut<S: StorageMut>(&mut self, storage: &mut S, end: u64) -> Result<(), Error> {
        self.begin(storage)?;
        storage.flush()?;
        Ok(storage.set_length(end)?)
    }

    /// Copies the cluster at `from`; what lies past the end of the file is zero.
    pub(super) fn copy<S: StorageMut>(
        &mut self,
        storage: &mut S,
        from: u64,
        to: u64,
        length: u64,
    ) -> Result<(), Error> {
        self.begin(storage)?;
        let mut chunk = vec![0; usize::try_from(CHUNK.min(length)).unwrap_or(0)];
        let mut done = 0;
        while done < length {
            let part = usize::try_from(CHUNK.min(length - done)).unwrap_or(0);
            let bytes = chunk.get_mut(..part).unwrap_or_default();
            storage.read_at(from + done, bytes)?;
            storage.write_at(to + done, bytes)?;
            done += CHUNK;
        }
        Ok(())
    }

    /// Says that the image is closed, if nothing is left to be repaired or it was closed before.
    pub(super) fn finish<S: StorageMut>(self, storage: &mut S, findings: &Findings) -> Result<(), Error> {
        let whole = self.all() && findings.corruptions_fixed == findings.corruptions;
        let close = if self.was_in_use { whole } else { self.begun };
        if close {
            storage.flush()?;
            storage.write_at(IN_USE_OFFSET, &[0; size_of::<u32>()])?;
        }
        if close || self.begun {
            storage.flush()?;
        }
        Ok(())
    }
}

/// The failure to find a place that an entry can name.
pub(super) fn no_place() -> Error {
    Error::new(ErrorKind::Limit, "BAT", "File too large")
}
