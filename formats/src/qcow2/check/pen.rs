//! Who may write to the image, if anybody may.

use crate::check::Repair;
use crate::{Storage, StorageError};

/// Writes to the image what is to be repaired.
pub(super) trait Pen<S> {
    /// What may be repaired.
    fn repair(&self) -> Repair;

    /// Writes `bytes` at the file offset `offset`.
    fn write(&mut self, storage: &mut S, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes sure that what was written stays, whatever happens next.
    fn flush(&mut self, storage: &mut S) -> Result<(), StorageError>;
}

/// Nobody may.
pub(super) struct ReadOnly;

impl<S: Storage> Pen<S> for ReadOnly {
    fn repair(&self) -> Repair {
        Repair::None
    }

    fn write(&mut self, _: &mut S, _: u64, _: &[u8]) -> Result<(), StorageError> {
        Err(StorageError)
    }

    fn flush(&mut self, _: &mut S) -> Result<(), StorageError> {
        Err(StorageError)
    }
}
