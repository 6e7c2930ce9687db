//! Images that are written.

use alloc::vec::Vec;

use zerocopy::little_endian::U64;

use super::{ENTRY_ZERO, Qed};
use crate::two_level::Geometry;
use crate::two_level_mut::TwoLevelMut;
use crate::write::{Blocks, Place, Writer, blocks_of};
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// A QED image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    map: TwoLevelMut<U64>,
    /// Whether there is an image below, so that zeros are to be said.
    has_backing: bool,
    /// From here on nothing is stored.
    written: u64,
}

/// Opens an image for writing.
///
/// # Errors
///
/// What is no QED image or is broken, one that was not closed, and failures of the storage.
pub fn open<S: StorageMut>(mut storage: S) -> Result<Target<S>, Error> {
    let mut image = Qed::open(&mut storage)?;
    if image.needs_check() {
        let message = "Image was not closed properly and must be repaired first";
        return Err(Error::new(ErrorKind::Unsupported, "features", message));
    }
    if image.virtual_size() > 0 {
        // The tables are found fit to be followed when they are first used.
        image.extent_at(&mut storage, 0)?;
    }
    let (has_backing, written) = (image.backing().is_some(), image.virtual_size());
    Ok(Target::new(storage, image.geometry, image.header_end, has_backing, written))
}

impl<S: StorageMut> Target<S> {
    /// An image whose clusters begin at `start` or behind it; what its disk has from `written` on is in no file.
    pub(super) fn new(storage: S, geometry: Geometry, start: u64, has_backing: bool, written: u64) -> Self {
        let map = TwoLevelMut::new(geometry, start, storage.len());
        Self { storage, virtual_size: geometry.disk_len, map, has_backing, written }
    }
}

impl<S: StorageMut> Blocks for Target<S> {
    fn stride(&self) -> u64 {
        self.map.cluster_len()
    }

    fn place(&mut self, cluster: u64) -> Result<Option<u64>, Error> {
        match self.map.entry(&mut self.storage, cluster)? {
            0 | ENTRY_ZERO => Ok(None),
            place => {
                self.map.check_cluster(cluster, place)?;
                Ok(Some(place))
            }
        }
    }

    fn next_free(&self) -> Option<u64> {
        self.map.next()
    }

    fn take(&mut self, cluster: u64) -> Result<u64, Error> {
        self.map.take_cluster(&mut self.storage, cluster)
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
        self.map.cluster_len()
    }

    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        let unit = self.unit();
        let (first, count) = blocks_of(offset, length, unit, self.virtual_size)?;
        let run = self.take_run(first, count)?;
        let length = length.min(run.blocks * unit);
        self.written = self.written.max(offset + length);
        Ok(Place { file: FileIndex::OWN, offset: run.offset, length })
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    /// What is stored is overwritten, so that no cluster is lost; over another image a cluster is said to be zeros.
    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        let unit = self.unit();
        let (first, count) = blocks_of(offset, length, unit, self.virtual_size)?;
        for cluster in first..first + count {
            let start = cluster * unit;
            if !self.has_backing && start >= self.written {
                break;
            }
            match self.place(cluster)? {
                Some(place) => self.clear(place, unit.min(offset + length - start))?,
                None if self.has_backing => self.map.set(&mut self.storage, cluster, ENTRY_ZERO)?,
                None => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.map.finish(&mut self.storage)
    }
}
