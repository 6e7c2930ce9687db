//! Who may write to the image, if anybody may.

use super::guard::Guard;
use crate::check::Repair;
use crate::{Storage, StorageError, StorageMut};

/// Writes to the image what is to be repaired.
pub(super) trait Pen<S> {
    /// What may be repaired.
    fn repair(&self) -> Repair;

    /// Whether the L2 table of `length` bytes at `offset` is clear of other metadata.
    fn may_write_l2(&self, offset: u64, length: u64) -> bool;

    /// Whether the active L1 table is clear of other metadata.
    fn may_write_l1(&self) -> bool;

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

    fn may_write_l2(&self, _: u64, _: u64) -> bool {
        false
    }

    fn may_write_l1(&self) -> bool {
        false
    }

    fn write(&mut self, _: &mut S, _: u64, _: &[u8]) -> Result<(), StorageError> {
        Err(StorageError)
    }

    fn flush(&mut self, _: &mut S) -> Result<(), StorageError> {
        Err(StorageError)
    }
}

/// Whoever has leave to repair something.
pub(super) struct Mender {
    pub(super) repair: Repair,
    pub(super) guard: Guard,
}

impl<S: StorageMut> Pen<S> for Mender {
    fn repair(&self) -> Repair {
        self.repair
    }

    fn may_write_l2(&self, offset: u64, length: u64) -> bool {
        self.guard.l2(offset, length)
    }

    fn may_write_l1(&self) -> bool {
        self.guard.l1()
    }

    fn write(&mut self, storage: &mut S, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        storage.write_at(offset, bytes)
    }

    fn flush(&mut self, storage: &mut S) -> Result<(), StorageError> {
        storage.flush()
    }
}
