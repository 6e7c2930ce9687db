//! What of an image `qemu-img convert` writes to a new one: its data without the runs of zeros in it.
//!
//! The image is gone over in the pieces that `convert` reads and each is searched for zeros on its own, so that every
//! write is one that `convert` makes: where a cluster comes to lie can depend on it.

use alloc::{borrow::ToOwned, format, vec, vec::Vec};

use calc::Length;
use formats::{Chain, ChainError, ExtentKind, Mapping, Storage};
use protocol::ErrorRecord;

use crate::source::kind;

/// Unit of zeros, reads and writes, in bytes.
const SECTOR: u64 = 512;
/// Most bytes that are read at once (`IO_BUF_SIZE`).
const BUFFER: u64 = 2 << 20;
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

    /// Multiples of this many sectors are where data ends and zeros begin, if possible.
    fn alignment(self) -> u64 {
        self.0.checked_ilog2().map_or(1, |bits| 1 << bits)
    }
}

/// Calls `write` for each write `[start, end)` of at most 2 MiB, in ascending order. The bytes of the image are
/// read, unless everything is written.
pub fn ranges<S: Storage>(
    chain: &mut Chain<S>,
    sparse: SparseSize,
    mut write: impl FnMut(Length, Length),
) -> Result<(), ErrorRecord> {
    let end = chain.virtual_size();
    let cluster = chain.layers().first().and_then(|top| top.units().cluster).unwrap_or(SECTOR);
    let mut buffer = Vec::new();
    let mut start = 0;
    while start < end {
        let (stored, mut length) = piece(chain, start, (end - start).min(MAX_REQUEST))?;
        let tail = (start + length) % cluster;
        if length > tail {
            length -= tail;
        }
        let stop = start + length;
        if !stored && sparse.0 > 0 {
            start = stop;
        }
        while start < stop {
            let next = stop.min(start + BUFFER);
            if sparse.0 == 0 {
                write(at(start), at(next));
            } else {
                buffer.resize(usize::try_from(next - start).unwrap_or(0), 0);
                read(chain, start, &mut buffer)?;
                for (from, to) in data(&buffer, start / SECTOR, sparse) {
                    write(at(from * SECTOR), at(to * SECTOR));
                }
            }
            start = next;
        }
    }
    Ok(())
}

/// Whether the image has data at `offset`, and for how many bytes that is one answer, at most `limit`.
fn piece<S: Storage>(chain: &mut Chain<S>, offset: u64, limit: u64) -> Result<(bool, u64), ErrorRecord> {
    let mut mapping = status(chain, offset)?;
    let stored = matches!(mapping.extent.kind, ExtentKind::Data { .. } | ExtentKind::Compressed { .. });
    let answers = chain.layers().iter().take(mapping.layer + 1).filter_map(|layer| layer.units().answer);
    let limit = answers.fold(limit, |limit, answer| limit.min(answer - offset % answer));
    let mut length = mapping.extent.length;
    while length < limit {
        let next = status(chain, offset + length)?;
        if !goes_on(&mapping, &next) {
            break;
        }
        length += next.extent.length;
        mapping = next;
    }
    Ok((stored, length.min(limit)))
}

fn status<S: Storage>(chain: &mut Chain<S>, offset: u64) -> Result<Mapping, ErrorRecord> {
    chain.status_at(offset).map_err(|ChainError { error, .. }| {
        let why = "Input/output error";
        failed(&error, format!("error while reading block status at offset {offset}: {why}"))
    })
}

/// Whether `next`, which follows `mapping`, is of one piece with it.
fn goes_on(mapping: &Mapping, next: &Mapping) -> bool {
    let (one, two) = (&mapping.extent, &next.extent);
    let behind = |offset: u64| offset.checked_add(one.length);
    (mapping.layer, one.file) == (next.layer, two.file)
        && match (one.kind, two.kind) {
            (ExtentKind::Zero { offset: None }, ExtentKind::Zero { offset: None }) => true,
            (ExtentKind::Zero { offset: Some(one) }, ExtentKind::Zero { offset: Some(two) })
            | (ExtentKind::Hole { offset: one }, ExtentKind::Hole { offset: two })
            | (ExtentKind::Data { offset: one }, ExtentKind::Data { offset: two }) => {
                behind(one) == Some(two)
            }
            _ => false,
        }
}

fn read<S: Storage>(chain: &mut Chain<S>, offset: u64, buffer: &mut [u8]) -> Result<(), ErrorRecord> {
    chain.read(offset, buffer).map_err(|ChainError { error, .. }| {
        let why = match error.kind {
            formats::ErrorKind::Unsupported => &*error.message,
            _ => "Input/output error",
        };
        failed(&error, format!("error while reading at byte {offset}: {why}"))
    })
}

fn failed(error: &formats::Error, message: alloc::string::String) -> ErrorRecord {
    ErrorRecord { field: Some(error.field.to_owned()), ..ErrorRecord::new(kind(error.kind), message) }
}

/// An offset on a disk; none is past [`Length::MAX`], which every disk ends at or before.
fn at(offset: u64) -> Length {
    Length::new(offset).unwrap_or(Length::MAX)
}

/// The runs `[from, to)` of sectors of `buffer` that are written. Its first sector is sector `first` of the disk.
fn data(buffer: &[u8], first: u64, sparse: SparseSize) -> Vec<(u64, u64)> {
    let (mut runs, mut sectors) = (vec![], Sectors { buffer, first });
    while !sectors.buffer.is_empty() {
        let from = sectors.first;
        if let Some(to) = sectors.take_until(sparse) {
            runs.push((from, to));
        }
    }
    runs
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

fn is_zero(sector: &[u8]) -> bool {
    let (words, rest) = sector.as_chunks::<8>();
    words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
        && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs written of sectors that are zero where `sectors` has a dot, the first of them being sector `first`.
    fn written(sectors: &str, first: u64, bytes: u64) -> Vec<(u64, u64)> {
        let buffer: Vec<u8> =
            sectors.bytes().flat_map(|sector| [u8::from(sector != b'.'); SECTOR as usize]).collect();
        data(&buffer, first, SparseSize::new(bytes))
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
    fn the_end_of_a_buffer_is_not_aligned() {
        assert_eq!(written("....", 3, 4096), []);
        assert_eq!(written("xx", 3, 4096), [(3, 5)]);
        assert_eq!(written("x...", 8, 4096), [(8, 12)]);
    }
}
