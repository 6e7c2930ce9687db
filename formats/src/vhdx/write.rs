//! Images that are written: blocks come to be at the end of the file.

use alloc::vec::Vec;

use zerocopy::little_endian::U64;

use super::header::{self, Guids};
use super::metadata::Metadata;
use super::regions::{Regions, Span};
use super::walk::{FULLY_PRESENT, OFFSET, PARTIALLY_PRESENT, STATE};
use super::{MIB, Vhdx, corrupt};
use crate::table_mut::TableMut;
use crate::write::{Blocks, Place, Writer, blocks_of, clear_old};
use crate::{Access, Error, ErrorKind, FileIndex, StorageMut};

/// Unit in bytes in which the disk is written.
const SECTOR: u64 = 512;

/// A VHDX image that is open for writing. Its log is empty and stays so: the BAT is written behind the data.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    metadata: Metadata,
    regions: Regions,
    table: TableMut<U64>,
    /// File offset in bytes of the next block: whole MiB.
    next: u64,
    /// Whether there is a new block.
    grown: bool,
    /// What the headers are to say before anything is written, if they do not say it yet.
    guids: Option<Guids>,
    /// From here on the disk is zeros.
    written: u64,
}

/// Opens an image for writing. What is in its log is done to it first, as QEMU does; `guids` are those of the session.
///
/// # Errors
///
/// What is no VHDX image or is broken, a differencing image, and failures of the storage.
pub fn open<S: StorageMut>(mut storage: S, guids: Guids) -> Result<Target<S>, Error> {
    let image = Vhdx::open(&mut storage, Access::default())?;
    if image.metadata.parent_locator().is_some() {
        let message = "Differencing images are not written to";
        return Err(Error::new(ErrorKind::Unsupported, "FileParameters", message));
    }
    if image.log_replayed() {
        image.replay(&mut storage)?;
    }
    let mut target = Target::of_new(storage)?;
    (target.guids, target.written) = (Some(guids), target.metadata.virtual_size());
    Ok(target)
}

impl<S: StorageMut> Target<S> {
    /// An image that has nothing in its log and is zeros.
    pub(super) fn of_new(mut storage: S) -> Result<Self, Error> {
        let Vhdx { metadata, regions, .. } = Vhdx::open(&mut storage, Access::default())?;
        let next = storage.len().checked_next_multiple_of(MIB).ok_or_else(too_long)?;
        let table = TableMut::new(regions.bat.start, metadata.bat_entries());
        Ok(Self { storage, metadata, regions, table, next, grown: false, guids: None, written: 0 })
    }

    /// Position in the BAT of a block's entry.
    fn index(&self, block: u64) -> u64 {
        block + block / self.metadata.chunk_ratio()
    }

    /// Says in the headers that the image is another from now on.
    fn begin(&mut self) -> Result<(), Error> {
        match self.guids.take() {
            Some(guids) => header::begin_writing(&mut self.storage, guids),
            None => Ok(()),
        }
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::Limit, "BAT", "File is too long for another block")
}

impl<S: StorageMut> Blocks for Target<S> {
    fn stride(&self) -> u64 {
        self.metadata.block_size()
    }

    fn place(&mut self, block: u64) -> Result<Option<u64>, Error> {
        let index = self.index(block);
        let entry = self.table.get(&mut self.storage, index)?.map_or(0, U64::get);
        let start = entry & OFFSET;
        match entry & STATE {
            FULLY_PRESENT => {
                let end = start.checked_add(self.stride()).ok_or_else(too_long)?;
                if start < MIB {
                    let message = alloc::format!("Block overlaps the header section (BAT entry {index})");
                    return Err(corrupt("BAT", message));
                }
                self.regions.check_free(Span { start, end })?;
                Ok(Some(start))
            }
            PARTIALLY_PRESENT => {
                let message =
                    alloc::format!("Block is there in part but the disk has no parent (BAT entry {index})");
                Err(corrupt("BAT", message))
            }
            _ => Ok(None),
        }
    }

    fn next_free(&self) -> Option<u64> {
        Some(self.next)
    }

    fn take(&mut self, block: u64) -> Result<u64, Error> {
        let (place, index) = (self.next, self.index(block));
        let end =
            place.checked_add(self.stride()).filter(|&end| end <= i64::MAX as u64).ok_or_else(too_long)?;
        self.regions.check_free(Span { start: place, end })?;
        clear_old(&mut self.storage, place, end - place)?;
        self.table.set(&mut self.storage, index, (place | FULLY_PRESENT).into())?;
        (self.next, self.grown) = (end, true);
        Ok(place)
    }

    fn clear(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        self.begin()?;
        Ok(self.storage.write_zeros(offset, length)?)
    }
}

impl<S: StorageMut> Writer for Target<S> {
    type Storage = S;

    fn virtual_size(&self) -> u64 {
        self.metadata.virtual_size()
    }

    fn unit(&self) -> u64 {
        SECTOR
    }

    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size())?;
        self.begin()?;
        let place = self.allocate_in_blocks(offset, length)?;
        self.written = self.written.max(offset + place.length);
        Ok(place)
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size())?;
        self.clear_stored(offset, length.min(self.written.saturating_sub(offset)), self.stride())
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    /// The last block is whole in the file, even if the disk ends inside of it.
    fn finish(&mut self) -> Result<(), Error> {
        if self.grown {
            if self.storage.len() < self.next {
                self.storage.set_length(self.next)?;
            }
            self.storage.flush()?;
            self.table.write_back(&mut self.storage)?;
            self.grown = false;
        }
        Ok(self.storage.flush()?)
    }
}
