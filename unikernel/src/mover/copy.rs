//! Copying a disk into an image, as it is.

use alloc::{collections::BTreeMap, format, rc::Rc, vec, vec::Vec};
use core::ops::Range;

use formats::{
    FileIndex, Storage, StorageError,
    write::{Place, Writer},
};
use protocol::{ErrorKind, ErrorRecord};

use super::{
    StartWrite, Terms,
    buffers::Buffers,
    pieces::{self, BUFFER, Kind, SECTOR},
    source::Source,
};
use crate::source::kind;

/// Bytes of short pieces that are written together.
const GATHERED: usize = 512 << 10;

/// A unit of the target that has a place, of which not all needs to have been written.
#[derive(Clone, Copy, Debug)]
struct Unit {
    start: u64,
    end: u64,
    place: Place,
}

impl Unit {
    /// Where a part of it is stored.
    fn part(&self, range: Range<u64>) -> Place {
        let offset = self.place.offset + (range.start - self.start);
        Place { offset, length: range.end - range.start, ..self.place }
    }
}

/// A part of a buffer and where it is to be stored.
struct Part {
    place: Place,
    /// Offset on the disk in bytes.
    start: u64,
    bytes: Range<usize>,
}

impl Part {
    /// Whether `next` is stored right behind it, and stands there in the buffer.
    fn is_followed_by(&self, next: &Self) -> bool {
        (self.place.file, self.place.offset + self.place.length) == (next.place.file, next.place.offset)
            && self.bytes.end == next.bytes.start
    }
}

/// A buffer that is being filled.
struct Gathered {
    buffer: Vec<u8>,
    /// Bytes of it that are.
    filled: usize,
    parts: Vec<Part>,
}

/// The copying of one disk, or of several into one.
pub struct Copy<'a, T> {
    target: &'a mut dyn Writer<Storage = T>,
    terms: Terms,
    buffers: Buffers,
    /// What was read and is not being written yet: short pieces are written together.
    gathered: Option<Gathered>,
    /// The last unit that was given a place.
    last: Option<Unit>,
    /// Where the last of those ends that are in each file.
    ends: BTreeMap<FileIndex, u64>,
}

impl<'a, T: StartWrite> Copy<'a, T> {
    /// Copies into `target`.
    pub fn new(target: &'a mut dyn Writer<Storage = T>, terms: Terms) -> Self {
        Self { target, terms, buffers: Buffers::default(), gathered: None, last: None, ends: BTreeMap::new() }
    }

    /// Copies all of `source`. `progress` is told how many bytes of data more are behind.
    pub fn run<S: Storage>(
        &mut self,
        source: &mut Source<'_, S>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ErrorRecord> {
        while let Some(piece) = source.next_piece()? {
            let end = piece.start + piece.length;
            match piece.kind {
                Kind::Below => {}
                Kind::Zero if !self.terms.sparse.is_none() => self.zero(source, piece.start..end)?,
                Kind::Zero | Kind::Data => {
                    for (start, length) in piece.parts() {
                        self.data(source, start, length)?;
                        progress(length as u64);
                    }
                }
            }
        }
        self.store_gathered()?;
        // Zeros at the end of the last unit need not have been stored.
        for (&file, &end) in &self.ends {
            if let Some(file) = self.target.file(file).filter(|file| file.len() < end) {
                file.set_length(end).map_err(|error| failed(source.size(), error))?;
            }
        }
        Ok(())
    }

    /// Copies the `length` bytes at `start`.
    fn data<S: Storage>(
        &mut self,
        source: &mut Source<'_, S>,
        start: u64,
        length: usize,
    ) -> Result<(), ErrorRecord> {
        if self.gathered.as_ref().is_some_and(|gathered| gathered.filled + length > GATHERED) {
            self.store_gathered()?;
        }
        let Gathered { mut buffer, filled: first, mut parts } = match self.gathered.take() {
            Some(gathered) => gathered,
            None => {
                Gathered { buffer: self.take(start, length.max(GATHERED))?, filled: 0, parts: Vec::new() }
            }
        };
        let filled = first + length;
        buffer.resize(buffer.len().max(filled), 0);
        let bytes = buffer.get_mut(first..filled).unwrap_or_default();
        source.read(start, bytes)?;
        let end = start + length as u64;
        let runs = match self.terms.sparse.is_none() {
            true => vec![(start / SECTOR, end.div_ceil(SECTOR))],
            false => pieces::runs(bytes, start / SECTOR, self.terms.sparse),
        };
        let mut behind = start;
        for (index, &(from, to)) in runs.iter().enumerate() {
            let (from, to) = (from * SECTOR, (to * SECTOR).min(end));
            self.zero(source, behind..from)?;
            // What follows the run in its last unit is stored with it, up to the next run.
            let limit = runs.get(index + 1).map_or(end, |&(next, _)| next * SECTOR);
            self.place(source, (start..limit, first), from..to, &mut parts)?;
            behind = to;
        }
        self.zero(source, behind..end)?;
        self.gathered = Some(Gathered { buffer, filled, parts });
        if filled < GATHERED { Ok(()) } else { self.store_gathered() }
    }

    /// Finds places for `run`, out of a buffer that has what is at `held` of the disk from its byte `first` on.
    fn place<S: Storage>(
        &mut self,
        source: &mut Source<'_, S>,
        (held, first): (Range<u64>, usize),
        run: Range<u64>,
        parts: &mut Vec<Part>,
    ) -> Result<(), ErrorRecord> {
        let mut from = run.start;
        while from < run.end {
            let known = self.last.filter(|unit| (unit.start..unit.end).contains(&from));
            let unit = match known {
                Some(unit) => unit,
                None => {
                    let (unit, fresh) = self.allocate(from, run.end)?;
                    let before = held.start.clamp(unit.start, from);
                    if !fresh {
                        self.pad(source, unit, unit.start..before)?;
                        self.pad(source, unit, held.end.min(unit.end)..unit.end)?;
                    }
                    from = before;
                    unit
                }
            };
            let to = held.end.min(unit.end);
            let index = |offset: u64| first + usize::try_from(offset - held.start).unwrap_or(0);
            parts.push(Part { place: unit.part(from..to), start: from, bytes: index(from)..index(to) });
            from = to;
        }
        Ok(())
    }

    /// Bytes that are written together at least.
    fn unit(&self) -> u64 {
        match self.terms.top_only {
            true => self.target.granularity(),
            false => self.target.unit(),
        }
    }

    /// Gives the units from that of `from` up to that which ends at or behind `end` a place, or the first of them; and tells
    /// whether all there reads as it should already, but for what is copied.
    fn allocate(&mut self, from: u64, end: u64) -> Result<(Unit, bool), ErrorRecord> {
        let size = self.unit();
        let start = from / size * size;
        let end = end.next_multiple_of(size).min(self.target.virtual_size());
        if end <= from {
            let message = "The source does not fit into the target";
            return Err(ErrorRecord::new(ErrorKind::Limit, message));
        }
        let place = self.target.allocate(start, end - start).map_err(|error| refused(start, &error))?;
        let unit = Unit { start, end: start + place.length, place };
        let zeros = self.target.file(place.file).is_some_and(|file| file.len() <= place.offset);
        self.last = Some(unit);
        let file_end = self.ends.entry(place.file).or_default();
        *file_end = (*file_end).max(place.offset + place.length);
        Ok((unit, zeros && !self.terms.top_only && !self.target.encrypts()))
    }

    /// Stores what is at `range` of the disk in `unit` beside what is copied.
    fn pad<S: Storage>(
        &mut self,
        source: &mut Source<'_, S>,
        unit: Unit,
        range: Range<u64>,
    ) -> Result<(), ErrorRecord> {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + BUFFER as u64);
            let length = usize::try_from(end - start).unwrap_or(0);
            let mut buffer = self.take(start, length)?;
            buffer.resize(length, 0);
            match self.terms.top_only {
                true => source.read_below(start, &mut buffer)?,
                false => buffer.fill(0),
            }
            let part = Part { place: unit.part(start..end), start, bytes: 0..buffer.len() };
            self.store(buffer, vec![part])?;
            start = end;
        }
        Ok(())
    }

    /// Makes `range` zeros in the target, if it is not so already.
    fn zero<S: Storage>(&mut self, source: &mut Source<'_, S>, range: Range<u64>) -> Result<(), ErrorRecord> {
        if self.terms.zero_already || range.is_empty() {
            return Ok(());
        }
        let size = self.unit();
        let last = match range.end == self.target.virtual_size() {
            true => range.end,
            false => range.end / size * size,
        };
        let first = range.start.next_multiple_of(size);
        if first >= last {
            return self.store_zeros(source, range);
        }
        // Parts of units are stored.
        self.store_zeros(source, range.start..first)?;
        self.target.zero(first, last - first).map_err(|error| refused(first, &error))?;
        self.store_zeros(source, last..range.end)
    }

    fn store_zeros<S: Storage>(
        &mut self,
        source: &mut Source<'_, S>,
        range: Range<u64>,
    ) -> Result<(), ErrorRecord> {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + BUFFER as u64);
            let length = usize::try_from(end - start).unwrap_or(0);
            let mut buffer = self.take(start, length)?;
            buffer.resize(length, 0);
            buffer.fill(0);
            let mut parts = Vec::new();
            self.place(source, (start..end, 0), start..end, &mut parts)?;
            self.store(buffer, parts)?;
            start = end;
        }
        Ok(())
    }

    fn take(&mut self, start: u64, length: usize) -> Result<Vec<u8>, ErrorRecord> {
        self.buffers.take(length, self.target).map_err(|error| failed(start, error))
    }

    /// Begins to write what was gathered.
    fn store_gathered(&mut self) -> Result<(), ErrorRecord> {
        match self.gathered.take() {
            Some(Gathered { buffer, parts, .. }) => self.store(buffer, parts),
            None => Ok(()),
        }
    }

    /// Begins to write the parts of a buffer.
    fn store(&mut self, mut buffer: Vec<u8>, parts: Vec<Part>) -> Result<(), ErrorRecord> {
        let Some(last) = parts.last().map(|part| part.place.file) else {
            self.buffers.give(buffer);
            return Ok(());
        };
        if self.target.encrypts() {
            for part in &parts {
                let bytes = buffer.get_mut(part.bytes.clone()).unwrap_or_default();
                self.target.encode(part.start, &part.place, bytes);
            }
        }
        let buffer = Rc::new(buffer);
        let mut parts = parts.into_iter().peekable();
        while let Some(mut part) = parts.next() {
            while let Some(next) = parts.next_if(|next| part.is_followed_by(next)) {
                part.place.length += next.place.length;
                part.bytes.end = next.bytes.end;
            }
            let started = match self.target.file(part.place.file) {
                Some(file) => file.start_write(part.place.offset, &buffer, part.bytes),
                None => Err(StorageError),
            };
            started.map_err(|error| failed(part.start, error))?;
        }
        self.buffers.give_written(last, buffer);
        Ok(())
    }
}

/// Writing at `offset` of the disk failed.
pub fn failed(offset: u64, error: StorageError) -> ErrorRecord {
    refused(offset, &error.into())
}

/// The target's tables cannot take what is at `offset` of the disk.
pub fn refused(offset: u64, error: &formats::Error) -> ErrorRecord {
    let message = format!("error while writing at byte {offset}: {error}");
    ErrorRecord { field: Some(error.field.into()), ..ErrorRecord::new(kind(error.kind), message) }
}
