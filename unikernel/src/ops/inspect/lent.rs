//! A file that is lent: to look at it in more than one way.

use formats::{Region, Storage, StorageError};

/// The file, until it is wanted back.
#[derive(Debug)]
pub struct Lent<'a, S>(pub &'a mut S);

impl<S: Storage> Storage for Lent<'_, S> {
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
