//! A table of tables that is changed: tables of the second level, and clusters, come to be at the end of the file.

use crate::table::Entry;
use crate::table_mut::TableMut;
use crate::two_level::Geometry;
use crate::{Error, ErrorKind, StorageMut};

/// Length of an entry in bytes.
const ENTRY_LEN: u64 = 8;

/// Both levels; at any time one table of the second is at hand.
#[derive(Debug)]
pub(crate) struct TwoLevelMut<E> {
    geometry: Geometry,
    l1: TableMut<E>,
    l2: TableMut<E>,
    /// L1 index of the table at hand.
    index: Option<u64>,
    /// Where tables and clusters may lie from: what is before is neither.
    start: u64,
    /// Length in bytes that the file has, or is going to have.
    end: u64,
}

impl<E: Entry + From<u64>> TwoLevelMut<E> {
    /// The tables of a file of `end` bytes, in which clusters begin at `start` or behind it.
    pub(crate) fn new(geometry: Geometry, start: u64, end: u64) -> Self {
        let l1 = TableMut::new(geometry.l1_offset, geometry.l1_entries);
        let l2 = TableMut::new(0, 1 << geometry.l2_bits);
        Self { geometry, l1, l2, index: None, start, end }
    }

    /// Length of a cluster in bytes.
    pub(crate) fn cluster_len(&self) -> u64 {
        1 << self.geometry.cluster_bits
    }

    /// Where the next cluster is going to be, unless a table is to come first.
    pub(crate) fn next(&self) -> Option<u64> {
        self.end.checked_next_multiple_of(self.cluster_len())
    }

    /// Takes `length` bytes at the end of the file, which begin at a multiple of `align`.
    pub(crate) fn take(&mut self, length: u64, align: u64) -> Result<u64, Error> {
        let place = self.end.checked_next_multiple_of(align);
        let taken = place.and_then(|place| Some((place, place.checked_add(length)?)));
        let (place, end) = taken.filter(|&(_, end)| end <= i64::MAX as u64).ok_or_else(|| {
            Error::new(ErrorKind::Limit, "file length", "File is too long for another cluster")
        })?;
        self.end = end;
        Ok(place)
    }

    /// Gives a cluster of the disk one at the end of the file; its table, if it is not there yet, comes before it.
    pub(crate) fn take_cluster<S: StorageMut>(
        &mut self,
        storage: &mut S,
        cluster: u64,
    ) -> Result<u64, Error> {
        self.set(storage, cluster, 0)?;
        let place = self.take(self.cluster_len(), self.cluster_len())?;
        self.set(storage, cluster, place)?;
        Ok(place)
    }

    /// What the entry of a cluster says: 0 if it has none.
    pub(crate) fn entry<S: StorageMut>(&mut self, storage: &mut S, cluster: u64) -> Result<u64, Error> {
        if !self.seek(storage, cluster)? {
            return Ok(0);
        }
        let position = cluster & ((1 << self.geometry.l2_bits) - 1);
        Ok(self.l2.get(storage, position)?.map_or(0, Entry::value))
    }

    /// Makes the entry of a cluster say `value`; its table comes to be if it is not there.
    pub(crate) fn set<S: StorageMut>(
        &mut self,
        storage: &mut S,
        cluster: u64,
        value: u64,
    ) -> Result<(), Error> {
        if !self.seek(storage, cluster)? {
            let index = cluster >> self.geometry.l2_bits;
            let table = self.take(ENTRY_LEN << self.geometry.l2_bits, self.cluster_len())?;
            self.l1.set(storage, index, E::from(table))?;
            self.l2.move_to(storage, table, None)?;
            self.index = Some(index);
        }
        let position = cluster & ((1 << self.geometry.l2_bits) - 1);
        Ok(self.l2.set(storage, position, E::from(value))?)
    }

    /// Whether a cluster has a place from `start` on, in whole: an entry that says otherwise is none.
    pub(crate) fn check_cluster(&self, cluster: u64, place: u64) -> Result<(), Error> {
        if place < self.start || place >= self.end {
            let message = alloc::format!("Cluster {cluster} at {place:#x} is not in the file");
            return Err(Error::new(ErrorKind::Corrupt, "L2 table", message));
        }
        Ok(())
    }

    /// Makes the file as long as it is going to be, and writes what is left of the tables, behind all else.
    pub(crate) fn finish<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        if storage.len() < self.end {
            storage.set_length(self.end)?;
        }
        storage.flush()?;
        self.l2.write_back(storage)?;
        self.l1.write_back(storage)?;
        Ok(storage.flush()?)
    }

    /// Goes to the table with the entry of a cluster, if there is one.
    fn seek<S: StorageMut>(&mut self, storage: &mut S, cluster: u64) -> Result<bool, Error> {
        let index = cluster >> self.geometry.l2_bits;
        if self.index == Some(index) {
            return Ok(true);
        }
        let table = self.l1.get(storage, index)?.map_or(0, Entry::value);
        if table == 0 {
            return Ok(false);
        }
        let end = table.checked_add(ENTRY_LEN << self.geometry.l2_bits);
        if table < self.start || end.is_none_or(|end| end > self.end) {
            let message = alloc::format!("L2 table offset {table:#x} is not in the file (L1 index: {index})");
            return Err(Error::new(ErrorKind::Corrupt, "L1 table", message));
        }
        self.l2.move_to(storage, table, None)?;
        self.index = Some(index);
        Ok(true)
    }
}
