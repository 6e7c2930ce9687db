//! LUKS, version 1. Field names are those of the LUKS1 on-disk format specification; checks come in `qemu-img`'s order
//! and in its words.

mod create;
mod header;
mod info;
mod unlock;
mod write;

pub use create::{Encryption, NewHeader};
pub(crate) use header::{Area, Header, probe};
pub use info::{LuksInfo, SlotInfo};
pub use write::{Target, create, open};

use crate::access::Access;
use crate::crypto::{DiskCipher, SECTOR};
use crate::{Error, ErrorKind, Extent, ExtentKind, Storage};

/// An open LUKS image.
#[derive(Debug)]
pub(crate) struct Luks {
    virtual_size: u64,
    info: LuksInfo,
    decryptor: Option<DiskCipher>,
}

impl Luks {
    pub(crate) fn open<S: Storage>(storage: &mut S, access: Access<'_>) -> Result<Self, Error> {
        // Without a key this is said before anything is read.
        let password = match access {
            Access::Metadata | Access::Check => None,
            Access::Data(key) => Some(key.password("Parameter 'key-secret' is required for cipher")?),
        };
        let header = Header::read(storage, Area::WHOLE_FILE)?;
        let decryptor = match password {
            None => None,
            Some(password) => Some(header.unlock(storage, password)?),
        };
        let info = LuksInfo::new(&header);
        let file_len = storage.len().next_multiple_of(SECTOR as u64);
        let virtual_size = file_len.checked_sub(info.payload_offset).ok_or_else(|| {
            let message = "Could not refresh total sector count: Input/output error";
            Error::new(ErrorKind::InvalidFormat, "payload-offset", message)
        })?;
        Ok(Self { virtual_size, info, decryptor })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The whole disk is cipher text; `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at(&self, offset: u64) -> Extent {
        let kind = ExtentKind::Data { offset: self.info.payload_offset + offset };
        Extent::own(offset, self.virtual_size - offset, kind)
    }

    /// What the header says.
    pub(crate) fn info(&self) -> LuksInfo {
        self.info.clone()
    }

    /// What decrypts the sectors of the disk by their numbers there, if the image was opened with a key.
    pub(crate) fn decryptor(&self) -> Option<&DiskCipher> {
        self.decryptor.as_ref()
    }
}
