//! `qemu-img check` of Parallels images: whether the image was closed, its clusters lie in the file, each is referred to
//! once, and nothing lies behind them.

mod duplicates;
mod repair;

use zerocopy::little_endian::U32;

use super::{Fields, MAGIC_SECTORS, Parallels, SECTOR};
use crate::check::{Findings, Release, Repair, Tell, Terms};
use crate::reader::Reader;
use crate::table::Table;
use crate::{Error, StorageMut};
use repair::Pen;

/// Entries in memory at a time: 64 KiB.
const WINDOW: u64 = 16384;
/// File offset of the BAT in bytes.
const BAT_OFFSET: u64 = size_of::<Fields>() as u64;
/// Length of an entry in bytes.
const ENTRY_LEN: u64 = 4;
/// The release from which on a cluster has to be all in the file, and where the data begins is looked at.
const STRICT: Release = Release { major: 8, minor: 1 };
/// A release from which on a cluster before the data is as one behind the file; 10.0 does not know that yet.
const BOUNDED: Release = Release { major: 11, minor: 0 };

impl Parallels {
    /// Looks at one thing after the other, in QEMU's order. Leaks are cut off at the end of the file; any other fault is
    /// repaired if all is to be.
    pub(crate) fn check<S: StorageMut>(
        storage: &mut S,
        repair: Repair,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let fields: Fields = Reader::new(storage).record()?;
        let geometry = Geometry::new(storage, &fields)?;
        let strict = terms.release >= STRICT;
        let pen = Pen::new(repair, fields.is_in_use());
        let bounded = terms.release >= BOUNDED;
        let mut check = Check { geometry, strict, bounded, pen, findings: Findings::default(), tell };
        check.closed();
        if strict {
            check.data_offset(storage)?;
        }
        check.outside(storage)?;
        check.leaks(storage)?;
        if strict {
            check.duplicates(storage, terms.memory)?;
        }
        check.count(storage)?;
        let Check { pen, findings, .. } = check;
        pen.finish(storage, &findings)?;
        Ok(findings)
    }
}

/// What the header says, in bytes.
struct Geometry {
    cluster_len: u64,
    /// What an entry counts.
    unit: u64,
    /// Entries of the BAT.
    entries: u64,
    /// Length of the file in whole sectors, as QEMU counts it.
    file_len: u64,
    /// Where the first cluster is, or where it has to be if the header is wrong about it.
    data_start: u64,
    is_data_offset_wrong: bool,
    /// Where all that is known to be no cluster ends.
    metadata_end: u64,
}

impl Geometry {
    fn new<S: StorageMut>(storage: &S, fields: &Fields) -> Result<Self, Error> {
        let entries = fields.check()?;
        let cluster_len = u64::from(fields.tracks.get()) * SECTOR;
        let in_sectors = fields.magic == *MAGIC_SECTORS;
        let file_len = storage.len().next_multiple_of(SECTOR);
        let unit = if in_sectors { SECTOR } else { cluster_len };
        let bat_end = BAT_OFFSET + ENTRY_LEN * entries;
        let least = {
            // QEMU rounds as if a cluster were a power of two.
            let (sectors, tracks) = (bat_end.div_ceil(SECTOR), unit / SECTOR);
            ((sectors + tracks - 1) & tracks.wrapping_neg()) * SECTOR
        };
        let said = u64::from(fields.data_off.get()) * SECTOR;
        let (data_start, is_data_offset_wrong) = match said {
            0 if in_sectors => (least, false),
            said if said < least || said > file_len => (bat_end.next_multiple_of(unit), true),
            said => (said, false),
        };
        let metadata_end = match fields.ext_off.get() {
            0 => bat_end,
            sectors => bat_end.max(sectors.saturating_mul(SECTOR).saturating_add(cluster_len)),
        };
        Ok(Self { cluster_len, unit, entries, file_len, data_start, is_data_offset_wrong, metadata_end })
    }

    fn offset(&self, entry: U32) -> u64 {
        // 2^32 clusters of less than 2^31 bytes.
        u64::from(entry.get()) * self.unit
    }

    fn bat(&self) -> Table<U32> {
        Table::new(BAT_OFFSET, self.entries, WINDOW)
    }

    /// Whether a part of a cluster at `offset` is in the file, and a part of it is not.
    fn is_cut(&self, offset: u64) -> bool {
        offset != 0 && offset < self.file_len && offset + self.cluster_len > self.file_len
    }
}

struct Check<'a, 'b> {
    geometry: Geometry,
    strict: bool,
    bounded: bool,
    pen: Pen,
    findings: Findings,
    tell: &'a mut Tell<'b>,
}

/// What a line about a fault begins with.
fn verb(fixed: bool) -> &'static str {
    if fixed { "Repairing" } else { "ERROR" }
}

impl Check<'_, '_> {
    fn closed(&mut self) {
        if self.pen.was_in_use() {
            (self.tell)(format_args!("{} image was not closed correctly", verb(self.pen.all())));
            self.corrupt(self.pen.all());
        }
    }

    fn corrupt(&mut self, fixed: bool) {
        self.findings.corruptions += 1;
        self.findings.corruptions_fixed += u64::from(fixed);
    }

    fn data_offset<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        if !self.geometry.is_data_offset_wrong {
            return Ok(());
        }
        let fixed = self.pen.all();
        if fixed {
            self.pen.write_data_offset(storage, self.geometry.data_start)?;
        }
        self.corrupt(fixed);
        (self.tell)(format_args!("{} data_off field has incorrect value", verb(fixed)));
        Ok(())
    }

    /// Clusters that are not in the file, and where the image ends.
    fn outside<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        let (cluster_len, file_len) = (self.geometry.cluster_len, self.geometry.file_len);
        let all = self.pen.all();
        let (mut highest, mut end) = (0, self.geometry.data_start);
        let mut bat = self.geometry.bat();
        let mut start = 0;
        // Even an entry that is empty is outside of a file that is shorter than a cluster.
        let empty_is_outside = self.strict && !self.bounded && cluster_len > file_len;
        if self.geometry.entries > 0 && !self.bounded {
            end = end.max(cluster_len);
        }
        while start < bat.entries() {
            let in_hole = if empty_is_outside { 0 } else { bat.in_hole(storage, start)? };
            if in_hole > 0 {
                start += in_hole;
                continue;
            }
            let mut entries = bat.from(storage, start)?.to_vec();
            let mut changed = false;
            for (index, entry) in (start..).zip(&mut entries) {
                let offset = self.geometry.offset(*entry);
                let before = self.bounded && offset < self.geometry.data_start;
                let outside = match self.strict {
                    true => offset + cluster_len > file_len,
                    false => offset > file_len,
                };
                if self.bounded && offset == 0 {
                    continue;
                }
                if !self.bounded {
                    end = end.max(offset + cluster_len);
                }
                if before {
                    // It may be what the header says of the data that is wrong.
                    (self.tell)(format_args!("ERROR cluster {index} is outside image"));
                    self.corrupt(false);
                    continue;
                }
                if outside {
                    let verb = verb(all);
                    (self.tell)(format_args!("{verb} cluster {index} is outside image"));
                    self.corrupt(all);
                    if self.geometry.is_cut(offset) && self.strict {
                        // What is there of it is kept: the file is made longer.
                        self.pen.keep(offset + cluster_len);
                        if all {
                            highest = highest.max(offset);
                        }
                        continue;
                    }
                    if all {
                        *entry = U32::ZERO;
                        changed = true;
                    }
                    if all || self.strict {
                        continue;
                    }
                }
                highest = highest.max(offset);
            }
            if changed {
                self.pen.write_entries(storage, start, &entries)?;
            }
            start += entries.len() as u64;
        }
        if all {
            self.pen.extend(storage)?;
        }
        self.findings.image_end_offset = match highest {
            0 if self.strict => end,
            highest => highest + cluster_len,
        };
        Ok(())
    }

    fn leaks<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        let (size, end) = (storage.len().next_multiple_of(SECTOR), self.findings.image_end_offset);
        if size <= end {
            return Ok(());
        }
        let count = (size - end).div_ceil(self.geometry.cluster_len);
        let floor = self.geometry.metadata_end.max(self.geometry.data_start);
        let fixed = self.pen.may_cut(end, floor);
        (self.tell)(format_args!("{} space leaked at the end of the image {}", verb(fixed), size - end));
        self.findings.leaks += count;
        if fixed {
            self.pen.cut(storage, end)?;
            self.findings.leaks_fixed += count;
        }
        Ok(())
    }

    /// How the clusters of the disk are stored.
    fn count<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        let (cluster_len, end) = (self.geometry.cluster_len, self.findings.image_end_offset);
        self.findings.clusters.total = self.geometry.entries;
        let mut last = 0;
        let (strict, counts) = (self.strict, &mut self.findings.clusters);
        let mut bat = self.geometry.bat();
        let mut start = 0;
        while start < bat.entries() {
            let in_hole = bat.in_hole(storage, start)?;
            if in_hole > 0 {
                (start, last) = (start + in_hole, 0);
                continue;
            }
            let entries = bat.from(storage, start)?;
            for offset in entries.iter().map(|entry| self.geometry.offset(*entry)) {
                if offset == 0 || strict && offset + cluster_len > end {
                    last = 0;
                    continue;
                }
                counts.fragmented += u64::from(last != 0 && last + cluster_len != offset);
                counts.allocated += 1;
                last = offset;
            }
            start += entries.len() as u64;
        }
        Ok(())
    }
}
