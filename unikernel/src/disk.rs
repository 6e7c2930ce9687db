//! A virtio-blk disk, with the host's facts about the file behind it, as [`Storage`].

use alloc::{boxed::Box, rc::Rc, vec, vec::Vec};
use core::ops::Range;

use drivers::{Block, BlockError, Landing, SECTOR};
use formats::{Region, Storage, StorageError, StorageMut, fill_with_zeros};
use protocol::{ExtentMap, FileFacts};

use crate::{mover::StartWrite, ops::compare::StartRead};

/// Bytes read at once to look at an extent map on a disk, and at most for a read that is not of whole sectors.
const WINDOW: usize = 64 << 10;

/// The same of reads that are not of whole sectors and follow each other, as those of compressed clusters do: a request costs
/// more than what it reads.
const READ_AHEAD: usize = 256 << 10;

/// Runs of zeros of fewer bytes are written as they are.
const ZEROS: u64 = 64 << 10;

/// Bytes from the start of a disk that are read at once: a small image has all its tables there, and one long request
/// costs less than five short ones.
const HEAD: u64 = 320 << 10;

/// Bytes that the heads of all disks of a command may take together. A disk in a thousand files has a thousand heads.
const HEADS: u64 = 8 << 20;

/// Room for the heads of disks.
pub struct Heads(u64);

impl Heads {
    /// All the room there is.
    pub fn new() -> Self {
        Self(HEADS)
    }

    /// Room for one more head in bytes; none if little is left.
    fn take(&mut self) -> u64 {
        match self.0.checked_sub(HEAD) {
            Some(left) => {
                self.0 = left;
                HEAD
            }
            None => 0,
        }
    }
}

/// A disk that holds an image.
pub struct Disk {
    block: Block,
    /// The first bytes, `head_length` or all there are, once something of them was wanted.
    head: Box<[u8]>,
    head_length: u64,
    length: u64,
    /// Length of the file by the host's account: whole sectors where it grew, until it was told better.
    host_length: u64,
    tell_length: Box<dyn FnMut(u64)>,
    allocated: u64,
    extents: Extents,
    /// Whether it was written to: then the extents are not those that the file has now.
    changed: bool,
    window: Window,
}

/// What was read last for a read that was not of whole sectors.
#[derive(Default)]
struct Window {
    /// Where it is on the disk.
    offset: u64,
    bytes: Vec<u8>,
}

impl Disk {
    /// The disk `block`, which holds the file that `facts` are about. `tell_length` makes the host cut the file.
    pub fn new(
        block: Block,
        facts: &FileFacts,
        extents: Extents,
        heads: &mut Heads,
        tell_length: Box<dyn FnMut(u64)>,
    ) -> Self {
        let head_length = heads.take().min(block.len());
        Self {
            block,
            head: Box::default(),
            head_length,
            length: facts.length,
            host_length: facts.length,
            tell_length,
            allocated: facts.allocated,
            extents,
            changed: false,
            window: Window::default(),
        }
    }
}

impl Storage for Disk {
    fn len(&self) -> u64 {
        self.length
    }

    fn allocated(&self) -> u64 {
        self.allocated
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let inside = usize::try_from(self.block.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (stored, beyond) = buf.split_at_mut(inside.min(buf.len()));
        beyond.fill(0);
        if stored.is_empty() {
            return Ok(());
        }
        if let Some(head) = self.head_part(offset, stored.len())? {
            stored.copy_from_slice(head);
            return Ok(());
        }
        if let Some(bytes) = self.window.get(offset, stored.len()).filter(|_| !self.changed) {
            stored.copy_from_slice(bytes);
            return Ok(());
        }
        if offset.is_multiple_of(SECTOR) && stored.len().is_multiple_of(SECTOR as usize) {
            return self.block.read(offset, stored).map_err(failed);
        }
        self.read_through_window(offset, stored)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        if self.changed {
            return Ok(Region { length: self.length.saturating_sub(offset).max(1), hole: false });
        }
        let (end, hole) = self.extents.around(offset)?;
        let length = end.min(self.length).saturating_sub(offset).max(1);
        Ok(Region { length, hole })
    }
}

impl StorageMut for Disk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.changed = true;
        let end = offset.checked_add(bytes.len() as u64).ok_or(StorageError)?;
        self.write_sectors(offset, bytes)?;
        self.update_head(offset, bytes);
        self.length = self.length.max(end);
        self.host_length = self.host_length.max(end.next_multiple_of(SECTOR));
        Ok(())
    }

    fn write_zeros(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.zeros(offset, length, true)
    }

    fn set_aside(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.zeros(offset, length, false)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.block.wait().map_err(failed)?;
        if self.host_length != self.length {
            (self.tell_length)(self.length);
            self.host_length = self.length;
        }
        self.block.flush().map_err(failed)
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        self.changed = true;
        if length > self.block.len() {
            return Err(StorageError);
        }
        self.block.wait().map_err(failed)?;
        (self.tell_length)(length);
        // What is cut off is gone, should the file grow again.
        let kept = length.min(self.head.len() as u64) as usize;
        self.head.get_mut(kept..).unwrap_or_default().fill(0);
        (self.length, self.host_length) = (length, length);
        Ok(())
    }
}

impl StartRead for Disk {
    fn start_read(
        &mut self,
        offset: u64,
        landing: &Rc<Landing>,
        part: Range<usize>,
    ) -> Result<bool, StorageError> {
        let length = part.len() as u64;
        let end = offset.checked_add(length).ok_or(StorageError)?;
        let whole = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR);
        if !whole || end > self.block.len() {
            return Ok(false);
        }
        self.block.start_read(offset, landing, part).map_err(failed)?;
        Ok(true)
    }

    fn finish_reads(&mut self) -> Result<(), StorageError> {
        self.block.wait().map_err(failed)
    }
}

impl StartWrite for Disk {
    fn start_write(
        &mut self,
        offset: u64,
        bytes: &Rc<Vec<u8>>,
        part: Range<usize>,
    ) -> Result<(), StorageError> {
        self.changed = true;
        let data = bytes.get(part.clone()).ok_or(StorageError)?;
        if !offset.is_multiple_of(SECTOR) || !data.len().is_multiple_of(SECTOR as usize) {
            return self.write_at(offset, data);
        }
        let end = offset.checked_add(data.len() as u64).ok_or(StorageError)?;
        self.update_head(offset, data);
        self.block.start_write(offset, bytes, part).map_err(failed)?;
        self.length = self.length.max(end);
        self.host_length = self.host_length.max(end);
        Ok(())
    }

    fn reap(&mut self, wait: bool) -> Result<(), StorageError> {
        self.block.reap(wait).map_err(failed)
    }
}

impl Disk {
    /// The `length` bytes at `offset`, if they are part of the head.
    fn head_part(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, StorageError> {
        if offset >= self.head_length {
            return Ok(None);
        }
        if self.head.is_empty() {
            let mut head = vec![0; self.head_length as usize].into_boxed_slice();
            self.block.read(0, &mut head).map_err(failed)?;
            self.head = head;
        }
        let start = offset as usize;
        Ok(self.head.get(start..start.saturating_add(length)))
    }

    /// Has the host make zeros, unless they are few.
    fn zeros(&mut self, offset: u64, length: u64, unmap: bool) -> Result<(), StorageError> {
        let end = offset.checked_add(length).ok_or(StorageError)?;
        if !offset.is_multiple_of(SECTOR) || !length.is_multiple_of(SECTOR) || length < ZEROS {
            return fill_with_zeros(self, offset, length);
        }
        match self.block.write_zeros(offset, length, unmap) {
            Err(BlockError::Unsupported) => return fill_with_zeros(self, offset, length),
            outcome => outcome.map_err(failed)?,
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.head.len());
        let to = usize::try_from(end).unwrap_or(usize::MAX).min(self.head.len());
        self.head.get_mut(from..to).unwrap_or_default().fill(0);
        self.length = self.length.max(end);
        self.host_length = self.host_length.max(end);
        Ok(())
    }

    /// Writes what is whole sectors at once, and the sectors of which only a part changes one by one.
    fn write_sectors(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<(), StorageError> {
        while !bytes.is_empty() {
            let skip = (offset % SECTOR) as usize;
            let whole = bytes.len() - bytes.len() % SECTOR as usize;
            let count = if skip == 0 && whole > 0 {
                self.block.write(offset, bytes.get(..whole).ok_or(StorageError)?).map_err(failed)?;
                whole
            } else {
                let count = bytes.len().min(SECTOR as usize - skip);
                let mut sector = [0; SECTOR as usize];
                let start = offset - skip as u64;
                self.block.read(start, &mut sector).map_err(failed)?;
                let changed = sector.get_mut(skip..skip + count).ok_or(StorageError)?;
                changed.copy_from_slice(bytes.get(..count).ok_or(StorageError)?);
                self.block.write(start, &sector).map_err(failed)?;
                count
            };
            offset += count as u64;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Keeps the head what the disk is.
    fn update_head(&mut self, offset: u64, bytes: &[u8]) {
        if offset < self.head.len() as u64 {
            let place = self.head.get_mut(offset as usize..).unwrap_or_default();
            let count = place.len().min(bytes.len());
            place[..count].copy_from_slice(&bytes[..count]);
        }
    }

    /// Serves a read that is not of whole sectors. Where it follows the last one, so will the next follow it.
    fn read_through_window(&mut self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), StorageError> {
        // Who has no room for a head has none for this.
        let ahead = if self.head_length > 0 { READ_AHEAD } else { WINDOW };
        while !buf.is_empty() {
            let skip = (offset % SECTOR) as usize;
            let start = offset - skip as u64;
            let wanted = (skip + buf.len()).next_multiple_of(SECTOR as usize).min(ahead);
            let follows = !self.changed && self.window.is_followed_by(start);
            // What lies further on may not be readable.
            if !follows || self.window.fill(&mut self.block, start, ahead).is_err() {
                self.window.fill(&mut self.block, start, wanted)?;
            }
            let bytes =
                self.window.bytes.get(skip..).filter(|bytes| !bytes.is_empty()).ok_or(StorageError)?;
            let (now, later) = buf.split_at_mut(bytes.len().min(buf.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            offset += now.len() as u64;
            buf = later;
        }
        Ok(())
    }
}

impl Window {
    /// The `length` bytes at `offset`, if it has them.
    fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let skip = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(skip..)?.get(..length)
    }

    /// Whether what is at `offset` begins in it, or where it ends.
    fn is_followed_by(&self, offset: u64) -> bool {
        let length = self.bytes.len() as u64;
        length > 0 && offset.checked_sub(self.offset).is_some_and(|skip| skip <= length)
    }

    /// Reads `length` bytes from `offset` on, which is inside of the disk, as far as that goes.
    fn fill(&mut self, block: &mut Block, offset: u64, length: usize) -> Result<(), StorageError> {
        let inside = usize::try_from(block.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        self.offset = offset;
        self.bytes.resize(length.min(inside), 0);
        let outcome = block.read(offset, &mut self.bytes).map_err(failed);
        if outcome.is_err() {
            self.bytes.clear();
        }
        outcome
    }
}

fn failed(_: BlockError) -> StorageError {
    StorageError
}

/// The data extents of a file: ranges `[start, end)` in ascending order.
pub struct Extents {
    ranges: Ranges,
    count: u64,
    /// Index of the range found last: questions come in ascending order.
    last: u64,
}

enum Ranges {
    Inline(Vec<(u64, u64)>),
    Disk { block: Block, window: Box<[u8]>, window_start: Option<u64> },
}

/// Bytes of a range on a disk: start and end, little-endian.
const RANGE: u64 = 16;

impl Extents {
    /// The map `map`; `find` gives the disk it names.
    pub fn new<E>(map: &ExtentMap, find: impl FnOnce(&str) -> Result<Block, E>) -> Result<Self, E> {
        let (ranges, count) = match map {
            ExtentMap::Inline(ranges) => (Ranges::Inline(ranges.clone()), ranges.len() as u64),
            ExtentMap::Disk { disk, count } => {
                let window = vec![0; WINDOW].into_boxed_slice();
                (Ranges::Disk { block: find(disk)?, window, window_start: None }, *count)
            }
        };
        Ok(Self { ranges, count, last: 0 })
    }

    /// Where the data or the hole around `offset` ends, and whether it is a hole.
    fn around(&mut self, offset: u64) -> Result<(u64, bool), StorageError> {
        let index = self.first_ending_after(offset)?;
        if index == self.count {
            return Ok((u64::MAX, true));
        }
        let (start, end) = self.ranges.get(index)?;
        Ok(if start <= offset { (end, false) } else { (start, true) })
    }

    /// Index of the first range that ends after `offset`, or the number of ranges.
    fn first_ending_after(&mut self, offset: u64) -> Result<u64, StorageError> {
        // Usually the range found last or the next one. That it is the first needs a look at the one before.
        let (mut low, mut high) = (0, self.count);
        for guess in [self.last.saturating_sub(1), self.last, self.last + 1] {
            if guess < self.count {
                if self.ranges.get(guess)?.1 > offset {
                    high = high.min(guess);
                } else {
                    low = low.max(guess + 1);
                }
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ranges.get(middle)?.1 > offset {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.last = low;
        Ok(low)
    }
}

impl Ranges {
    fn get(&mut self, index: u64) -> Result<(u64, u64), StorageError> {
        match self {
            Self::Inline(ranges) => {
                usize::try_from(index).ok().and_then(|index| ranges.get(index)).copied().ok_or(StorageError)
            }
            Self::Disk { block, window, window_start } => {
                let at = index.checked_mul(RANGE).ok_or(StorageError)?;
                let start = at - at % WINDOW as u64;
                if *window_start != Some(start) {
                    let length = block.len().saturating_sub(start).min(WINDOW as u64) as usize;
                    let part = window.get_mut(..length).ok_or(StorageError)?;
                    block.read(start, part).map_err(failed)?;
                    *window_start = Some(start);
                }
                let at = (at - start) as usize;
                let number = |at: usize| {
                    let bytes = window.get(at..at + 8).ok_or(StorageError)?;
                    bytes.try_into().map(u64::from_le_bytes).map_err(|_| StorageError)
                };
                Ok((number(at)?, number(at + 8)?))
            }
        }
    }
}
