//! Images that are written: blocks come to be at the end of the file, where the footer was, and the footer behind them.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::big_endian::U32;

use super::footer::{self, DiskType};
use super::header::DynamicHeader;
use super::walk::{UNUSED, check_place};
use super::{SECTOR, Vpc, invalid};
use crate::table_mut::TableMut;
use crate::write::{Blocks, Place, Writer, blocks_of, clear_old};
use crate::{Access, Error, ErrorKind, FileIndex, StorageMut};

/// A VHD image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    /// `None` where the disk is stored as it is.
    map: Option<Map>,
    /// From here on the disk is zeros.
    written: u64,
}

/// The block allocation table, and where new blocks come to lie.
#[derive(Debug)]
struct Map {
    header: DynamicHeader,
    table: TableMut<U32>,
    /// What is written in front of a block: that all of its sectors are there.
    bitmap: Vec<u8>,
    /// The block whose bitmap was written last.
    marked: Option<u64>,
    /// File offset of the end of the last block.
    end: u64,
    /// Whether the footer is not at `end` yet.
    grown: bool,
}

/// The map, and the file that it is of.
struct Stored<'a, S> {
    storage: &'a mut S,
    map: &'a mut Map,
}

/// Opens an image for writing.
///
/// # Errors
///
/// What is no VHD image or is broken, a differencing image, and failures of the storage.
pub fn open<S: StorageMut>(mut storage: S) -> Result<Target<S>, Error> {
    let image = Vpc::open(&mut storage, Access::default())?;
    match image.footer().disk_type() {
        DiskType::Fixed => {
            Ok(Target { written: image.virtual_size(), ..Target::fixed(storage, image.virtual_size()) })
        }
        DiskType::Dynamic => Target::open_blocks(storage, false),
        DiskType::Differencing => {
            let message = "Differencing images are not written to";
            Err(Error::new(ErrorKind::Unsupported, "disk_type", message))
        }
    }
}

impl<S: StorageMut> Target<S> {
    /// A new image whose disk is stored as it is.
    pub(super) fn fixed(storage: S, virtual_size: u64) -> Self {
        Self { storage, virtual_size, map: None, written: 0 }
    }

    /// An image in blocks, which is not differencing: a new one that has no blocks yet, or another.
    pub(super) fn open_blocks(mut storage: S, fresh: bool) -> Result<Self, Error> {
        let mut image = Vpc::open(&mut storage, Access::default())?;
        let virtual_size = image.virtual_size();
        if virtual_size > 0 {
            // The table is found fit to be followed when it is first used.
            image.extent_at(&mut storage, 0)?;
        }
        let Some(header) = image.dynamic_header().cloned() else {
            return Err(invalid("disk_type", "Image is not dynamic"));
        };
        let mut map = Map {
            table: TableMut::new(header.table_offset(), header.table_entries()),
            bitmap: vec![0xff; usize::try_from(header.bitmap_len()).unwrap_or(0)],
            end: (header.table_offset() + header.table_len()).next_multiple_of(SECTOR),
            marked: None,
            grown: false,
            header,
        };
        if !fresh {
            let stored_len = map.header.stored_block_len();
            map.end = map.end.max(highest_end(&mut storage, &mut map.table, stored_len)?);
        }
        let written = if fresh { 0 } else { virtual_size };
        Ok(Self { storage, virtual_size, map: Some(map), written })
    }
}

/// File offset of the end of the last block in the file, each `stored_len` bytes; 0 if there is none.
fn highest_end<S: StorageMut>(
    storage: &mut S,
    table: &mut TableMut<U32>,
    stored_len: u64,
) -> Result<u64, Error> {
    let (mut index, mut end) = (0, 0);
    while index < table.entries() {
        let entries = table.from(storage, index)?;
        let used = entries.iter().map(|entry| entry.get()).filter(|&entry| entry != UNUSED);
        end = used.max().map_or(end, |entry| end.max(u64::from(entry) * SECTOR + stored_len));
        index += entries.len() as u64;
    }
    Ok(end)
}

impl<S: StorageMut> Blocks for Stored<'_, S> {
    /// A block does not go on where the last one ended: its bitmap is between them.
    fn stride(&self) -> u64 {
        self.map.header.stored_block_len()
    }

    /// Of the data of the block.
    fn place(&mut self, block: u64) -> Result<Option<u64>, Error> {
        let Map { header, table, .. } = self.map;
        let entry = table.get(self.storage, block)?.map_or(UNUSED, U32::get);
        if entry == UNUSED {
            return Ok(None);
        }
        let place = u64::from(entry) * SECTOR;
        check_place(header, u64::MAX, block, place)?;
        Ok(Some(place + header.bitmap_len()))
    }

    fn next_free(&self) -> Option<u64> {
        None
    }

    fn take(&mut self, block: u64) -> Result<u64, Error> {
        let Self { storage, map } = self;
        let sector = u32::try_from(map.end / SECTOR).ok().filter(|&sector| sector != UNUSED);
        let Some(sector) = sector else {
            return Err(Error::new(ErrorKind::Limit, "BAT", "File is too long for another block"));
        };
        let data = map.end + map.header.bitmap_len();
        clear_old(*storage, data, map.header.block_size())?;
        map.table.set(*storage, block, sector.into())?;
        map.end = data + map.header.block_size();
        map.grown = true;
        Ok(data)
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

    /// The bitmap in front of a block says of all of its sectors that they are there, whatever it said before: some
    /// programs go by it.
    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        let Self { storage, map, .. } = self;
        let mut place = Place { file: FileIndex::OWN, offset, length };
        if let Some(map) = map {
            let block_len = map.header.block_size();
            let (block, within) = (offset / block_len, offset % block_len);
            let run = Stored { storage, map }.take_run(block, 1)?;
            if map.marked != Some(block) {
                storage.write_at(run.offset - map.header.bitmap_len(), &map.bitmap)?;
                map.marked = Some(block);
            }
            (place.offset, place.length) = (run.offset + within, length.min(block_len - within));
        }
        self.written = self.written.max(offset + place.length);
        Ok(place)
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        let length = length.min(self.written.saturating_sub(offset));
        match &mut self.map {
            Some(map) => {
                let block_len = map.header.block_size();
                Stored { storage: &mut self.storage, map }.clear_stored(offset, length, block_len)
            }
            None => Ok(self.storage.write_zeros(offset, length)?),
        }
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    fn finish(&mut self) -> Result<(), Error> {
        let Self { storage, map, .. } = self;
        if let Some(map) = map.as_mut().filter(|map| map.grown) {
            storage.flush()?;
            let copy = footer::read_at(storage, 0)?;
            storage.write_at(map.end, copy.as_bytes())?;
            map.table.write_back(storage)?;
            map.grown = false;
        }
        Ok(storage.flush()?)
    }
}
