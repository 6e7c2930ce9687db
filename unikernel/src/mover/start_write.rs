//! Writes whose caller goes on.

use alloc::{rc::Rc, vec::Vec};
use core::ops::Range;

use formats::{StorageError, StorageMut};

/// A file that writes while its caller goes on.
pub trait StartWrite: StorageMut {
    /// As [`StorageMut::write_at`], of the part `part` of `bytes`, at most [`BUFFER`](super::pieces::BUFFER) bytes. The file
    /// holds on to the bytes for as long as it needs them; what comes of it [`StorageMut::flush`] tells. Later reads and
    /// writes of the same place come after it.
    fn start_write(
        &mut self,
        offset: u64,
        bytes: &Rc<Vec<u8>>,
        part: Range<usize>,
    ) -> Result<(), StorageError>;

    /// Lets go of bytes that are written; with `wait`, waits until some are, unless nothing is on its way.
    fn reap(&mut self, wait: bool) -> Result<(), StorageError>;
}

/// A file in memory has nothing to wait for.
impl StartWrite for Vec<u8> {
    fn start_write(
        &mut self,
        offset: u64,
        bytes: &Rc<Vec<u8>>,
        part: Range<usize>,
    ) -> Result<(), StorageError> {
        self.write_at(offset, bytes.get(part).ok_or(StorageError)?)
    }

    fn reap(&mut self, _: bool) -> Result<(), StorageError> {
        Ok(())
    }
}
