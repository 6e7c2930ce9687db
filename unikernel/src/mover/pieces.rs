//! How `qemu-img convert` goes over a disk: in which pieces it asks, and which runs of what it reads it writes.
//!
//! Where a cluster comes to lie can depend on it.

use alloc::{borrow::ToOwned, format, vec, vec::Vec};
use core::ops::Range;

use formats::{Chain, ChainError, ExtentKind, Mapping, Storage};
use protocol::ErrorRecord;

use super::{answer::answer_at, salvage::Salvage};
use crate::source::kind;

/// Unit of zeros, reads and writes, in bytes.
pub const SECTOR: u64 = 512;
/// Most bytes that are read at once (`IO_BUF_SIZE`).
pub const BUFFER: usize = 2 << 20;
/// Most bytes that one question about an image covers (`BDRV_REQUEST_MAX_BYTES`).
const MAX_REQUEST: u64 = (1 << 31) - SECTOR;

/// Least run of zeros that is left out inside of data, in sectors; 0 where everything is written (`-S`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseSize(u64);

impl SparseSize {
    /// `bytes` as such a length, in whole sectors.
    pub fn new(bytes: u64) -> Self {
        Self(bytes / SECTOR)
    }

    /// Whether nothing is left out.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Multiples of this many sectors are where data ends and zeros begin, if possible.
    fn alignment(self) -> u64 {
        self.0.checked_ilog2().map_or(1, |bits| 1 << bits)
    }
}

/// What convert takes a piece of a disk for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data: to be read, though it may be zeros.
    Data,
    /// Zeros.
    Zero,
    /// Left to the image below the top one.
    Below,
}

/// A run of bytes of a disk that `convert` asks about once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// What it is.
    pub kind: Kind,
}

impl Piece {
    /// Its parts of at most [`BUFFER`] bytes, each `(start, length)`.
    pub fn parts(self) -> impl Iterator<Item = (u64, usize)> {
        let end = self.start + self.length;
        (self.start..end).step_by(BUFFER).map(move |start| {
            let length = usize::try_from(end - start).unwrap_or(BUFFER).min(BUFFER);
            (start, length)
        })
    }
}

/// The pieces of a disk, in ascending order.
#[derive(Clone, Debug)]
pub struct Pieces {
    /// What is still to come.
    rest: Range<u64>,
    cluster: u64,
    top_only: bool,
    /// Bytes that are written together at least.
    unit: u64,
    /// Where the image below the target ends: what is zeros from there on is so already.
    below_end: Option<u64>,
}

impl Pieces {
    /// Those of the disk of `chain`. With `top_only` what its top leaves to the images below is [`Kind::Below`].
    pub fn new<S: Storage>(chain: &Chain<S>, top_only: bool) -> Self {
        let cluster = chain.layers().first().and_then(|top| top.units().cluster).unwrap_or(SECTOR);
        Self { rest: 0..chain.virtual_size(), cluster, top_only, unit: SECTOR, below_end: None }
    }

    /// Tells how many bytes are compressed together: whoever cannot be told about one of them reads them all.
    pub fn set_unit(&mut self, unit: u64) {
        self.unit = unit;
    }

    /// Tells how long the image below the target is, in bytes. Zeros behind that are [`Kind::Below`].
    pub fn set_below_end(&mut self, end: u64) {
        self.below_end = Some(end);
    }

    /// The next one. With `salvage` what the image cannot tell about is data: a sector, or what is compressed with it.
    pub fn next<S: Storage>(
        &mut self,
        chain: &mut Chain<S>,
        salvage: Salvage<'_>,
    ) -> Result<Option<Piece>, ErrorRecord> {
        let start = self.rest.start;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.below_end.filter(|&end| start < end).unwrap_or(u64::MAX).min(self.rest.end);
        let limit = (end - start).min(MAX_REQUEST);
        let (kind, mut length) = match (self.piece(chain, start, limit), salvage) {
            (Ok(piece), _) => piece,
            (Err(error), Some(tell)) => {
                tell(error.message);
                (Kind::Data, (self.unit - start % self.unit).min(limit))
            }
            (Err(error), None) => return Err(error),
        };
        let tail = (start + length) % self.cluster;
        if length > tail {
            length -= tail;
        }
        self.rest.start += length;
        Ok(Some(Piece { start, length, kind }))
    }

    /// What the image has at `offset`, and for how many bytes that is one answer, at most `limit`.
    fn piece<S: Storage>(
        &self,
        chain: &mut Chain<S>,
        offset: u64,
        limit: u64,
    ) -> Result<(Kind, u64), ErrorRecord> {
        let (mapping, length) = status(chain, offset, limit)?;
        let kind = match mapping.extent.kind {
            _ if self.top_only && mapping.layer > 0 => Kind::Below,
            ExtentKind::Data { .. } | ExtentKind::Compressed { .. } => Kind::Data,
            _ if self.below_end.is_some_and(|end| end <= offset) => Kind::Below,
            ExtentKind::Zero { .. } | ExtentKind::Hole { .. } | ExtentKind::Unallocated { .. } => Kind::Zero,
        };
        Ok((kind, length))
    }
}

fn status<S: Storage>(chain: &mut Chain<S>, offset: u64, limit: u64) -> Result<(Mapping, u64), ErrorRecord> {
    answer_at(chain, offset, limit).map_err(|ChainError { error, .. }| {
        let why = "Input/output error";
        failed(&error, format!("error while reading block status at offset {offset}: {why}"))
    })
}

/// Fills `buffer` with what the disk has from `offset` on.
pub fn read<S: Storage>(chain: &mut Chain<S>, offset: u64, buffer: &mut [u8]) -> Result<(), ErrorRecord> {
    chain.read(offset, buffer).map_err(|error| unread(offset, &error))
}

/// What is at `offset` of a disk cannot be read.
pub fn unread(offset: u64, ChainError { error, .. }: &ChainError) -> ErrorRecord {
    failed(error, format!("error while reading at byte {offset}: {}", reason(error)))
}

/// Why something cannot be read, in few words.
pub fn reason(error: &formats::Error) -> &str {
    match error.kind {
        formats::ErrorKind::Unsupported => &error.message,
        _ => "Input/output error",
    }
}

fn failed(error: &formats::Error, message: alloc::string::String) -> ErrorRecord {
    ErrorRecord { field: Some(error.field.to_owned()), ..ErrorRecord::new(kind(error.kind), message) }
}

/// The runs `[from, to)` of sectors of `buffer` that are written. Its first sector is sector `first` of the disk.
pub fn runs(buffer: &[u8], first: u64, sparse: SparseSize) -> Vec<(u64, u64)> {
    if is_one_run(buffer, first, sparse) {
        return vec![(first, first + (buffer.len() as u64).div_ceil(SECTOR))];
    }
    search(buffer, first, sparse)
}

/// As [`runs`], sector by sector.
fn search(buffer: &[u8], first: u64, sparse: SparseSize) -> Vec<(u64, u64)> {
    let (mut runs, mut sectors) = (vec![], Sectors { buffer, first });
    while !sectors.buffer.is_empty() {
        let from = sectors.first;
        if let Some(to) = sectors.take_until(sparse) {
            runs.push((from, to));
        }
    }
    runs
}

/// Whether that can be told from a few sectors: with data at each multiple of what is left out at least there is no run of zeros
/// that is long enough. Most of what is moved is like that.
fn is_one_run(buffer: &[u8], first: u64, sparse: SparseSize) -> bool {
    let step = usize::try_from(sparse.alignment() * SECTOR).unwrap_or(usize::MAX);
    first.is_multiple_of(sparse.alignment())
        && buffer.chunks(step).all(|block| !is_zero(block.get(..SECTOR as usize).unwrap_or(block)))
}

/// The sectors still to be looked at.
struct Sectors<'a> {
    buffer: &'a [u8],
    first: u64,
}

impl Sectors<'_> {
    /// Steps over the sectors that are written in one request and gives their end; or over those that are not.
    fn take_until(&mut self, sparse: SparseSize) -> Option<u64> {
        let least = sparse.0.min(self.count());
        if !self.take_alike(sparse) {
            return None;
        }
        let (mut end, mut ahead) = (self.first, Sectors { ..*self });
        while !ahead.buffer.is_empty() {
            let start = ahead.first;
            if ahead.take_alike(sparse) {
                end = ahead.first;
                *self = Sectors { ..ahead };
            } else if ahead.first - start >= least {
                break;
            }
        }
        Some(end)
    }

    /// Steps over sectors that are alike, all with data or all zero, and tells whether they are to be written. What would
    /// end between two multiples of the alignment goes with the data.
    fn take_alike(&mut self, sparse: SparseSize) -> bool {
        let (whole, alignment) = (self.count(), sparse.alignment());
        let mut kinds = self.buffer.chunks(SECTOR as usize).map(is_zero);
        let mut zero = kinds.next().unwrap_or(true);
        let mut count = 1 + kinds.take_while(|kind| *kind == zero).count() as u64;
        let tail = (self.first + count) % alignment;
        if count < whole && tail != 0 {
            if zero && count <= tail {
                zero = false;
            }
            count = if zero { count - tail } else { (count + alignment - tail).min(whole) };
        }
        let bytes = usize::try_from(count * SECTOR).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer = self.buffer.get(bytes..).unwrap_or(&[]);
        self.first += count;
        !zero
    }

    fn count(&self) -> u64 {
        (self.buffer.len() as u64).div_ceil(SECTOR)
    }
}

/// Whether all of `bytes` are zero. Data seldom begins with zeros: that is looked at first.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let first = blocks.first().map_or(&[][..], |block| &block[..8]);
    first.iter().all(|&byte| byte == 0)
        && blocks.iter().all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs written of sectors that are zero where `sectors` has a dot, the first of them being sector `first`.
    fn written(sectors: &str, first: u64, bytes: u64) -> Vec<(u64, u64)> {
        let buffer: Vec<u8> =
            sectors.bytes().flat_map(|sector| [u8::from(sector != b'.'); SECTOR as usize]).collect();
        runs(&buffer, first, SparseSize::new(bytes))
    }

    #[test]
    fn zeros_are_left_out_by_aligned_blocks() {
        assert_eq!(written("................", 0, 4096), []);
        assert_eq!(written("xxxxxxxx........", 0, 4096), [(0, 8)]);
        assert_eq!(written("x...............", 8, 4096), [(8, 16)]);
        assert_eq!(written("........x.......", 0, 4096), [(8, 16)]);
        assert_eq!(written(".........x......", 0, 4096), [(8, 16)]);
        assert_eq!(written(".......x........", 0, 4096), [(0, 8)]);
    }

    #[test]
    fn short_runs_of_zeros_inside_of_data_are_written() {
        assert_eq!(written("x.......xxxxxxxx", 0, 4096), [(0, 16)]);
        assert_eq!(written("xxxxxxxx........xxxxxxxx", 0, 4096), [(0, 8), (16, 24)]);
        assert_eq!(written("xxxxxxxx........xxxxxxxx", 0, 8192), [(0, 24)]);
        assert_eq!(written("xxxxxxxx................x.......", 0, 8192), [(0, 32)]);
        assert_eq!(written("x.x..x", 0, 512), [(0, 1), (2, 3), (5, 6)]);
        assert_eq!(written("x.x..x", 0, 1024), [(0, 6)]);
    }

    #[test]
    fn a_glance_tells_what_a_search_does() {
        let mut state = 1_u32;
        let mut glances = 0;
        for _ in 0..20_000 {
            let mut next = |bound: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) % bound
            };
            let (count, first, rare) = (1 + next(40) as usize, u64::from(next(3) * 4), 2 + next(8));
            let sparse = SparseSize::new(u64::from(1 + next(12)) * SECTOR);
            let sectors: Vec<u8> = (0..count).map(|_| u8::from(next(rare) != 0)).collect();
            let buffer: Vec<u8> = sectors.iter().flat_map(|&byte| [byte; SECTOR as usize]).collect();
            glances += usize::from(is_one_run(&buffer, first, sparse));
            assert_eq!(
                runs(&buffer, first, sparse),
                search(&buffer, first, sparse),
                "{sectors:?} {first} {sparse:?}"
            );
        }
        assert!(glances > 1000, "{glances}");
    }

    #[test]
    fn the_end_of_a_buffer_is_not_aligned() {
        assert_eq!(written("....", 3, 4096), []);
        assert_eq!(written("xx", 3, 4096), [(3, 5)]);
        assert_eq!(written("x...", 8, 4096), [(8, 12)]);
    }
}
