//! Copying a disk into an image, compressed unit by unit.

use alloc::{rc::Rc, vec::Vec};
use core::ops::Range;

use formats::{
    FileIndex, Storage, StorageError,
    write::{Place, Writer},
};
use protocol::ErrorRecord;

use super::{
    StartWrite, Terms,
    buffers::Buffers,
    copy::{failed, refused},
    pieces::{BUFFER, Kind, SECTOR, is_zero},
    source::Source,
};

/// A unit on its way through a compressor.
#[derive(Debug, Default)]
pub struct Job {
    /// Offset on the disk in bytes.
    pub start: u64,
    /// The unit.
    pub input: Vec<u8>,
    /// Its stream, as long as it is; empty if it is no shorter than the unit.
    pub output: Vec<u8>,
}

/// Compresses units, several at the same time where it can.
pub trait Compressor {
    /// Whether no more jobs are taken until the oldest is taken back.
    fn is_full(&self) -> bool;

    /// Begins to compress the input of `job` into its output.
    fn submit(&mut self, job: Job);

    /// Waits for the oldest job, if there is any.
    fn oldest(&mut self) -> Option<Job>;
}

/// The compressing of a disk.
pub struct Compress<'a, T, C> {
    target: &'a mut dyn Writer<Storage = T>,
    terms: Terms,
    compressor: C,
    spare: Vec<Job>,
    output: Output,
}

impl<'a, T: StartWrite, C: Compressor> Compress<'a, T, C> {
    /// Compresses into `target` by `compressor`.
    pub fn new(target: &'a mut dyn Writer<Storage = T>, terms: Terms, compressor: C) -> Self {
        Self { target, terms, compressor, spare: Vec::new(), output: Output::default() }
    }

    /// Copies all of `source`. `progress` is told how many bytes of data more are behind.
    pub fn run<S: Storage>(
        &mut self,
        source: &mut Source<S>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ErrorRecord> {
        let (unit, size) = (self.target.unit(), source.size());
        // Up to where the units are dealt with.
        let mut done = 0;
        while let Some(piece) = source.next_piece()? {
            let piece_end = piece.start + piece.length;
            let last = piece_end == size;
            // A unit that begins in the piece and does not end in it goes with the next.
            let whole = if last { size } else { piece_end / unit * unit };
            let data = match piece.kind {
                Kind::Zero if !self.terms.sparse.is_none() => {
                    done.max(piece.start.next_multiple_of(unit).min(whole))
                }
                Kind::Below => done.max(piece.start.next_multiple_of(unit).min(whole)),
                Kind::Zero | Kind::Data if last => size,
                Kind::Zero | Kind::Data => piece_end.next_multiple_of(unit).min(size),
            };
            let mut parts = piece.parts().peekable();
            let moved = piece.kind == Kind::Data || self.terms.sparse.is_none();
            let mut behind = |position: u64| {
                while let Some((_, length)) =
                    parts.next_if(|&(start, length)| start + length as u64 <= position)
                {
                    if moved {
                        progress(length as u64);
                    }
                }
            };
            self.units(source, done..data, &mut behind)?;
            behind(piece_end);
            done = done.max(data);
            if done < whole {
                if piece.kind == Kind::Zero && !self.terms.zero_already {
                    self.drain()?;
                    self.target.zero(done, whole - done).map_err(|error| refused(done, &error))?;
                }
                done = whole;
            }
        }
        self.drain()?;
        self.output.flush(self.target)
    }

    /// Compresses the units of `range`, which begins with one. `behind` is told up to where.
    fn units<S: Storage>(
        &mut self,
        source: &mut Source<S>,
        range: Range<u64>,
        behind: &mut dyn FnMut(u64),
    ) -> Result<(), ErrorRecord> {
        let unit = self.target.unit();
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + unit);
            let mut job = self.spare.pop().unwrap_or_default();
            job.start = start;
            job.input.resize(usize::try_from(end - start).unwrap_or(0), 0);
            source.read(start, &mut job.input)?;
            if !self.terms.sparse.is_none() && is_zero(&job.input) {
                self.spare.push(job);
                if !self.terms.zero_already {
                    self.drain()?;
                    self.target.zero(start, end - start).map_err(|error| refused(start, &error))?;
                }
            } else {
                // The last unit of a disk is compressed as a whole one.
                job.input.resize(usize::try_from(unit).unwrap_or(0), 0);
                while self.compressor.is_full() {
                    self.store_oldest()?;
                }
                self.compressor.submit(job);
            }
            start = end;
            behind(start);
        }
        Ok(())
    }

    /// Stores all units that are on their way.
    fn drain(&mut self) -> Result<(), ErrorRecord> {
        while self.store_oldest()? {}
        Ok(())
    }

    /// Stores the oldest unit that is on its way, if there is any.
    fn store_oldest(&mut self) -> Result<bool, ErrorRecord> {
        let Some(mut job) = self.compressor.oldest() else { return Ok(false) };
        let start = job.start;
        let place = match job.output.is_empty() {
            true => None,
            false => self
                .target
                .allocate_compressed(start, &mut job.output)
                .map_err(|error| refused(start, &error))?,
        };
        match place {
            Some(place) => self.output.append(self.target, start, place, &job.output)?,
            None => {
                let length = (self.target.virtual_size() - start).min(job.input.len() as u64);
                let place = self.target.allocate(start, length).map_err(|error| refused(start, &error))?;
                let length = usize::try_from(length).unwrap_or(0).min(job.input.len());
                self.output.append(self.target, start, place, &job.input[..length])?;
            }
        }
        self.spare.push(job);
        Ok(true)
    }
}

/// Streams that lie one behind the other, to be written together.
#[derive(Default)]
struct Output {
    buffers: Buffers,
    /// Their bytes, with where the first of them goes and the disk offset of the unit they begin with.
    gathered: Option<(FileIndex, u64, u64, Vec<u8>)>,
}

impl Output {
    /// Adds what is to be stored at `place`.
    fn append<T: StartWrite>(
        &mut self,
        target: &mut dyn Writer<Storage = T>,
        start: u64,
        place: Place,
        bytes: &[u8],
    ) -> Result<(), ErrorRecord> {
        let fits = |gathered: &(FileIndex, u64, u64, Vec<u8>)| {
            let (file, offset, _, held) = gathered;
            *file == place.file
                && offset + held.len() as u64 == place.offset
                && held.len() + bytes.len() <= BUFFER
        };
        if !self.gathered.as_ref().is_some_and(fits) {
            self.flush(target)?;
            let buffer = self.buffers.take(0, target).map_err(|error| failed(start, error))?;
            self.gathered = Some((place.file, place.offset, start, buffer));
        }
        if let Some((.., held)) = &mut self.gathered {
            held.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Begins to write what was gathered: the sectors it fills as a whole, and the ends by themselves.
    fn flush<T: StartWrite>(&mut self, target: &mut dyn Writer<Storage = T>) -> Result<(), ErrorRecord> {
        let Some((index, offset, start, bytes)) = self.gathered.take() else { return Ok(()) };
        let length = bytes.len() as u64;
        let first = offset.next_multiple_of(SECTOR).min(offset + length);
        let last = ((offset + length) / SECTOR * SECTOR).max(first);
        let bytes = Rc::new(bytes);
        let part = |from: u64, to: u64| {
            let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            index(from)..index(to)
        };
        let written = match target.file(index) {
            Some(file) => [(offset, first), (first, last), (last, offset + length)]
                .into_iter()
                .filter(|(from, to)| from < to)
                .try_for_each(|(from, to)| file.start_write(from, &bytes, part(from, to))),
            None => Err(StorageError),
        };
        self.buffers.give_written(index, bytes);
        written.map_err(|error| failed(start, error))
    }
}
