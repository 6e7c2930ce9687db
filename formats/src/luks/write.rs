//! LUKS images that are written: cipher text from the payload on, each sector in its place.

use alloc::vec::Vec;

use super::Luks;
use super::create::NewHeader;
use crate::access::{Access, Key};
use crate::crypto::{DiskCipher, SECTOR};
use crate::write::{Place, Writer, blocks_of};
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// Bytes that are encrypted at once where a disk is filled with zeros.
const CHUNK: usize = 64 << 10;

/// A LUKS image that is open for writing.
#[derive(Debug)]
pub struct Target<S> {
    storage: S,
    virtual_size: u64,
    payload_offset: u64,
    cipher: DiskCipher,
}

/// Makes `storage`, an empty file, a LUKS image of a disk of `size` bytes. What the disk holds is not said before it is written.
///
/// # Errors
///
/// A disk of 2^63 bytes or more, with its header, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, header: &NewHeader, size: u64) -> Result<Target<S>, Error> {
    let payload_offset = header.payload_offset();
    let end = size.checked_add(payload_offset).filter(|&end| end <= i64::MAX as u64 - SECTOR as u64);
    let Some(end) = end else {
        return Err(Error::new(ErrorKind::Limit, "size", "The requested file size is too large"));
    };
    storage.set_length(end)?;
    storage.write_at(0, header.bytes())?;
    let virtual_size = size.next_multiple_of(SECTOR as u64);
    Ok(Target { storage, virtual_size, payload_offset, cipher: header.cipher()? })
}

/// Opens an image for writing.
///
/// # Errors
///
/// What is no LUKS image or is broken, a key that is missing or wrong, and failures of the storage.
pub fn open<S: StorageMut>(mut storage: S, key: Key<'_>) -> Result<Target<S>, Error> {
    let Luks { virtual_size, info, decryptor } = Luks::open(&mut storage, Access::Data(key))?;
    let message = "Parameter 'key-secret' is required for cipher";
    let cipher = decryptor.ok_or_else(|| Error::new(ErrorKind::Key, "key-secret", message))?;
    Ok(Target { storage, virtual_size, payload_offset: info.payload_offset, cipher })
}

impl<S: StorageMut> Writer for Target<S> {
    type Storage = S;

    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn unit(&self) -> u64 {
        SECTOR as u64
    }

    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        blocks_of(offset, length, SECTOR as u64, self.virtual_size)?;
        Ok(Place { file: FileIndex::OWN, offset: self.payload_offset + offset, length })
    }

    fn allocate_compressed(&mut self, _offset: u64, _stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, SECTOR as u64, self.virtual_size)?;
        let (mut at, end) = (offset, offset + length);
        let mut bytes = Vec::new();
        while at < end {
            let now = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            bytes.clear();
            bytes.resize(now, 0);
            self.cipher.encrypt(at / SECTOR as u64, &mut bytes);
            self.storage.write_at(self.payload_offset + at, &bytes)?;
            at += now as u64;
        }
        Ok(())
    }

    fn encrypts(&self) -> bool {
        true
    }

    fn encode(&self, offset: u64, _place: &Place, bytes: &mut [u8]) {
        self.cipher.encrypt(offset / SECTOR as u64, bytes);
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        (file == FileIndex::OWN).then_some(&mut self.storage)
    }

    fn finish(&mut self) -> Result<(), Error> {
        Ok(self.storage.flush()?)
    }
}

impl<S> Target<S> {
    /// The file.
    pub fn into_storage(self) -> S {
        self.storage
    }
}
