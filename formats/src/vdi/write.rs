//! Images that are written: blocks come to be one behind the other.

use alloc::vec::Vec;

use zerocopy::little_endian::U32;

use super::header::{self, BLOCK_LEN, Header};
use super::{ENTRY_ZERO, Vdi};
use crate::reader::Reader;
use crate::table_mut::TableMut;
use crate::write::{Blocks, Place, Writer, blocks_of, clear_old};
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// Unit in bytes in which the disk is written.
const SECTOR: u64 = 512;

/// A VDI image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    map: TableMut<U32>,
    offset_data: u64,
    /// How many blocks the file has room for, or is going to have: the number of the next one.
    blocks: u32,
    /// How many of them the header says there are.
    counted: u32,
    /// From here on the disk is zeros.
    written: u64,
}

/// Opens an image for writing.
///
/// # Errors
///
/// What is no VDI image or is broken, and failures of the storage.
pub fn open<S: StorageMut>(storage: S) -> Result<Target<S>, Error> {
    Target::open(storage, false)
}

impl<S: StorageMut> Target<S> {
    /// An image; a new one is zeros.
    pub(super) fn open(mut storage: S, fresh: bool) -> Result<Self, Error> {
        let header = Header::read(&mut Reader::new(&mut storage))?;
        let mut image = Vdi::open(&mut storage)?;
        let virtual_size = image.virtual_size();
        let mut map = TableMut::new(header.offset_blocks, virtual_size.div_ceil(BLOCK_LEN));
        let counted = u32::try_from(header.blocks_allocated).unwrap_or(u32::MAX);
        let mut blocks = counted;
        if !fresh {
            image.check_map(&mut storage)?;
            blocks = blocks.max(numbers_end(&mut storage, &mut map)?);
        }
        let written = if fresh { 0 } else { virtual_size };
        Ok(Self { storage, virtual_size, map, offset_data: header.offset_data, blocks, counted, written })
    }
}

/// The number behind the highest one in the map.
fn numbers_end<S: StorageMut>(storage: &mut S, map: &mut TableMut<U32>) -> Result<u32, Error> {
    let (mut index, mut end) = (0, 0);
    while index < map.entries() {
        let entries = map.from(storage, index)?;
        let used = entries.iter().map(|entry| entry.get()).filter(|&entry| u64::from(entry) < ENTRY_ZERO);
        end = used.max().map_or(end, |entry| end.max(entry + 1));
        index += entries.len() as u64;
    }
    Ok(end)
}

impl<S: StorageMut> Blocks for Target<S> {
    fn stride(&self) -> u64 {
        BLOCK_LEN
    }

    fn place(&mut self, block: u64) -> Result<Option<u64>, Error> {
        let entry = self.map.get(&mut self.storage, block)?.map(|entry| u64::from(entry.get()));
        Ok(entry.filter(|&entry| entry < ENTRY_ZERO).map(|entry| self.offset_data + entry * BLOCK_LEN))
    }

    fn next_free(&self) -> Option<u64> {
        Some(self.offset_data + u64::from(self.blocks) * BLOCK_LEN)
    }

    fn take(&mut self, block: u64) -> Result<u64, Error> {
        if u64::from(self.blocks) >= ENTRY_ZERO {
            return Err(Error::new(ErrorKind::Limit, "cBlocksAllocated", "File has too many blocks"));
        }
        let place = self.offset_data + u64::from(self.blocks) * BLOCK_LEN;
        clear_old(&mut self.storage, place, BLOCK_LEN)?;
        self.map.set(&mut self.storage, block, self.blocks.into())?;
        self.blocks += 1;
        Ok(place)
    }

    fn clear(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        Ok(self.storage.write_zeros(offset, length)?)
    }
}

impl<S: StorageMut> Writer for Target<S> {
    type Storage = S;

    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn unit(&self) -> u64 {
        SECTOR
    }

    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        let place = self.allocate_in_blocks(offset, length)?;
        self.written = self.written.max(offset + place.length);
        Ok(place)
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        self.clear_stored(offset, length.min(self.written.saturating_sub(offset)), BLOCK_LEN)
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    /// The last block is whole in the file, even if the disk ends inside of it.
    fn finish(&mut self) -> Result<(), Error> {
        if self.blocks != self.counted {
            let end = self.offset_data + u64::from(self.blocks) * BLOCK_LEN;
            if self.storage.len() < end {
                self.storage.set_length(end)?;
            }
            self.storage.flush()?;
            header::set_blocks_allocated(&mut self.storage, self.blocks)?;
            self.counted = self.blocks;
        }
        self.map.write_back(&mut self.storage)?;
        Ok(self.storage.flush()?)
    }
}
