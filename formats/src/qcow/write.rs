//! Images that are written.

use alloc::vec::Vec;

use zerocopy::big_endian::U64;

use super::{COMPRESSED, Qcow, SECTOR};
use crate::two_level::Geometry;
use crate::two_level_mut::TwoLevelMut;
use crate::write::{Blocks, Place, Writer, blocks_of};
use crate::{Access, Codec, Error, ErrorKind, FileIndex, StorageMut};

/// A qcow image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    cluster_bits: u32,
    map: TwoLevelMut<U64>,
    /// Whether there is an image below, so that zeros are to be stored.
    has_backing: bool,
    /// From here on nothing is stored.
    written: u64,
}

/// Opens an image for writing.
///
/// # Errors
///
/// What is no qcow image or is broken, an encrypted image, and failures of the storage.
pub fn open<S: StorageMut>(mut storage: S) -> Result<Target<S>, Error> {
    let mut image = Qcow::open(&mut storage, Access::Metadata, None)?;
    if image.encrypted() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "crypt_method",
            "Encrypted images are not written to",
        ));
    }
    if image.virtual_size() > 0 {
        // The tables are found fit to be followed when they are first used.
        image.extent_at(&mut storage, 0)?;
    }
    Ok(Target::new(storage, image.geometry, image.backing().is_some(), image.virtual_size()))
}

impl<S: StorageMut> Target<S> {
    /// An image; what its disk has from `written` on is in no file.
    pub(super) fn new(storage: S, geometry: Geometry, has_backing: bool, written: u64) -> Self {
        let start = geometry.l1_offset.saturating_add(geometry.l1_entries * size_of::<U64>() as u64);
        let map = TwoLevelMut::new(geometry, start, storage.len());
        let Geometry { disk_len: virtual_size, cluster_bits, .. } = geometry;
        Self { storage, virtual_size, cluster_bits, map, has_backing, written }
    }
}

impl<S: StorageMut> Blocks for Target<S> {
    fn stride(&self) -> u64 {
        self.map.cluster_len()
    }

    /// A compressed cluster has none to be written to.
    fn place(&mut self, cluster: u64) -> Result<Option<u64>, Error> {
        match self.map.entry(&mut self.storage, cluster)? {
            0 | COMPRESSED.. => Ok(None),
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

    /// Raw deflate, of a window of 4 KiB.
    fn codec(&self) -> Option<Codec> {
        Some(Codec::Deflate)
    }

    fn allocate_compressed(&mut self, offset: u64, stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        let unit = self.unit();
        let (cluster, _) = blocks_of(offset, 1, unit, self.virtual_size)?;
        let length = stream.len() as u64;
        if length == 0 || length >= unit {
            return Ok(None);
        }
        self.map.set(&mut self.storage, cluster, 0)?;
        let place = self.map.take(length, SECTOR)?;
        let length_shift = 63 - self.cluster_bits;
        if place >> length_shift != 0 {
            return Err(Error::new(
                ErrorKind::Limit,
                "L2 table",
                "File is too long for a compressed cluster",
            ));
        }
        self.map.set(&mut self.storage, cluster, COMPRESSED | length << length_shift | place)?;
        self.written = self.written.max(offset + 1);
        Ok(Some(Place { file: FileIndex::OWN, offset: place, length }))
    }

    /// There are no clusters of zeros: over another image they are stored.
    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        let unit = self.unit();
        let (first, count) = blocks_of(offset, length, unit, self.virtual_size)?;
        for cluster in first..first + count {
            let start = cluster * unit;
            if !self.has_backing && start >= self.written {
                break;
            }
            let place = match self.map.entry(&mut self.storage, cluster)? {
                0 if !self.has_backing => continue,
                _ => self.take_run(cluster, 1)?.offset,
            };
            self.clear(place, unit.min(offset + length - start))?;
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
