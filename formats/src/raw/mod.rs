//! Raw images: the file is the disk, and its holes are the disk's zeros.

use crate::{Error, ErrorKind, Extent, ExtentKind, Regions, Storage};

/// Unit of a raw disk's size in bytes: a file that ends within a sector makes a whole one, its rest zero.
const SECTOR: u64 = 512;

/// A raw image.
#[derive(Debug)]
pub(crate) struct Raw {
    virtual_size: u64,
    regions: Regions,
}

impl Raw {
    pub(crate) fn open<S: Storage>(storage: &S) -> Result<Self, Error> {
        let virtual_size =
            storage.len().checked_next_multiple_of(SECTOR).filter(|&size| size <= i64::MAX as u64);
        let Some(virtual_size) = virtual_size else {
            let message = "Could not refresh total sector count: File too large";
            return Err(Error::new(ErrorKind::Limit, "file length", message));
        };
        Ok(Self { virtual_size, regions: Regions::default() })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let run = self.regions.at(storage, offset, self.virtual_size - offset)?;
        let kind =
            if run.zero { ExtentKind::Zero { offset: Some(offset) } } else { ExtentKind::Data { offset } };
        Ok(Extent::own(offset, run.length, kind))
    }
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
    fn an_empty_file_is_an_empty_disk() {
        assert_eq!(Raw::open(&&[][..]).unwrap().virtual_size(), 0);
    }
}
