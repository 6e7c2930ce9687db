//! Raw images: the file is the disk, or a part of it is, and its holes are the disk's zeros.

mod write;

use alloc::format;

pub use write::{Create, Target, create, open};

use crate::{Error, ErrorKind, Extent, ExtentKind, Regions, Storage};

/// Unit of a raw disk's size in bytes: a file that ends within a sector makes a whole one, its rest zero.
const SECTOR: u64 = 512;

/// A raw image.
#[derive(Debug)]
pub(crate) struct Raw {
    /// File offset in bytes of the first byte of the disk.
    start: u64,
    virtual_size: u64,
    regions: Regions,
}

impl Raw {
    pub(crate) fn open<S: Storage>(storage: &S) -> Result<Self, Error> {
        Ok(Self { start: 0, virtual_size: sectors(storage.len())?, regions: Regions::default() })
    }

    /// The part of the file that begins at the offset `start` and is `size` bytes long, or goes on to its end.
    pub(crate) fn open_window<S: Storage>(storage: &S, start: u64, size: Option<u64>) -> Result<Self, Error> {
        let outside = |field, message| Err(Error::new(ErrorKind::Limit, field, message));
        let file_len = sectors(storage.len())?;
        let Some(rest) = file_len.checked_sub(start) else {
            let message =
                format!("Offset ({start}) cannot be greater than size of the containing file ({file_len})");
            return outside("offset", message);
        };
        let size = match size {
            Some(size) if size > rest => {
                let message = format!(
                    "The sum of offset ({start}) and size ({size}) has to be smaller or equal to the  actual size of the containing file ({file_len})"
                );
                return outside("size", message);
            }
            Some(size) if !size.is_multiple_of(SECTOR) => {
                return outside("size", format!("Specified size is not multiple of {SECTOR}"));
            }
            Some(size) => size,
            None => sectors(rest)?,
        };
        Ok(Self { start, virtual_size: size, regions: Regions::default() })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let place = self.start.saturating_add(offset);
        let run = self.regions.at(storage, place, self.virtual_size - offset)?;
        let kind = if run.zero {
            ExtentKind::Zero { offset: Some(place) }
        } else {
            ExtentKind::Data { offset: place }
        };
        Ok(Extent::own(offset, run.length, kind))
    }
}

/// The length of a disk of `bytes` bytes, in bytes.
fn sectors(bytes: u64) -> Result<u64, Error> {
    bytes.checked_next_multiple_of(SECTOR).filter(|&size| size <= i64::MAX as u64).ok_or_else(|| {
        let message = "Could not refresh total sector count: File too large";
        Error::new(ErrorKind::Limit, "file length", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_last_sector_is_zero() {
        let bytes = [1; 1025];
        let mut storage = &bytes[..];
        let mut raw = Raw::open(&storage).unwrap();
        assert_eq!(raw.virtual_size(), 1536);
        let data = raw.extent_at(&mut storage, 0).unwrap();
        assert_eq!(data, Extent::own(0, 1025, ExtentKind::Data { offset: 0 }));
        let tail = raw.extent_at(&mut storage, 1025).unwrap();
        assert_eq!(tail, Extent::own(1025, 511, ExtentKind::Zero { offset: Some(1025) }));
    }

    #[test]
    fn a_part_of_a_file_is_a_disk_of_its_own() {
        let bytes = [1; 1025];
        let mut storage = &bytes[..];
        let mut raw = Raw::open_window(&storage, 100, None).unwrap();
        assert_eq!(raw.virtual_size(), 1536);
        let data = raw.extent_at(&mut storage, 0).unwrap();
        assert_eq!(data, Extent::own(0, 925, ExtentKind::Data { offset: 100 }));
        let tail = raw.extent_at(&mut storage, 925).unwrap();
        assert_eq!(tail, Extent::own(925, 611, ExtentKind::Zero { offset: Some(1025) }));
        assert_eq!(Raw::open_window(&storage, 512, Some(512)).unwrap().virtual_size(), 512);
        assert_eq!(Raw::open_window(&storage, 1536, None).unwrap().virtual_size(), 0);
        let why = |start, size| Raw::open_window(&storage, start, size).unwrap_err().message;
        assert_eq!(
            why(u64::MAX, Some(1)),
            format!("Offset ({}) cannot be greater than size of the containing file (1536)", u64::MAX)
        );
        assert!(why(1024, Some(u64::MAX)).starts_with("The sum of offset (1024) and size ("));
        assert_eq!(why(0, Some(1000)), "Specified size is not multiple of 512");
    }

    #[test]
    fn an_empty_file_is_an_empty_disk() {
        assert_eq!(Raw::open(&&[][..]).unwrap().virtual_size(), 0);
    }
}
