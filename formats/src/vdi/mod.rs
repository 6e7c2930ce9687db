//! VirtualBox's VDI, version 1.1, as far as `qemu-img` reads it: blocks of 1 MiB and no parent. Field names are those
//! of VirtualBox's `VDICore.h`; checks come in `qemu-img`'s order and in its words.

mod check;
mod create;
mod header;
mod write;

use zerocopy::little_endian::U32;

pub use create::{Create, create};
pub use write::{Target, open};

use crate::block_map::BlockMap;
use crate::reader::Reader;
use crate::run::Place;
use crate::{Error, ErrorKind, Extent, ExtentKind, Regions, Storage};
use header::{BLOCK_LEN, Header};

pub(crate) use header::probe;

/// Least entry that is no block: the block is known to be zero, the entry above it says that it never was written.
const ENTRY_ZERO: u64 = 0xffff_fffe;

/// Blocks that may lack of a file that was cut off: as QEMU reads it, they are data all the same.
const CUT_OFF_MAX: u64 = 1 << 20;

/// An open VDI image.
#[derive(Debug)]
pub(crate) struct Vdi {
    virtual_size: u64,
    /// File offset of the first block in bytes.
    offset_data: u64,
    /// Whether all blocks were allocated at first, so that holes of the file are the disk's zeros.
    is_static: bool,
    map: BlockMap<U32>,
    /// Whether the map was found fit to be followed.
    checked: bool,
    regions: Regions,
}

impl Vdi {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let header = Header::read(&mut Reader::new(storage))?;
        let map = BlockMap::new(header.offset_blocks, header.blocks, BLOCK_LEN, header.disk_size);
        // What is beyond the end of the file would read as zero: every block would be block 0.
        if !map.is_inside(storage.len()) {
            let message = "Block map lies beyond the end of the file";
            return Err(Error::new(ErrorKind::Corrupt, "offBlocks", message));
        }
        Ok(Self {
            virtual_size: header.disk_size,
            offset_data: header.offset_data,
            is_static: header.is_static,
            map,
            checked: false,
            regions: Regions::default(),
        })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Length of a block in bytes.
    pub(crate) fn block_len(&self) -> u64 {
        self.map.block_len()
    }

    /// Each entry is a step; the map lies in the file.
    pub(crate) fn max_extents(&self) -> u64 {
        self.map.entries()
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        self.check_map(storage)?;
        let offset_data = self.offset_data;
        let extent = self.map.extent_at(storage, offset, |entry| match entry {
            ENTRY_ZERO.. => Place::Zero,
            // 2^32 blocks of 2^20 bytes.
            block => Place::Data(offset_data + block * BLOCK_LEN),
        })?;
        let ExtentKind::Data { offset: host } = extent.kind else { return Ok(extent) };
        if !self.is_static {
            return Ok(extent);
        }
        let run = self.regions.at(storage, host, extent.length)?;
        let kind = if run.zero { ExtentKind::Hole { offset: host } } else { extent.kind };
        Ok(Extent::own(offset, run.length, kind))
    }

    /// Two entries never share a block, so that a file holds no more than this: it is what bounds a walk by the length
    /// of the file.
    fn check_map<S: Storage>(&mut self, storage: &mut S) -> Result<(), Error> {
        if self.checked {
            return Ok(());
        }
        let max = storage.len() / BLOCK_LEN + CUT_OFF_MAX;
        if self.map.has_more_than(storage, max, |entry| entry < ENTRY_ZERO)? {
            let message = "Block map has more blocks than the file has room for";
            return Err(Error::new(ErrorKind::Corrupt, "block map", message));
        }
        self.checked = true;
        Ok(())
    }
}
