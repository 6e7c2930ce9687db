//! A file that is not to be changed, for what could change one.

use crate::{Region, Storage, StorageError, StorageMut};

/// Reads as its file does, and fails to be written.
pub(crate) struct ReadOnly<'a, S>(pub(crate) &'a mut S);

impl<S: Storage> Storage for ReadOnly<'_, S> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn allocated(&self) -> u64 {
        self.0.allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.0.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.0.region_at(offset)
    }
}

impl<S: Storage> StorageMut for ReadOnly<'_, S> {
    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), StorageError> {
        Err(StorageError)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Err(StorageError)
    }

    fn set_length(&mut self, _: u64) -> Result<(), StorageError> {
        Err(StorageError)
    }
}
