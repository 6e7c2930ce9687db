//! Reads whose caller goes on.

use alloc::{rc::Rc, vec::Vec};
use core::ops::Range;

use drivers::Landing;
use formats::{Storage, StorageError};

/// A file that may read while its caller goes on.
pub trait StartRead: Storage {
    /// Begins to read what is at `offset` into the part `part` of `landing`, at most 2 MiB. Answers whether it has: if not,
    /// there is only [`Storage::read_at`].
    fn start_read(
        &mut self,
        offset: u64,
        landing: &Rc<Landing>,
        part: Range<usize>,
    ) -> Result<bool, StorageError>;

    /// Waits until all that was begun has ended.
    fn finish_reads(&mut self) -> Result<(), StorageError>;
}

/// What is in memory needs no waiting for.
impl StartRead for Vec<u8> {
    fn start_read(&mut self, _: u64, _: &Rc<Landing>, _: Range<usize>) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn finish_reads(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}
