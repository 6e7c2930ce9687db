//! Whether the metadata of an image is consistent: references are counted and held against the refcounts stored.
//!
//! Memory is bounded by what the [terms](Terms) say, whatever the image: [`counts`] has a byte a cluster at most, and
//! when that does not fit, the image is gone through several times.

mod compare;
mod copied;
mod counts;
mod l2;
mod ledger;
mod log;
mod pen;
mod refblocks;
mod references;
mod snapshots;
mod stored;

use super::Qcow2;
use crate::check::{Clusters, Findings, Tell, Terms};
use crate::{Error, ErrorKind, Storage};
use compare::Comparison;
use counts::Counts;
use log::Log;
use pen::{Pen, ReadOnly};
use references::References;
use snapshots::SnapshotTable;
use stored::Stored;

/// Most clusters of a file: QEMU's limit.
const CLUSTERS_MAX: u64 = i32::MAX as u64;

impl Qcow2 {
    /// Checks the image, which was opened for that.
    pub(crate) fn check<S: Storage>(
        &self,
        storage: &mut S,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let mut log = Log::new(tell);
        self.check_with(storage, &mut ReadOnly, terms, &mut log)?;
        Ok(log.findings)
    }

    fn check_with<S: Storage>(
        &self,
        storage: &mut S,
        pen: &mut dyn Pen<S>,
        terms: &Terms,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let header = self.header();
        let cluster_len = header.cluster_bits().size();
        let references = References {
            header,
            release: terms.release,
            snapshots: SnapshotTable::read(storage, header, pen, log)?,
            bitmaps: self.bitmaps.iter().map(|bitmap| bitmap.table).collect(),
            bitmap_directory: self.bitmap_directory.as_ref(),
            luks: self.luks_area,
        };
        let clusters = storage.len().div_ceil(cluster_len);
        if clusters > CLUSTERS_MAX {
            return Err(Error::new(ErrorKind::Limit, "file length", "File too large"));
        }
        let total = header.virtual_size().div_ceil(cluster_len);
        log.findings.clusters = Clusters { total, ..Clusters::default() };

        let max = u64::MAX >> (64 - header.refcount_bits());
        let mut counts = Counts::new(clusters, max, terms.memory);
        let mut stored = Stored::new(header, 0);
        let mut comparison = Comparison::default();
        loop {
            references.count(storage, &mut counts, pen, log)?;
            refblocks::count(storage, (header, terms.release), &mut stored, &mut counts, pen, log)?;
            comparison.window(storage, &counts, &mut stored, log)?;
            log.first = false;
            if !counts.next_window() {
                break;
            }
        }
        let doubt = comparison.doubt || counts.is_in_doubt();
        drop(counts);
        log.findings.corruptions += comparison.corruptions;
        log.findings.leaks += comparison.leaks;
        log.findings.check_errors += comparison.check_errors;

        if doubt {
            let mut stored = Stored::new(header, terms.memory);
            copied::check(storage, header, &mut stored, log)?;
        }
        log.findings.image_end_offset = (comparison.highest + 1) * cluster_len;
        Ok(())
    }
}
