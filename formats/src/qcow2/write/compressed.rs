//! Compressed clusters. Section "Compressed Clusters Descriptor".

use super::super::entry::{COMPRESSED, COMPRESSED_SECTOR};
use super::Writer;
use super::pages::Kind;
use crate::write::Place;
use crate::{Error, FileIndex, StorageMut};

impl<S: StorageMut> Writer<S> {
    /// A place for the cluster at `offset` of the disk as a stream of `length` bytes, unless it is to be stored as it is.
    pub(super) fn place_compressed(&mut self, offset: u64, length: u64) -> Result<Option<Place>, Error> {
        if self.shape.codec.is_none() || length == 0 || length >= self.shape.cluster() {
            return Ok(None);
        }
        let entry = self.entry_for_writing(offset >> self.shape.cluster_bits)?;
        let old = self.space.pages.word(&mut self.storage, Kind::L2, entry)?;
        let host = self.space.allocate_bytes(&mut self.storage, length)?;
        let sectors = (host + length - 1) / COMPRESSED_SECTOR - host / COMPRESSED_SECTOR;
        let descriptor = COMPRESSED | sectors << self.shape.sectors_shift() | host;
        self.space.pages.set_word(&mut self.storage, Kind::L2, entry, descriptor)?;
        if self.shape.is_extended() {
            self.space.pages.set_word(&mut self.storage, Kind::L2, entry + 8, 0)?;
        }
        if old != 0 {
            self.free_old(old)?;
        }
        self.end = self.end.max(host + length);
        Ok(Some(Place { file: FileIndex::OWN, offset: host, length }))
    }
}
