//! Files that know which disk they are.

use alloc::string::String;

use formats::{Region, Storage, StorageError};
use protocol::{ErrorRecord, FileFacts, Need};

use crate::files::Files;

/// The files of a command, each with its disk's name.
pub struct Named<'a, F>(pub &'a mut F);

/// A file on the disk `serial`.
pub struct NamedStorage<S> {
    pub serial: String,
    storage: S,
}

impl<F: Files> Files for Named<'_, F> {
    type Storage = NamedStorage<F::Storage>;

    fn open(&mut self, facts: &FileFacts) -> Result<Self::Storage, ErrorRecord> {
        Ok(NamedStorage { serial: facts.disk.clone(), storage: self.0.open(facts)? })
    }

    fn need(&mut self, need: &Need) -> Result<FileFacts, ErrorRecord> {
        self.0.need(need)
    }
}

impl<S: Storage> Storage for NamedStorage<S> {
    fn len(&self) -> u64 {
        self.storage.len()
    }

    fn allocated(&self) -> u64 {
        self.storage.allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.storage.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.storage.region_at(offset)
    }
}
