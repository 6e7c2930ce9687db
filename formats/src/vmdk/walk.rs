//! From virtual offsets to extents.

use alloc::format;
use alloc::string::String;

use zerocopy::little_endian::U32;

use super::sparse::{Grain, Sparse};
use super::{Content, Part, SECTOR, file_sectors};
use crate::files::{Files, not_attached};
use crate::scan::{Scan, Verdict};
use crate::window::Window;
use crate::{Error, ErrorKind, Extent, ExtentKind, FileIndex, Regions, Storage};

/// Bytes of a grain directory in memory at a time. One may be 256 MiB long.
const DIRECTORY_WINDOW: usize = 64 << 10;
/// Bytes of grain tables in memory at a time: those of one file are mostly neighbours, and 2 KiB long.
const TABLES_WINDOW: usize = 64 << 10;

/// The state of a walk over the mapping.
#[derive(Debug)]
pub(super) struct Walk {
    directory: Window<U32>,
    tables: Window<U32>,
    /// The last run found in a sparse file. Whoever follows several images at once asks for it piece by piece.
    last: Option<Extent>,
    /// The grain table at hand: its file, the index of its directory entry, its file offset.
    table: Option<(FileIndex, u64, u64)>,
    /// The grain tables that were looked through in one file.
    scan: (FileIndex, Scan),
    /// The flat file that was asked for holes last.
    flat: FileIndex,
    regions: Regions,
}

/// Where in a sparse file something is asked for.
#[derive(Clone, Copy)]
struct Place {
    file: FileIndex,
    /// Virtual offset in bytes, from the start of the disk and from that of the part.
    offset: u64,
    within: u64,
    /// Virtual offset of the end of the part.
    end: u64,
}

fn corrupt(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, field, message)
}

impl Walk {
    pub(super) fn new() -> Self {
        Self {
            directory: Window::new(DIRECTORY_WINDOW),
            tables: Window::new(TABLES_WINDOW),
            last: None,
            table: None,
            scan: (FileIndex::OWN, Scan::default()),
            flat: FileIndex::OWN,
            regions: Regions::default(),
        }
    }

    /// `offset` is below the end of the last part.
    pub(super) fn extent_at<S: Storage>(
        &mut self,
        files: &mut Files<'_, S>,
        parts: &mut [Part],
        offset: u64,
    ) -> Result<Extent, Error> {
        if let Some(extent) = self.last.and_then(|last| last.part_from(offset)) {
            return Ok(extent);
        }
        let index = parts.partition_point(|part| part.end <= offset);
        let Some(part) = parts.get_mut(index) else {
            return Err(corrupt("offset", "Offset is beyond the end of the virtual disk"));
        };
        let place = Place { file: part.file, offset, within: offset - part.start, end: part.end };
        let extent = match &mut part.content {
            Content::Zero => {
                return Ok(Extent::own(offset, place.end - offset, ExtentKind::Zero { offset: None }));
            }
            Content::Unopened => return Err(not_attached(place.file)),
            Content::Flat(first) => return self.flat_at(files.get(place.file)?, place, *first),
            Content::Sparse(sparse) => self
                .sparse_at(files.get(place.file)?, sparse, place)
                .map_err(|error| error.in_file(place.file))?,
        };
        self.last = Some(extent);
        Ok(extent)
    }

    /// A flat file is as long as it is: holes and what lies past its end are zeros.
    fn flat_at<S: Storage>(&mut self, storage: &mut S, place: Place, first: u64) -> Result<Extent, Error> {
        if self.flat != place.file {
            self.regions = Regions::default();
            self.flat = place.file;
        }
        let offset = first + place.within;
        let run = self
            .regions
            .at(storage, offset, place.end - place.offset)
            .map_err(|error| Error::from(error).in_file(place.file))?;
        let kind = if run.zero { ExtentKind::Hole { offset } } else { ExtentKind::Data { offset } };
        Ok(Extent { start: place.offset, length: run.length, kind, file: place.file })
    }

    fn sparse_at<S: Storage>(
        &mut self,
        storage: &mut S,
        sparse: &mut Sparse,
        place: Place,
    ) -> Result<Extent, Error> {
        let coverage = sparse.coverage();
        let index = place.within / coverage;
        let table = match self.table {
            Some((file, at, table)) if (file, at) == (place.file, index) => table,
            _ => {
                if !sparse.checked {
                    self.check(storage, sparse, place.file)?;
                    sparse.checked = true;
                }
                let table = self.table_at(storage, sparse, place.file, index)?;
                if table == 0 {
                    let next = self.skip_empty(storage, sparse, place.file, index)?;
                    let end = next.saturating_mul(coverage).saturating_sub(place.within);
                    let length = end.min(place.end - place.offset);
                    let kind = ExtentKind::Unallocated { offset: None };
                    return Ok(Extent::own(place.offset, length, kind));
                }
                if self.scan.0 != place.file {
                    self.scan = (place.file, Scan::default());
                }
                match self.scan.1.table(storage, index, table, sparse.table_len())? {
                    Verdict::Read => {}
                    Verdict::Hole => {
                        let end = (index + 1).saturating_mul(coverage).saturating_sub(place.within);
                        let length = end.min(place.end - place.offset);
                        return Ok(Extent::own(
                            place.offset,
                            length,
                            ExtentKind::Unallocated { offset: None },
                        ));
                    }
                    Verdict::TooMany => {
                        return Err(corrupt("grain directory", "Grain tables are used more than once"));
                    }
                }
                self.table = Some((place.file, index, table));
                table
            }
        };
        self.run_at(storage, sparse, place, table)
    }

    /// What must hold before the directory is followed: that it lies inside the file, and that there can be as many
    /// tables as it points to. This is what bounds a walk by the file's length.
    fn check<S: Storage>(&mut self, storage: &mut S, sparse: &Sparse, file: FileIndex) -> Result<(), Error> {
        let end = sparse.directory + sparse.directory_entries * sparse.entries.length();
        if end > file_sectors(storage.len()) * SECTOR {
            return Err(corrupt("grain directory", "Grain directory lies beyond the end of the file"));
        }
        if sparse.directory == 0 {
            return Err(corrupt("grain directory", "Grain directory overlaps the header"));
        }
        let tables_max = sparse.tables_max(storage.len());
        if sparse.directory_entries <= tables_max {
            return Ok(());
        }
        let (mut index, mut tables) = (0, 0);
        while index < sparse.directory_entries {
            let words = self.directory_from(storage, sparse, file, index)?;
            let entries = words.chunks_exact(sparse.entries.words());
            index += (entries.len() as u64).max(1);
            tables += entries.filter(|entry| entry.iter().any(|word| word.get() != 0)).count() as u64;
            if tables > tables_max {
                let message = "Grain directory has more entries than the file has room for tables";
                return Err(corrupt("grain directory", message));
            }
        }
        Ok(())
    }

    /// The words of the directory from entry `index` to the end of the window.
    fn directory_from<S: Storage>(
        &mut self,
        storage: &mut S,
        sparse: &Sparse,
        file: FileIndex,
        index: u64,
    ) -> Result<&[U32], Error> {
        let offset = sparse.directory + index * sparse.entries.length();
        let count = (sparse.directory_entries - index) * sparse.entries.words() as u64;
        Ok(self.directory.entries(storage, file, offset, count)?)
    }

    /// File offset of the table that entry `index` points to; 0 if there is none.
    fn table_at<S: Storage>(
        &mut self,
        storage: &mut S,
        sparse: &Sparse,
        file: FileIndex,
        index: u64,
    ) -> Result<u64, Error> {
        if index >= sparse.directory_entries {
            return Err(corrupt("grain directory", "Grain directory ends before the disk does"));
        }
        let (entries, table_len) = (sparse.entries, sparse.table_len());
        let words = self.directory_from(storage, sparse, file, index)?;
        let entry = words.get(..entries.words()).unwrap_or(words);
        let Some(table) = entries.table(entry, table_len) else {
            let message = format!("Invalid grain directory entry (index: {index})");
            return Err(corrupt("grain directory", message));
        };
        let place = |what| {
            corrupt("grain directory", format!("Grain table offset {table:#x} {what} (index: {index})"))
        };
        if table == 0 {
            return Ok(0);
        }
        if table.saturating_add(table_len) > file_sectors(storage.len()) * SECTOR {
            return Err(place("beyond the end of the file"));
        }
        let directory_end = sparse.directory + sparse.directory_entries * entries.length();
        if (sparse.directory..directory_end).contains(&table) {
            return Err(place("inside the grain directory"));
        }
        Ok(table)
    }

    /// Index of the first entry after `index`, which is empty, that is not; or the number of entries.
    fn skip_empty<S: Storage>(
        &mut self,
        storage: &mut S,
        sparse: &Sparse,
        file: FileIndex,
        mut index: u64,
    ) -> Result<u64, Error> {
        let table_len = sparse.table_len();
        while index < sparse.directory_entries {
            let words = self.directory_from(storage, sparse, file, index)?;
            let mut entries = words.chunks_exact(sparse.entries.words());
            let length = entries.len() as u64;
            match entries.position(|entry| sparse.entries.table(entry, table_len) != Some(0)) {
                Some(position) => return Ok(index + position as u64),
                None => index += length.max(1),
            }
        }
        Ok(index)
    }

    /// The run at `place` by the grain table at `table`.
    fn run_at<S: Storage>(
        &mut self,
        storage: &mut S,
        sparse: &Sparse,
        place: Place,
        table: u64,
    ) -> Result<Extent, Error> {
        let (grain_len, entries) = (sparse.grain_len, sparse.entries);
        let index = place.within % sparse.coverage() / grain_len;
        let skip = place.within % grain_len;
        let offset = table + index * entries.length();
        let count = (sparse.table_entries - index) * entries.words() as u64;
        let words = self.tables.entries(storage, place.file, offset, count)?;

        let mut decoded = words.chunks_exact(entries.words()).map(|entry| entries.grain(entry, grain_len));
        let grain = decoded.next().unwrap_or(Grain::Invalid);
        let mut run = grain_len;
        for next in decoded {
            if grain.advanced(run) != Some(next) {
                break;
            }
            run += grain_len;
        }
        let length = (run - skip).min(place.end - place.offset);
        let kind = match grain {
            Grain::Unallocated => ExtentKind::Unallocated { offset: None },
            Grain::Zero => ExtentKind::Zero { offset: None },
            Grain::Data(offset) => ExtentKind::Data { offset: offset + skip },
            Grain::Compressed(offset) => {
                let marker_len = sparse.marker_len();
                ExtentKind::Compressed { offset: offset + marker_len, length: 2 * grain_len - marker_len }
            }
            Grain::Invalid => {
                let message = format!("Invalid grain table entry (table: {table:#x}, index: {index})");
                return Err(corrupt("grain table", message));
            }
        };
        let file = match kind {
            ExtentKind::Data { .. } | ExtentKind::Compressed { .. } => place.file,
            _ => FileIndex::OWN,
        };
        Ok(Extent { start: place.offset, length, kind, file })
    }
}
