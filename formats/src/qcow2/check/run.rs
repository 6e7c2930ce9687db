//! One check from its beginning to its end.

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use super::compare::Comparison;
use super::counts::Counts;
use super::log::Log;
use super::pen::{Pen, ReadOnly};
use super::rebuild::Old;
use super::references::References;
use super::snapshots::SnapshotTable;
use super::stored::Stored;
use super::{copied, mend, rebuild, refblocks};
use crate::check::{Clusters, Repair, Terms};
use crate::qcow2::header::{Header, SNAPSHOTS_OFFSET};
use crate::{Error, ErrorKind, Storage, StorageError};

/// Most clusters of a file: QEMU's limit.
const CLUSTERS_MAX: u64 = i32::MAX as u64;

/// A check.
pub(super) struct Run<'a> {
    references: References<'a>,
    terms: &'a Terms,
}

fn too_large(field: &'static str) -> Error {
    Error::new(ErrorKind::Limit, field, "File too large")
}

impl<'a> Run<'a> {
    pub(super) fn new(references: References<'a>, terms: &'a Terms) -> Self {
        Self { references, terms }
    }

    /// Checks the image, whose snapshot table was read, and repairs what `pen` may.
    pub(super) fn run<S: Storage>(
        &self,
        storage: &mut S,
        pen: &mut dyn Pen<S>,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let broken_snapshots = core::mem::take(&mut log.findings.corruptions);
        let header = self.references.header;
        let cluster_len = header.cluster_bits().size();
        let clusters = storage.len().div_ceil(cluster_len);
        if clusters > CLUSTERS_MAX {
            return Err(too_large("file length"));
        }
        let total = header.virtual_size().div_ceil(cluster_len);
        log.findings.clusters = Clusters { total, ..Clusters::default() };

        let mut counts = self.counts(clusters);
        let mut comparison = self.compare(storage, &mut counts, pen, log)?;
        let uncompared = log.findings.clone();
        log.findings.corruptions += comparison.corruptions;
        log.findings.leaks += comparison.leaks;
        log.findings.check_errors += comparison.check_errors;
        let rebuild = log.rebuild || comparison.rebuild;
        let mut doubt = comparison.doubt || counts.is_in_doubt();

        let mut header = header.clone();
        if rebuild && pen.repair() == Repair::All {
            header = self.rebuild(storage, &mut counts, pen, log)?;
            comparison.highest = storage.len().div_ceil(cluster_len) - 1;
            doubt = true;
        } else if rebuild && pen.repair() == Repair::Leaks {
            log.tell(format_args!("ERROR need to rebuild refcount structures"));
            return Err(StorageError.into());
        } else if pen.repair() != Repair::None && (log.findings.leaks != 0 || log.findings.corruptions != 0) {
            log.findings = uncompared;
            self.mend(storage, &mut counts, true, pen, log)?;
            pen.flush(storage)?;
            doubt = true;
        }
        if doubt {
            counts.restart(0);
            let mut stored = Stored::new(&header, self.terms.memory);
            copied::check(storage, &header, &mut stored, pen, log)?;
        }
        log.findings.image_end_offset = (comparison.highest + 1) * cluster_len;

        if broken_snapshots != 0 && pen.repair() == Repair::All {
            header = self.rewrite_snapshots(storage, &header, pen)?;
            log.findings.corruptions_fixed += broken_snapshots;
        } else {
            log.findings.corruptions += broken_snapshots;
        }
        if pen.repair() == Repair::None {
            return Ok(());
        }
        pen.flush(storage)?;
        if let Some((offset, features)) = header.cleaned()
            && log.findings.corruptions == 0
            && log.findings.check_errors == 0
        {
            pen.write(storage, offset, &features.to_be_bytes())?;
            pen.flush(storage)?;
        }
        Ok(())
    }

    fn counts(&self, clusters: u64) -> Counts {
        let max = u64::MAX >> (64 - self.references.header.refcount_bits());
        Counts::new(clusters, max, self.terms.memory)
    }

    /// Counts references, window by window, and holds them against what is stored.
    fn compare<S: Storage>(
        &self,
        storage: &mut S,
        counts: &mut Counts,
        pen: &mut dyn Pen<S>,
        log: &mut Log<'_, '_>,
    ) -> Result<Comparison, Error> {
        let header = self.references.header;
        let mut stored = Stored::new(header, 0);
        let mut comparison = Comparison::default();
        loop {
            self.references.count(storage, counts, pen, log)?;
            refblocks::count(storage, (header, self.terms.release), &mut stored, counts, pen, log)?;
            comparison.window(storage, counts, &mut stored, log)?;
            log.first = false;
            if counts.has_all() || !counts.next_window() {
                return Ok(comparison);
            }
        }
    }

    /// Makes stored counts what refers to their clusters, and tells it. What was `counted` before is counted once more if
    /// that was in several windows.
    fn mend<S: Storage>(
        &self,
        storage: &mut S,
        counts: &mut Counts,
        counted: bool,
        pen: &mut dyn Pen<S>,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let header = self.references.header;
        let mut nobody = |_: core::fmt::Arguments<'_>| {};
        let mut silent = Log::new(&mut nobody);
        let mut stored = Stored::new(header, 0);
        if counted && counts.has_all() {
            return mend::window(storage, counts, &mut stored, pen, log);
        }
        counts.restart(0);
        loop {
            self.references.count(storage, counts, &mut ReadOnly, &mut silent)?;
            let of = (header, self.terms.release);
            refblocks::count(storage, of, &mut stored, counts, &ReadOnly, &mut silent)?;
            mend::window(storage, counts, &mut stored, pen, log)?;
            if counts.has_all() || !counts.next_window() {
                return Ok(());
            }
        }
    }

    /// Builds the refcounts anew; what is wrong beside them is found, told and counted once more.
    fn rebuild<S: Storage>(
        &self,
        storage: &mut S,
        counts: &mut Counts,
        pen: &mut dyn Pen<S>,
        log: &mut Log<'_, '_>,
    ) -> Result<Header, Error> {
        log.tell(format_args!("Rebuilding refcount structure"));
        let header = self.references.header;
        let before = log.findings.clone();
        (log.findings.corruptions, log.findings.leaks) = (0, 0);
        log.findings.clusters = Clusters { total: before.clusters.total, ..Clusters::default() };
        (log.first, log.overflow) = (true, false);
        let old = Old::of(storage, header, &mut Stored::new(header, 0))?;
        let header = rebuild::run(storage, &self.references, &old, counts, pen, log)?;
        let found = log.findings.corruptions;
        log.findings.corruptions_fixed += before.corruptions.saturating_sub(found);
        log.findings.leaks_fixed += before.leaks;
        Ok(header)
    }

    /// Writes a snapshot table with complete entries. It has its clusters before the header points to it, and those of
    /// the old one are free only after that.
    fn rewrite_snapshots<S: Storage>(
        &self,
        storage: &mut S,
        header: &Header,
        pen: &mut dyn Pen<S>,
    ) -> Result<Header, Error> {
        let mut nobody = |_: core::fmt::Arguments<'_>| {};
        let mut silent = Log::new(&mut nobody);
        let cluster_len = header.cluster_bits().size();
        let mut references = References { header, ..self.references.clone() };
        let table = references.snapshots;
        let length = table.new_length(storage, header)?;
        let mut offset = 0;
        if length != 0 {
            let mut counts = self.counts(storage.len().div_ceil(cluster_len));
            references.count(storage, &mut counts, &mut ReadOnly, &mut silent)?;
            let place = counts.free_behind(0, length.div_ceil(cluster_len));
            offset = place.ok_or_else(|| too_large("snapshot table"))? * cluster_len;
            table.write(storage, header, pen, offset)?;
            references.next_snapshots = Some((offset, length));
        }
        let old = Old::of(storage, header, &mut Stored::new(header, 0))?;
        let mut counts = self.counts(storage.len().div_ceil(cluster_len));
        let header = rebuild::run(storage, &references, &old, &mut counts, pen, &mut silent)?;

        let count = u32::try_from(table.places.len()).unwrap_or(0);
        let header = header.with_snapshots(count, offset);
        let mut fields = Vec::from(U32::new(count).as_bytes());
        fields.extend_from_slice(U64::new(offset).as_bytes());
        pen.write(storage, SNAPSHOTS_OFFSET, &fields)?;
        pen.flush(storage)?;

        let snapshots = SnapshotTable { offset, length, places: table.places.clone() };
        let references = References { header: &header, snapshots: &snapshots, ..self.references.clone() };
        let mut counts = self.counts(storage.len().div_ceil(cluster_len));
        Run { references, terms: self.terms }.mend(storage, &mut counts, false, pen, &mut silent)?;
        Ok(header)
    }
}
