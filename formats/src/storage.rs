//! The file under an image: random-access reads plus what the host knows about the file without reading it, and writes
//! where the file is to be changed.

use alloc::vec;
use alloc::vec::Vec;

/// A file that holds an image or a part of one. Offsets and lengths are bytes.
pub trait Storage {
    /// Length of the file in bytes.
    fn len(&self) -> u64;

    /// Whether the file has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of disk space the file takes (`st_blocks * 512`); less than [`len`](Self::len) for a sparse file.
    fn allocated(&self) -> u64;

    /// Fills `buf` from `offset`. Bytes at or past the end of the file read as zero, as they do below `qemu-img`:
    /// a caller for whom that would be wrong compares with [`len`](Self::len) first.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError>;

    /// What the file system says of the byte at `offset`, and for how long (from `offset`) that answer holds.
    /// `offset` is below [`len`](Self::len); the answer never reaches past the end of the file.
    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError>;
}

/// A file that is changed. What is written counts as written after [`flush`](Self::flush); what was written before
/// another write can be on the disk after it, unless there was a flush between the two.
///
/// What the file system says of holes ([`Storage::region_at`]) is of no use for a file that was written to.
pub trait StorageMut: Storage {
    /// Writes `bytes` at `offset`. The file grows if they end behind its end; what lies between reads as zeros.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes `length` bytes from `offset` on read as zeros, as if they were written.
    fn write_zeros(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        fill_with_zeros(self, offset, length)
    }

    /// As [`write_zeros`](Self::write_zeros), with disk space set aside for the bytes.
    fn set_aside(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        fill_with_zeros(self, offset, length)
    }

    /// Waits until everything written is on the disk, and the file as long as it should be.
    fn flush(&mut self) -> Result<(), StorageError>;

    /// Cuts the file to `length` bytes, or makes it that long; new bytes read as zeros.
    fn set_length(&mut self, length: u64) -> Result<(), StorageError>;
}

/// Writes `length` zeros from `offset` on.
pub fn fill_with_zeros<S: StorageMut + ?Sized>(
    storage: &mut S,
    offset: u64,
    length: u64,
) -> Result<(), StorageError> {
    fill(storage, offset, length, 0)
}

/// Writes `length` bytes from `offset` on, all of them `byte`.
pub(crate) fn fill<S: StorageMut + ?Sized>(
    storage: &mut S,
    offset: u64,
    length: u64,
    byte: u8,
) -> Result<(), StorageError> {
    let bytes = vec![byte; usize::try_from(length).unwrap_or(usize::MAX).min(FILLED)];
    let mut done = 0;
    while done < length {
        let count = usize::try_from(length - done).unwrap_or(usize::MAX).min(FILLED);
        let place = offset.checked_add(done).ok_or(StorageError)?;
        storage.write_at(place, bytes.get(..count).unwrap_or(&bytes))?;
        done += count as u64;
    }
    Ok(())
}

/// A run of bytes of a file that are all stored, or all a hole (`SEEK_DATA`/`SEEK_HOLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Length of the run in bytes, at least 1.
    pub length: u64,
    /// Whether the run is a hole, which reads as zeros.
    pub hole: bool,
}

/// The device or file under the image failed; there is nothing more to know in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageError;

/// Bytes that are written at once where many are the same.
const FILLED: usize = 256 << 10;

/// Most bytes of a file in memory: what a hostile image could make it grow to.
const MEMORY_MAX: u64 = 1 << 30;

/// A file in memory, all of it stored.
impl Storage for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn allocated(&self) -> u64 {
        Storage::len(self)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or(&[]);
        let length = rest.len().min(buf.len());
        let (stored, beyond) = buf.split_at_mut(length);
        stored.copy_from_slice(&rest[..length]);
        beyond.fill(0);
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: Storage::len(self).saturating_sub(offset), hole: false })
    }
}

/// A file in memory, all of it stored.
impl Storage for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn allocated(&self) -> u64 {
        Storage::len(self)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.as_slice().read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.as_slice().region_at(offset)
    }
}

/// A file in memory, of at most 1 GiB.
impl StorageMut for Vec<u8> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(StorageError)?;
        if end > Storage::len(self) {
            self.set_length(end)?;
        }
        let start = usize::try_from(offset).map_err(|_| StorageError)?;
        let place = self.get_mut(start..start + bytes.len()).ok_or(StorageError)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        let length = usize::try_from(length.min(MEMORY_MAX + 1)).map_err(|_| StorageError)?;
        if length as u64 > MEMORY_MAX {
            return Err(StorageError);
        }
        self.resize(length, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_file_in_memory_grows_where_it_is_written() {
        let mut file = vec![1_u8; 4];
        file.write_at(2, &[2, 2]).unwrap();
        file.write_at(6, &[3]).unwrap();
        assert_eq!(file, [1, 1, 2, 2, 0, 0, 3]);
        file.set_length(3).unwrap();
        assert_eq!(file, [1, 1, 2]);
        assert_eq!(file.write_at(u64::MAX, &[1]), Err(StorageError));
        assert_eq!(file.write_at(MEMORY_MAX, &[1]), Err(StorageError));
        assert_eq!(file.set_length(u64::MAX), Err(StorageError));
        let mut past = [9; 2];
        file.read_at(2, &mut past).unwrap();
        assert_eq!(past, [2, 0]);
    }
}
