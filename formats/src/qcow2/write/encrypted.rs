//! Encrypted data. Section "Header", `crypt_method`; section "Full disk encryption header pointer".

use alloc::string::String;
use core::fmt;

use super::super::types::CryptMethod;
use super::Writer;
use crate::access::Key;
use crate::crypto::{DiskCipher, SECTOR};
use crate::luks::NewHeader;
use crate::qcow::aes;
use crate::write::Place;
use crate::{Error, StorageMut};

/// Most clusters that `qemu-img` encrypts at once (`QCOW_MAX_CRYPT_CLUSTERS`).
const CLUSTERS_MAX: u64 = 32;

/// How the data of a new image is encrypted.
#[derive(Clone)]
pub enum Encryption {
    /// AES-CBC with this password as the key, long deprecated.
    Aes(String),
    /// LUKS, with this header.
    Luks(NewHeader),
}

/// Nothing of a password.
impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Aes(_)) { "Aes" } else { "Luks" })
    }
}

impl Encryption {
    pub(super) fn cipher(&self) -> Result<Cipher, Error> {
        Ok(match self {
            Self::Aes(password) => Cipher::new(CryptMethod::Aes, aes::decryptor(Key::Password(password))?),
            Self::Luks(header) => Cipher::new(CryptMethod::Luks, header.cipher()?),
        })
    }

    /// `crypt_method`.
    pub(super) fn method(&self) -> u32 {
        match self {
            Self::Aes(_) => 1,
            Self::Luks(_) => 2,
        }
    }
}

/// What encrypts the data.
#[derive(Debug)]
pub(super) struct Cipher {
    /// Whether sectors have the numbers that they have in the file, and not on the disk.
    by_file: bool,
    cipher: DiskCipher,
}

impl Cipher {
    pub(super) fn new(method: CryptMethod, cipher: DiskCipher) -> Self {
        Self { by_file: method == CryptMethod::Luks, cipher }
    }

    /// Encrypts bytes of the disk at `offset` that are stored at `place`.
    pub(super) fn encrypt(&self, offset: u64, place: &Place, bytes: &mut [u8]) {
        let first = if self.by_file { place.offset } else { offset };
        self.cipher.encrypt(first / SECTOR as u64, bytes);
    }
}

impl<S: StorageMut> Writer<S> {
    /// Where a request that begins at `offset` of the disk ends at the latest.
    pub(super) fn request_end(&self, offset: u64) -> u64 {
        match &self.cipher {
            None => u64::MAX,
            Some(_) => ((offset >> self.shape.cluster_bits) + CLUSTERS_MAX) << self.shape.cluster_bits,
        }
    }

    /// Puts a LUKS header into the image.
    pub(super) fn put_luks(&mut self, header: &NewHeader) -> Result<(), Error> {
        let (bits, length) = (self.shape.cluster_bits, header.payload_offset());
        let clusters = length.div_ceil(self.shape.cluster());
        let offset = self.space.allocate(&mut self.storage, clusters)?;
        let bytes = header.bytes();
        self.storage.write_at(offset, bytes)?;
        let rest = (clusters << bits).saturating_sub(bytes.len() as u64);
        self.storage.write_zeros(offset + bytes.len() as u64, rest)?;
        self.end = self.end.max(offset + (clusters << bits));
        if let Some(head) = &mut self.head {
            head.crypto = Some((offset, length));
        }
        Ok(())
    }
}
