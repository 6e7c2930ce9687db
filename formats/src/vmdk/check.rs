//! `qemu-img check` of VMDK images: whether every grain begins inside its file. The first that does not ends the check.

use alloc::format;
use alloc::string::String;

use zerocopy::little_endian::U32;

use super::sparse::{Grain, Sparse};
use super::{Content, LENGTH_MAX, SECTOR, Vmdk, file_sectors};
use crate::check::{Findings, Tell, Terms};
use crate::files::{Files, not_attached};
use crate::used::Used;
use crate::window::Window;
use crate::{Error, ErrorKind, FileIndex, Storage};

/// Bytes of a grain directory and of grain tables in memory at a time.
const WINDOW: usize = 64 << 10;

/// What ends the check, at a sector of the disk.
enum Fault {
    /// No place can be told.
    NoPlace(u64),
    /// The place is past the end of the file.
    AfterEnd(u64),
}

impl Vmdk {
    /// Goes from grain to grain as QEMU does: from the first sector of the disk on, a part's grain at a time, so that a
    /// part that is no multiple of its grains shifts where those of the next are looked at.
    pub(crate) fn check<S: Storage>(
        &self,
        files: &mut Files<'_, S>,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let mut sector = 0;
        for part in self.parts.iter().filter(|part| part.start < part.end) {
            let (start, end) = (part.start / SECTOR, part.end / SECTOR);
            if sector >= end {
                continue;
            }
            let fault = match &part.content {
                Content::Zero => {
                    sector += end - start;
                    continue;
                }
                Content::Unopened => return Err(not_attached(part.file)),
                Content::Flat(first) => {
                    let file_len = file_sectors(files.get(part.file)?.len()) * SECTOR;
                    let fault = (*first >= file_len).then_some(Fault::AfterEnd(sector));
                    sector += end - start;
                    fault
                }
                Content::Sparse(sparse) => {
                    let storage = files.get(part.file)?;
                    let mut walk = Walk::new(sparse, storage.len(), (start, end), terms.memory);
                    let fault = walk.fault(storage, &mut sector);
                    fault.map_err(|error| error.in_file(part.file))?
                }
            };
            match fault {
                None => {}
                Some(Fault::NoPlace(sector)) => {
                    tell(format_args!("ERROR: could not get cluster_offset for sector {sector}"));
                    return Err(failed("Operation not permitted"));
                }
                Some(Fault::AfterEnd(sector)) => {
                    tell(format_args!("ERROR: cluster offset for sector {sector} points after EOF"));
                    return Err(failed("Invalid argument"));
                }
            }
        }
        Ok(Findings::default())
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "grain table", message)
}

/// The walk over the grains of one sparse file.
struct Walk<'a> {
    sparse: &'a Sparse,
    /// Length of the file as QEMU counts it, in whole sectors.
    file_len: u64,
    /// First sector of the part, and the first behind it.
    start: u64,
    end: u64,
    directory: Window<U32>,
    tables: Window<U32>,
    /// Tables found to be all right, by the sector they start at: what leads to one again need not look again.
    intact: Used,
}

impl<'a> Walk<'a> {
    fn new(sparse: &'a Sparse, file_len: u64, (start, end): (u64, u64), memory: usize) -> Self {
        let file_len = file_sectors(file_len) * SECTOR;
        let (directory, tables) = (Window::new(WINDOW), Window::new(WINDOW));
        Self { sparse, file_len, start, end, directory, tables, intact: Used::new(memory) }
    }

    /// The first fault from `sector` on, which is moved on to what is looked at in the next part.
    fn fault<S: Storage>(&mut self, storage: &mut S, sector: &mut u64) -> Result<Option<Fault>, Error> {
        let grain_sectors = self.sparse.grain_len / SECTOR;
        while *sector < self.end {
            let grain = (*sector - self.start) / grain_sectors;
            let (index, first) = (grain / self.sparse.table_entries, grain % self.sparse.table_entries);
            if index >= self.sparse.directory_entries {
                return Ok(Some(Fault::NoPlace(*sector)));
            }
            let left = (self.end - *sector).div_ceil(grain_sectors);
            let (tables, table) = self.table(storage, index)?;
            let Some(table) = table else { return Ok(Some(Fault::NoPlace(*sector))) };
            // Of tables that are not there there may be many.
            let grains = tables.saturating_mul(self.sparse.table_entries).saturating_sub(first).min(left);
            if table != 0
                && let Some((grain, place)) = self.first_outside(storage, table, first, grains)?
            {
                let sector = *sector + grain * grain_sectors;
                return Ok(Some(if place { Fault::AfterEnd(sector) } else { Fault::NoPlace(sector) }));
            }
            *sector += grains * grain_sectors;
        }
        Ok(None)
    }

    /// How many entries of the directory from `index` on say the same, and what: the file offset of a table, 0 for
    /// none, nothing if it cannot be told. Only those that have none are counted together.
    fn table<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<(u64, Option<u64>), Error> {
        let (entries, table_len) = (self.sparse.entries, self.sparse.table_len());
        let offset = self.sparse.directory + index * entries.length();
        let count = (self.sparse.directory_entries - index) * entries.words() as u64;
        let words = self.directory.entries(storage, FileIndex::OWN, offset, count)?;
        let mut tables = words.chunks_exact(entries.words()).map(|entry| entries.table(entry, table_len));
        let first = tables.next().flatten();
        let empty = tables.take_while(|table| *table == Some(0)).count() as u64;
        Ok(match first {
            Some(0) => (1 + empty, first),
            _ => (1, first),
        })
    }

    /// The first of `count` grains of the table at `table`, from `first` on, that is not where it can be, counted from
    /// `first`, and whether it has a place at all. What is past the end of the file is zero.
    fn first_outside<S: Storage>(
        &mut self,
        storage: &mut S,
        table: u64,
        first: u64,
        count: u64,
    ) -> Result<Option<(u64, bool)>, Error> {
        let Sparse { entries, grain_len, table_entries, .. } = *self.sparse;
        if table >= self.file_len {
            return Ok(None);
        }
        if table > LENGTH_MAX {
            return Err(failed(format!("Grain table offset {table:#x} is beyond any file")));
        }
        if self.intact.contains(table / SECTOR) {
            return Ok(None);
        }
        let mut done = 0;
        while done < count {
            let offset = table + (first + done) * entries.length();
            let words = self.tables.entries(
                storage,
                FileIndex::OWN,
                offset,
                (count - done) * entries.words() as u64,
            )?;
            let mut grains = words.chunks_exact(entries.words()).map(|entry| entries.grain(entry, grain_len));
            let length = grains.len() as u64;
            let outside = |grain: &Grain| match *grain {
                Grain::Unallocated | Grain::Zero => false,
                Grain::Data(offset) | Grain::Compressed(offset) => offset >= self.file_len,
                Grain::Invalid => true,
            };
            if let Some((at, grain)) = (done..).zip(&mut grains).find(|(_, grain)| outside(grain)) {
                return Ok(Some((at, grain != Grain::Invalid)));
            }
            done += length.max(1);
        }
        if (first, count) == (0, table_entries) {
            self.intact.insert(table / SECTOR)?;
        }
        Ok(None)
    }
}
