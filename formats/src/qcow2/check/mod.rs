//! Whether the metadata of an image is consistent: references are counted and held against the refcounts stored.
//!
//! Memory is bounded by what the [terms](Terms) say, whatever the image: [`counts`] has a byte a cluster at most, and
//! when that does not fit, the image is gone through several times.

mod compare;
mod copied;
mod counts;
mod guard;
mod l2;
mod ledger;
mod log;
mod mend;
mod pen;
mod rebuild;
mod refblocks;
mod references;
mod run;
mod snapshots;
pub(super) mod stored;

use alloc::vec::Vec;

use super::Qcow2;
use crate::check::{Findings, Repair, Tell, Terms};
use crate::{Error, Storage, StorageMut};
use guard::Guard;
use log::Log;
use pen::{Mender, ReadOnly};
use references::References;
use run::Run;
use snapshots::SnapshotTable;
use stored::Stored;

impl Qcow2 {
    /// Checks the image, which was opened for that.
    pub(crate) fn check<S: Storage>(
        &self,
        storage: &mut S,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let mut log = Log::new(tell);
        let snapshots = SnapshotTable::read(storage, &self.header, Repair::None, &mut log)?;
        let bitmaps = self.bitmap_tables();
        Run::new(self.references(&snapshots, &bitmaps, terms), terms).run(
            storage,
            &mut ReadOnly,
            &mut log,
        )?;
        Ok(log.findings)
    }

    /// Checks the image, which was opened for that, and repairs what is found. Whenever that is interrupted, the image is no
    /// worse than it was.
    pub(crate) fn repair<S: StorageMut>(
        &self,
        storage: &mut S,
        how: Repair,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let mut log = Log::new(tell);
        let snapshots = SnapshotTable::read(storage, &self.header, how, &mut log)?;
        let bitmaps = self.bitmap_tables();
        let references = self.references(&snapshots, &bitmaps, terms);
        let guard = Guard::new(storage, &references, &mut Stored::new(&self.header, 0))?;
        let mut pen = Mender { repair: how, guard };
        if let Some((offset, features)) = self.header.autocleared() {
            storage.write_at(offset, &features.to_be_bytes())?;
            storage.flush()?;
        }
        Run::new(references, terms).run(storage, &mut pen, &mut log)?;
        Ok(log.findings)
    }

    fn bitmap_tables(&self) -> Vec<(u64, u32)> {
        self.bitmaps.iter().map(|bitmap| bitmap.table).collect()
    }

    fn references<'a>(
        &'a self,
        snapshots: &'a SnapshotTable,
        bitmaps: &'a [(u64, u32)],
        terms: &Terms,
    ) -> References<'a> {
        References {
            header: &self.header,
            release: terms.release,
            snapshots,
            bitmaps,
            bitmap_directory: self.bitmap_directory.as_ref(),
            luks: self.luks_area,
            file_len: 0,
            with_refcount_table: true,
            next_snapshots: None,
        }
    }
}
