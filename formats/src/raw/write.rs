//! Raw images that are written: each byte of the disk has its place from the start.

use alloc::vec::Vec;

use super::{SECTOR, sectors};
use crate::write::{Place, Writer, blocks_of};
use crate::{Error, FileIndex, StorageMut};

/// What a new raw image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// Size of the disk in bytes, rounded up to a sector of 512.
    pub size: u64,
}

/// A raw image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    /// From here on the disk is zeros.
    written: u64,
}

/// Makes `storage`, an empty file, a raw image of zeros. It is as long as the disk once it is
/// [finished](Writer::finish): one that was broken off does not look whole.
///
/// # Errors
///
/// A disk of 2^63 bytes or more.
pub fn create<S: StorageMut>(storage: S, create: &Create) -> Result<Target<S>, Error> {
    let virtual_size = sectors(create.size)?;
    Ok(Target { storage, virtual_size, written: 0 })
}

/// Opens a file, or a block device, for writing as it is; a sector that the file ends in is made whole.
///
/// # Errors
///
/// A file of 2^63 bytes or more, and failures of the storage.
pub fn open<S: StorageMut>(mut storage: S) -> Result<Target<S>, Error> {
    let virtual_size = sectors(storage.len())?;
    if virtual_size != storage.len() {
        storage.set_length(virtual_size)?;
    }
    Ok(Target { storage, virtual_size, written: virtual_size })
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
        self.written = self.written.max(offset + length);
        Ok(Place { file: FileIndex::OWN, offset, length })
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        Ok(self.storage.write_zeros(offset, length.min(self.written.saturating_sub(offset)))?)
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.storage.len() < self.virtual_size {
            self.storage.set_length(self.virtual_size)?;
        }
        Ok(self.storage.flush()?)
    }
}
