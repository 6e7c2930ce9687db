//! `qemu-img check` of QED images: whether each cluster is referred to once, and by an offset where it can be.

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::{Clusters, FEATURE_NEED_CHECK, Fields, Qed};
use crate::check::{Findings, Repair, Terms};
use crate::reader::Reader;
use crate::run::Place;
use crate::table::Table;
use crate::two_level::Scheme;
use crate::used::Used;
use crate::{Error, StorageMut};

/// Entries of a table in memory at a time: 64 KiB.
const WINDOW: u64 = 8192;
/// Length of an entry in bytes.
const ENTRY_LEN: u64 = 8;

impl Qed {
    /// Follows both levels in QEMU's order; nothing is told but what the findings say.
    ///
    /// Either kind of repair takes out entries that lead nowhere, as in QEMU, and then says that the image needs no
    /// check any more, if nothing is left to be repaired. Of each entry a crash leaves the old or the new one.
    pub(crate) fn check<S: StorageMut>(
        storage: &mut S,
        repair: Repair,
        terms: &Terms,
    ) -> Result<Findings, Error> {
        let file_len = storage.len();
        let mut fields: Fields = Reader::new(storage).record()?;
        let clusters = fields.check(file_len)?;
        let Clusters { cluster_len, header_len, file_end, .. } = clusters;
        if repair != Repair::None && fields.autoclear_features.get() != 0 {
            fields.autoclear_features.set(0);
            storage.write_at(0, fields.as_bytes())?;
            storage.flush()?;
        }
        let mut check = Check {
            findings: Findings::default(),
            used: Used::new(terms.memory),
            l2: Table::new(0, clusters.table_len / ENTRY_LEN, WINDOW),
            clusters,
            fix: repair != Repair::None,
        };
        check.l1(storage, fields.l1_table_offset.get())?;
        let Check { mut findings, used, .. } = check;
        // Whatever is in use lies behind the header and inside the file.
        findings.leaks = (file_end.saturating_sub(header_len) / cluster_len).saturating_sub(used.count());
        findings.clusters.total = fields.image_size.get().div_ceil(cluster_len);
        let features = fields.features.get();
        if repair != Repair::None && findings.corruptions == 0 && features & FEATURE_NEED_CHECK != 0 {
            storage.flush()?;
            fields.features.set(features & !FEATURE_NEED_CHECK);
            storage.write_at(0, fields.as_bytes())?;
        }
        if repair != Repair::None {
            storage.flush()?;
        }
        Ok(findings)
    }
}

struct Check {
    clusters: Clusters,
    findings: Findings,
    /// Clusters that something refers to: tables and data.
    used: Used,
    l2: Table<U64>,
    /// Whether entries that lead nowhere are taken out.
    fix: bool,
}

impl Check {
    /// The table of the first level at `offset`, and those it leads to.
    fn l1<S: StorageMut>(&mut self, storage: &mut S, offset: u64) -> Result<(), Error> {
        self.use_table(offset)?;
        let mut l1 = Table::<U64>::new(offset, self.clusters.table_len / ENTRY_LEN, WINDOW);
        let mut index = 0;
        while index < l1.entries() {
            let in_hole = l1.in_hole(storage, index)?;
            if in_hole > 0 {
                index += in_hole;
                continue;
            }
            let entries = l1.from(storage, index)?;
            let mut kept = Kept::new(self.fix, entries);
            for (at, entry) in entries.iter().enumerate() {
                match entry.get() {
                    0 => {}
                    table if !self.clusters.is_table(table) => self.invalid(&mut kept, at),
                    // What is in use already is not followed.
                    table => {
                        if self.use_table(table)? {
                            self.l2(storage, table)?;
                        }
                    }
                }
            }
            let length = entries.len() as u64;
            kept.write(storage, offset + index * ENTRY_LEN)?;
            index += length;
        }
        Ok(())
    }

    /// The table of the second level at `offset`.
    fn l2<S: StorageMut>(&mut self, storage: &mut S, offset: u64) -> Result<(), Error> {
        self.l2.move_to(offset);
        let (mut index, mut last) = (0, None);
        while index < self.l2.entries() {
            let in_hole = self.l2.in_hole(storage, index)?;
            if in_hole > 0 {
                index += in_hole;
                continue;
            }
            let entries = self.l2.from(storage, index)?.to_vec();
            let mut kept = Kept::new(self.fix, &entries);
            for (at, entry) in entries.iter().map(|entry| entry.get()).enumerate() {
                let place = self.clusters.cluster(entry);
                if matches!(place, Place::Unallocated | Place::Zero) {
                    continue;
                }
                self.findings.clusters.allocated += 1;
                let follows =
                    last.is_none_or(|last: u64| last.wrapping_add(self.clusters.cluster_len) == entry);
                self.findings.clusters.fragmented += u64::from(!follows);
                last = Some(entry);
                if place == Place::Invalid {
                    self.invalid(&mut kept, at);
                } else {
                    self.use_clusters(entry, 1)?;
                }
            }
            kept.write(storage, offset + index * ENTRY_LEN)?;
            index += entries.len() as u64;
        }
        Ok(())
    }

    /// Counts an entry that leads nowhere.
    fn invalid(&mut self, kept: &mut Kept, at: usize) {
        if self.fix {
            self.findings.corruptions_fixed += 1;
            kept.clear(at);
        } else {
            self.findings.corruptions += 1;
        }
    }

    /// Counts the clusters of the table at `offset` as in use; whether all of them were not before.
    fn use_table(&mut self, offset: u64) -> Result<bool, Error> {
        self.use_clusters(offset, self.clusters.table_len / self.clusters.cluster_len)
    }

    fn use_clusters(&mut self, offset: u64, count: u64) -> Result<bool, Error> {
        let first = offset / self.clusters.cluster_len;
        let corruptions = self.findings.corruptions;
        for cluster in first..first + count {
            self.findings.corruptions += u64::from(!self.used.insert(cluster)?);
        }
        Ok(self.findings.corruptions == corruptions)
    }
}

/// A part of a table as it is to be kept, if it is to be changed.
struct Kept {
    entries: Vec<U64>,
    changed: bool,
}

impl Kept {
    fn new(fix: bool, entries: &[U64]) -> Self {
        Self { entries: if fix { entries.to_vec() } else { Vec::new() }, changed: false }
    }

    fn clear(&mut self, at: usize) {
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = U64::ZERO;
            self.changed = true;
        }
    }

    fn write<S: StorageMut>(&self, storage: &mut S, offset: u64) -> Result<(), Error> {
        if self.changed {
            storage.write_at(offset, self.entries.as_bytes())?;
        }
        Ok(())
    }
}
