//! The file under an image: random-access reads plus what the host knows about the file without reading it.

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
