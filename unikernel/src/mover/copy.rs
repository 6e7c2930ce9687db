//! Copying a disk into an image, as it is.

use alloc::{format, rc::Rc, vec, vec::Vec};
use core::ops::Range;

use formats::{
    Chain, Storage, StorageError,
    write::{Place, Writer},
};
use protocol::{ErrorKind, ErrorRecord};

use super::{
    StartWrite, Terms,
    buffers::Buffers,
    pieces::{self, BUFFER, Kind, Pieces, SECTOR},
};
use crate::source::kind;

/// Bytes that are written in one go where zeros are stored.
const ZEROS: usize = 64 << 10;

/// A unit of the target that has a place, of which not all needs to have been written.
#[derive(Clone, Copy, Debug)]
struct Unit {
    start: u64,
    end: u64,
    place: Place,
}

/// A part of a buffer and where it is to be stored.
struct Part {
    place: Place,
    /// Offset on the disk in bytes.
    start: u64,
    bytes: Range<usize>,
}

/// The copying of one disk, or of several into one.
pub struct Copy<'a, T> {
    target: &'a mut dyn Writer<Storage = T>,
    terms: Terms,
    buffers: Buffers,
    /// The last unit that was given a place.
    last: Option<Unit>,
}

impl<'a, T: StartWrite> Copy<'a, T> {
    /// Copies into `target`.
    pub fn new(target: &'a mut dyn Writer<Storage = T>, terms: Terms) -> Self {
        Self { target, terms, buffers: Buffers::default(), last: None }
    }

    /// Copies the disk of `source` to the place of the target's disk that begins at `base`, a multiple of a sector. `progress` is
    /// told how many bytes of the disk are behind.
    pub fn disk<S: Storage>(
        &mut self,
        source: &mut Chain<S>,
        base: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ErrorRecord> {
        let mut pieces = Pieces::new(source, self.terms.top_only);
        while let Some(piece) = pieces.next(source)? {
            match piece.kind {
                Kind::Below => {}
                Kind::Zero if !self.terms.sparse.is_none() => {
                    self.zero(source, base, piece.start..piece.start + piece.length)?;
                }
                Kind::Zero | Kind::Data => {
                    for (start, length) in piece.parts() {
                        self.data(source, base, start, length)?;
                        progress(start + length as u64);
                    }
                }
            }
            progress(piece.start + piece.length);
        }
        Ok(())
    }

    /// Copies the `length` bytes at `start` of the source.
    fn data<S: Storage>(
        &mut self,
        source: &mut Chain<S>,
        base: u64,
        start: u64,
        length: usize,
    ) -> Result<(), ErrorRecord> {
        let mut buffer =
            self.buffers.take(length, self.target).map_err(|error| self.failed(base + start, error))?;
        self.terms.read(source, start, &mut buffer)?;
        let end = start + length as u64;
        let runs = match self.terms.sparse.is_none() {
            true => vec![(start / SECTOR, end.div_ceil(SECTOR))],
            false => pieces::runs(&buffer, start / SECTOR, self.terms.sparse),
        };
        let mut parts = Vec::new();
        let mut behind = start;
        for (index, &(from, to)) in runs.iter().enumerate() {
            let (from, to) = (from * SECTOR, (to * SECTOR).min(end));
            self.zero(source, base, behind..from)?;
            // What follows the run in its last unit is stored with it, up to the next run.
            let limit = runs.get(index + 1).map_or(end, |&(next, _)| next * SECTOR);
            self.place(source, base, (start, limit), from..to, &mut parts)?;
            behind = to;
        }
        self.zero(source, base, behind..end)?;
        self.store(buffer, parts)
    }

    /// Finds places for `run` of the source, out of a buffer that holds what is from `held.0` up to `held.1`.
    fn place<S: Storage>(
        &mut self,
        source: &mut Chain<S>,
        base: u64,
        held: (u64, u64),
        run: Range<u64>,
        parts: &mut Vec<Part>,
    ) -> Result<(), ErrorRecord> {
        let first = held.0;
        let mut part = |unit: Unit, range: Range<u64>| {
            let skip = range.start + base - unit.start;
            let place =
                Place { offset: unit.place.offset + skip, length: range.end - range.start, ..unit.place };
            let index = |offset: u64| usize::try_from(offset - first).unwrap_or(usize::MAX);
            parts.push(Part {
                place,
                start: range.start + base,
                bytes: index(range.start)..index(range.end),
            });
        };
        let mut from = run.start;
        while from < run.end {
            if let Some(unit) = self.last.filter(|unit| (unit.start..unit.end).contains(&(from + base))) {
                let to = held.1.min(unit.end - base);
                part(unit, from..to);
                from = to;
                continue;
            }
            let size = self.target.unit();
            let start = (from + base) / size * size;
            let end = (run.end + base).next_multiple_of(size).min(self.target.virtual_size());
            if end <= start {
                let message = "The source does not fit into the target";
                return Err(ErrorRecord::new(ErrorKind::Limit, message));
            }
            let place =
                self.target.allocate(start, end - start).map_err(|error| self.refused(start, &error))?;
            let unit = Unit { start, end: start + place.length, place };
            let fresh = !self.target.encrypts()
                && self.target.file(place.file).is_some_and(|file| file.len() <= place.offset);
            self.last = Some(unit);
            let to = held.1.min(unit.end - base);
            let held_from = held.0.max(start.saturating_sub(base));
            // In front of what is held, and behind it.
            if start < held_from + base && (!fresh || self.terms.top_only) {
                self.pad(source, base, unit, start..held_from + base)?;
            }
            part(unit, held_from..to);
            if to + base < unit.end && (!fresh || self.terms.top_only) {
                self.pad(source, base, unit, to + base..unit.end)?;
            }
            from = to;
        }
        Ok(())
    }

    /// Stores what is at `range` of the disk in `unit` beside what is copied: zeros, or what the images below hold.
    fn pad<S: Storage>(
        &mut self,
        source: &mut Chain<S>,
        base: u64,
        unit: Unit,
        range: Range<u64>,
    ) -> Result<(), ErrorRecord> {
        let mut bytes = vec![0; ZEROS];
        let mut start = range.start;
        while start < range.end {
            let length = usize::try_from(range.end - start).unwrap_or(ZEROS).min(ZEROS);
            let bytes = &mut bytes[..length];
            bytes.fill(0);
            let inside = source.virtual_size().saturating_sub(start.saturating_sub(base));
            if self.terms.top_only && start >= base && inside > 0 {
                let inside = usize::try_from(inside).unwrap_or(length).min(length);
                self.terms.read(source, start - base, &mut bytes[..inside])?;
            }
            let place = Place {
                offset: unit.place.offset + (start - unit.start),
                length: length as u64,
                ..unit.place
            };
            self.target.encode(start, &place, bytes);
            let written = match self.target.file(place.file) {
                Some(file) => file.write_at(place.offset, bytes),
                None => Err(StorageError),
            };
            written.map_err(|error| self.failed(start, error))?;
            start += length as u64;
        }
        Ok(())
    }

    /// Makes `range` of the source zeros in the target, if it is not so already.
    fn zero<S: Storage>(
        &mut self,
        source: &mut Chain<S>,
        base: u64,
        range: Range<u64>,
    ) -> Result<(), ErrorRecord> {
        if self.terms.zero_already || range.is_empty() {
            return Ok(());
        }
        let (start, end) = (range.start + base, range.end + base);
        let size = self.target.unit();
        let last = match end == self.target.virtual_size() {
            true => end,
            false => end / size * size,
        };
        let first = start.next_multiple_of(size).min(last.max(start));
        if first < last {
            self.target.zero(first, last - first).map_err(|error| self.refused(first, &error))?;
        }
        // Parts of units are stored.
        let edges = if first < last { [start..first, last..end] } else { [start..end, end..end] };
        for edge in edges {
            let mut from = edge.start;
            while from < edge.end {
                let to = edge.end.min(from + BUFFER as u64);
                let length = usize::try_from(to - from).unwrap_or(0);
                let mut buffer =
                    self.buffers.take(length, self.target).map_err(|error| self.failed(from, error))?;
                buffer.fill(0);
                let mut parts = Vec::new();
                self.place(source, base, (from - base, to - base), from - base..to - base, &mut parts)?;
                self.store(buffer, parts)?;
                from = to;
            }
        }
        Ok(())
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
        for Part { place, start, bytes } in parts {
            let started = match self.target.file(place.file) {
                Some(file) => file.start_write(place.offset, &buffer, bytes),
                None => Err(StorageError),
            };
            started.map_err(|error| self.failed(start, error))?;
        }
        self.buffers.give_written(last, buffer);
        Ok(())
    }

    fn failed(&self, offset: u64, error: StorageError) -> ErrorRecord {
        self.refused(offset, &error.into())
    }

    fn refused(&self, offset: u64, error: &formats::Error) -> ErrorRecord {
        let message = format!("error while writing at byte {offset}: {error}");
        ErrorRecord { field: Some(error.field.into()), ..ErrorRecord::new(kind(error.kind), message) }
    }
}
