//! Copying a disk into an image, compressed unit by unit.

use alloc::{collections::VecDeque, rc::Rc, vec::Vec};
use core::ops::Range;

use codecs::Method;
use formats::{
    Codec, FileIndex, Storage, StorageError,
    write::{Place, Writer},
};
use protocol::ErrorRecord;

use super::{
    StartWrite, Terms,
    buffers::Buffers,
    copy::{failed, refused},
    pieces::{Kind, SECTOR, is_zero},
    source::Source,
};
use crate::workers::{Done, Job, Pool, Task};

/// Bytes that are read at once, where units are small.
const READ: u64 = 1 << 20;

/// Bytes of streams that are written at once, where they are small.
const WRITTEN: usize = 256 << 10;

/// Bytes of units that are on their way together, where these are small.
const ON_THEIR_WAY: u64 = 1 << 20;

/// What `codec` asks of an encoder; nothing where there is none.
pub fn method(codec: Codec) -> Option<Method> {
    match codec {
        Codec::Deflate => Some(Method::Deflate),
        Codec::Zlib => Some(Method::Zlib),
        Codec::Zstd => Some(Method::Zstd),
        Codec::Bzip2 | Codec::Lzfse => None,
    }
}

/// Bytes that the stream of a unit of `length` bytes may have: fewer than the unit, but for the method that stores all as
/// streams. Those can be longer: by five bytes for each 16 KiB that deflate stores as they are, and the ends.
fn room(method: Method, length: usize) -> usize {
    match method {
        Method::Deflate | Method::Zstd => length.saturating_sub(1),
        Method::Zlib => length + length / 1024 + 64,
    }
}

/// The compressing of a disk.
pub struct Compress<'a, T> {
    target: &'a mut dyn Writer<Storage = T>,
    terms: Terms,
    method: Method,
    pool: Pool,
    /// Offsets on the disk of the units that are in the pool, the oldest first.
    submitted: VecDeque<u64>,
    /// Buffers to be used again: of units, of streams.
    spare: Vec<(Vec<u8>, Vec<u8>)>,
    /// What was read last.
    read: Vec<u8>,
    output: Output,
}

impl<'a, T: StartWrite> Compress<'a, T> {
    /// Compresses into `target` by `method`.
    pub fn new(target: &'a mut dyn Writer<Storage = T>, terms: Terms, method: Method) -> Self {
        let slots = usize::try_from(ON_THEIR_WAY / target.unit()).unwrap_or(1);
        // At least one for each processor of a small machine, and one to be read.
        let pool = Pool::new(&[Task::Encode(method)], slots.max(3));
        Self {
            target,
            terms,
            method,
            pool,
            submitted: VecDeque::new(),
            spare: Vec::new(),
            read: Vec::new(),
            output: Output::new(),
        }
    }

    /// Copies all of `source`. `progress` is told how many bytes of data more are behind.
    pub fn run<S: Storage>(
        &mut self,
        source: &mut Source<'_, S>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ErrorRecord> {
        let (unit, size) = (self.target.unit(), source.end());
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
            let moved = piece.kind == Kind::Data || self.terms.sparse.is_none();
            let mut told = piece.start;
            let mut behind = |position: u64| {
                while told < position.min(piece_end) {
                    let next = piece_end.min(told + unit);
                    if moved {
                        progress(next - told);
                    }
                    told = next;
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
        source: &mut Source<'_, S>,
        range: Range<u64>,
        behind: &mut dyn FnMut(u64),
    ) -> Result<(), ErrorRecord> {
        let unit = self.target.unit();
        let at_once = (READ / unit).max(1) * unit;
        let mut bytes = core::mem::take(&mut self.read);
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + at_once);
            bytes.resize(usize::try_from(end - start).unwrap_or(0), 0);
            source.read(start, &mut bytes)?;
            for unit_bytes in bytes.chunks(usize::try_from(unit).unwrap_or(1)) {
                self.unit(start, unit_bytes)?;
                start += unit_bytes.len() as u64;
            }
            behind(start);
        }
        self.read = bytes;
        Ok(())
    }

    /// Compresses the unit at `start`.
    fn unit(&mut self, start: u64, bytes: &[u8]) -> Result<(), ErrorRecord> {
        if !self.terms.sparse.is_none() && is_zero(bytes) {
            if !self.terms.zero_already {
                self.drain()?;
                let length = bytes.len() as u64;
                self.target.zero(start, length).map_err(|error| refused(start, &error))?;
            }
            return Ok(());
        }
        // The last unit of a disk is compressed as a whole one.
        let length = usize::try_from(self.target.unit()).unwrap_or(0);
        let (mut input, mut output) = self.spare.pop().unwrap_or_default();
        input.clear();
        input.extend_from_slice(bytes);
        input.resize(length, 0);
        output.resize(room(self.method, length), 0);
        let mut job = Job { task: Task::Encode(self.method), input, output };
        while let Err(refused) = self.pool.submit(job) {
            job = refused;
            self.store_oldest()?;
        }
        self.submitted.push_back(start);
        Ok(())
    }

    /// Stores all units that are on their way.
    fn drain(&mut self) -> Result<(), ErrorRecord> {
        while self.store_oldest()? {}
        Ok(())
    }

    /// Stores the oldest unit that is on its way, if there is any.
    fn store_oldest(&mut self) -> Result<bool, ErrorRecord> {
        let (Some(start), Some(Done { job, length })) = (self.submitted.pop_front(), self.pool.take()) else {
            return Ok(false);
        };
        let Job { input, output: mut stream, .. } = job;
        stream.truncate(length.unwrap_or(0));
        let place = match length {
            Some(_) => self.target.allocate_compressed(start, &mut stream),
            None => Ok(None),
        };
        match place.map_err(|error| refused(start, &error))? {
            Some(place) => self.output.append(self.target, start, place, &stream)?,
            None => {
                let length = (self.target.virtual_size() - start).min(input.len() as u64);
                let place = self.target.allocate(start, length).map_err(|error| refused(start, &error))?;
                let bytes = input.get(..usize::try_from(length).unwrap_or(0)).unwrap_or(&input);
                self.output.append(self.target, start, place, bytes)?;
            }
        }
        self.spare.push((input, stream));
        Ok(true)
    }
}

/// Streams that lie one behind the other, to be written together.
struct Output {
    buffers: Buffers,
    /// Their bytes, with where the first of them goes and the disk offset of the unit they begin with.
    gathered: Option<(FileIndex, u64, u64, Vec<u8>)>,
}

impl Output {
    fn new() -> Self {
        Self { buffers: Buffers::default(), gathered: None }
    }

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
                && held.len() + bytes.len() <= WRITTEN
        };
        if !self.gathered.as_ref().is_some_and(fits) {
            self.flush(target)?;
            let mut buffer = self.buffers.take(WRITTEN, target).map_err(|error| failed(start, error))?;
            buffer.clear();
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
