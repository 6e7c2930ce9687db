//! The one type that files have in the guest, whatever is behind them: so each parser is in its program once.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::{cell::RefCell, ops::Range};

use drivers::Landing;
use formats::{Region, Storage, StorageError, StorageMut};

use crate::{mover::StartWrite, ops::compare::StartRead};

/// What a file can do.
pub trait Access: StartRead + StartWrite {}

impl<A: StartRead + StartWrite> Access for A {}

/// A file. Clones of it are the same file, to look at it in more than one way.
#[derive(Clone)]
pub struct File {
    disk: Rc<str>,
    behind: Rc<RefCell<dyn Access>>,
}

impl File {
    /// The file behind the disk with the serial number `disk`.
    pub fn new(disk: &str, behind: impl Access + 'static) -> Self {
        Self { disk: disk.into(), behind: Rc::new(RefCell::new(behind)) }
    }

    /// The serial number of the disk.
    pub fn disk(&self) -> &str {
        &self.disk
    }
}

impl Storage for File {
    fn len(&self) -> u64 {
        self.behind.borrow().len()
    }

    fn allocated(&self) -> u64 {
        self.behind.borrow().allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.behind.borrow_mut().read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.behind.borrow_mut().region_at(offset)
    }
}

impl StorageMut for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.behind.borrow_mut().write_at(offset, bytes)
    }

    fn write_zeros(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.behind.borrow_mut().write_zeros(offset, length)
    }

    fn set_aside(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.behind.borrow_mut().set_aside(offset, length)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.behind.borrow_mut().flush()
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        self.behind.borrow_mut().set_length(length)
    }
}

impl StartRead for File {
    fn start_read(
        &mut self,
        offset: u64,
        landing: &Rc<Landing>,
        part: Range<usize>,
    ) -> Result<bool, StorageError> {
        self.behind.borrow_mut().start_read(offset, landing, part)
    }

    fn finish_reads(&mut self) -> Result<(), StorageError> {
        self.behind.borrow_mut().finish_reads()
    }
}

impl StartWrite for File {
    fn start_write(
        &mut self,
        offset: u64,
        bytes: &Rc<Vec<u8>>,
        part: Range<usize>,
    ) -> Result<(), StorageError> {
        self.behind.borrow_mut().start_write(offset, bytes, part)
    }

    fn reap(&mut self, wait: bool) -> Result<(), StorageError> {
        self.behind.borrow_mut().reap(wait)
    }
}
