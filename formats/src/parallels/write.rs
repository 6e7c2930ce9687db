//! Images that are written: clusters come to be at the end of the file.

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::{Fields, Parallels, SECTOR, invalid, limit};
use crate::reader::Reader;
use crate::table_mut::TableMut;
use crate::write::{Blocks, Place, Writer, blocks_of, clear_old};
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// A Parallels image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    cluster_len: u64,
    /// Bytes that an entry of the BAT counts.
    entry_unit: u64,
    bat: TableMut<U32>,
    /// Where clusters may lie from.
    start: u64,
    /// File offset in bytes of the next cluster: whole clusters.
    next: u64,
    /// Whether there is a new cluster.
    grown: bool,
    /// From here on nothing is stored.
    written: u64,
}

/// Opens an image for writing.
///
/// # Errors
///
/// What is no Parallels image or is broken, one that was not closed or has an extension, and failures of the storage.
pub fn open<S: StorageMut>(storage: S) -> Result<Target<S>, Error> {
    let mut target = Target::of_new(storage)?;
    target.written = target.virtual_size;
    Ok(target)
}

impl<S: StorageMut> Target<S> {
    /// An image that is zeros.
    pub(super) fn of_new(mut storage: S) -> Result<Self, Error> {
        let fields: Fields = Reader::new(&mut storage).record()?;
        let image = Parallels::open(&mut storage)?;
        if fields.is_in_use() {
            let message = "Image was not closed properly and must be repaired first";
            return Err(Error::new(ErrorKind::Unsupported, "in_use", message));
        }
        if fields.ext_off.get() != 0 {
            let message = "Image with a format extension is not written to";
            return Err(Error::new(ErrorKind::Unsupported, "ext_off", message));
        }
        let (cluster_len, entries) = (image.cluster_len(), u64::from(fields.bat_entries.get()));
        let (virtual_size, entry_unit) = (image.virtual_size(), image.entry_unit);
        let bat = size_of::<Fields>() as u64;
        let start = bat + entries * size_of::<U32>() as u64;
        if start > storage.len() || virtual_size.div_ceil(cluster_len) > entries {
            return Err(invalid("bat_entries", "Catalog is shorter than the disk, or than the file says"));
        }
        let next = storage.len().max(masked(start, cluster_len)).checked_next_multiple_of(cluster_len);
        let next = next.ok_or_else(too_long)?;
        Ok(Self {
            storage,
            virtual_size,
            cluster_len,
            entry_unit,
            bat: TableMut::new(bat, entries),
            start,
            next,
            grown: false,
            written: 0,
        })
    }
}

impl<S: StorageMut> Target<S> {
    /// Says in the header that the data begins where QEMU takes it to begin, if it says less: as QEMU does when it writes.
    fn correct_data_off(&mut self) -> Result<(), Error> {
        let mut fields: Fields = Reader::new(&mut self.storage).record()?;
        let sectors = masked(self.start, self.cluster_len) / SECTOR;
        if let (1.., Ok(sectors)) = (fields.data_off.get(), u32::try_from(sectors))
            && fields.data_off.get() < sectors
        {
            fields.data_off.set(sectors);
            self.storage.write_at(0, fields.as_bytes())?;
        }
        Ok(())
    }
}

/// Where QEMU, which rounds up as if every cluster were a power of two, takes the data to begin: what lies before that its
/// check calls corrupt.
fn masked(bat_end: u64, cluster_len: u64) -> u64 {
    let but_a_sector = cluster_len.saturating_sub(SECTOR);
    bat_end.next_multiple_of(SECTOR).saturating_add(but_a_sector) & !but_a_sector
}

fn too_long() -> Error {
    limit("BAT", "File is too long for another cluster")
}

impl<S: StorageMut> Blocks for Target<S> {
    fn stride(&self) -> u64 {
        self.cluster_len
    }

    fn place(&mut self, cluster: u64) -> Result<Option<u64>, Error> {
        let entry = self.bat.get(&mut self.storage, cluster)?.map_or(0, |entry| u64::from(entry.get()));
        if entry == 0 {
            return Ok(None);
        }
        // 2^32 clusters of less than 2^31 bytes.
        let place = entry * self.entry_unit;
        if place < self.start || place >= self.next {
            let message = alloc::format!("Cluster {cluster} at {place:#x} is not in the file");
            return Err(Error::new(ErrorKind::Corrupt, "BAT", message));
        }
        Ok(Some(place))
    }

    fn next_free(&self) -> Option<u64> {
        Some(self.next)
    }

    fn take(&mut self, cluster: u64) -> Result<u64, Error> {
        let place = self.next;
        let entry = u32::try_from(place / self.entry_unit).map_err(|_| too_long())?;
        let end = place.checked_add(self.cluster_len).filter(|&end| end <= i64::MAX as u64);
        let end = end.ok_or_else(too_long)?;
        clear_old(&mut self.storage, place, self.cluster_len)?;
        self.bat.set(&mut self.storage, cluster, entry.into())?;
        (self.next, self.grown) = (end, true);
        Ok(place)
    }

    fn clear(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        Ok(self.storage.write_zeros(offset, length)?)
    }
}

impl<S: StorageMut> Writer for Target<S> {
    type Storage = S;

    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn unit(&self) -> u64 {
        SECTOR
    }

    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        let place = self.allocate_in_blocks(offset, length)?;
        self.written = self.written.max(offset + place.length);
        Ok(place)
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, SECTOR, self.virtual_size)?;
        self.clear_stored(offset, length.min(self.written.saturating_sub(offset)), self.cluster_len)
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.grown {
            if self.storage.len() < self.next {
                self.storage.set_length(self.next)?;
            }
            self.storage.flush()?;
            self.bat.write_back(&mut self.storage)?;
            self.correct_data_off()?;
            self.grown = false;
        }
        Ok(self.storage.flush()?)
    }
}
