//! Encryption of disk images sector by sector: which ciphers, modes, initialisation vectors and hashes there are, by the
//! names that LUKS headers have for them. The arithmetic is RustCrypto's; nothing here knows where keys come from.

mod cipher;
mod hash;
mod iv;

use alloc::boxed::Box;
use core::fmt;

pub(crate) use cipher::{Algorithm, Mode};
pub(crate) use hash::Hash;
pub(crate) use iv::IvGenerator;

use crate::Error;
use cipher::SectorCipher;

/// Unit of encryption in bytes: every sector has an initialisation vector of its own.
pub(crate) const SECTOR: usize = 512;

/// How sectors are encrypted, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheme {
    pub(crate) algorithm: Algorithm,
    pub(crate) mode: Mode,
    pub(crate) iv: IvGenerator,
}

/// Decrypts and encrypts sectors with one key.
pub(crate) struct DiskCipher {
    cipher: Box<dyn SectorCipher>,
    iv: iv::Generator,
}

/// Nothing of the key.
impl fmt::Debug for DiskCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskCipher")
    }
}

impl DiskCipher {
    /// `key` is as long as the algorithm and mode ask for.
    pub(crate) fn new(scheme: Scheme, key: &[u8]) -> Result<Self, Error> {
        let cipher = scheme.algorithm.sector_cipher(scheme.mode, key)?;
        Ok(Self { cipher, iv: scheme.iv.with_key(scheme.algorithm, key)? })
    }

    /// Decrypts sectors in place, the first of them of this number. A last one that is cut off must be whole blocks of
    /// the cipher.
    pub(crate) fn decrypt(&self, first_sector: u64, data: &mut [u8]) {
        for (sector, data) in (first_sector..).zip(data.chunks_mut(SECTOR)) {
            self.cipher.decrypt(&self.iv.at(sector), data);
        }
    }

    /// Encrypts sectors in place; see [`decrypt`](Self::decrypt).
    pub(crate) fn encrypt(&self, first_sector: u64, data: &mut [u8]) {
        for (sector, data) in (first_sector..).zip(data.chunks_mut(SECTOR)) {
            self.cipher.encrypt(&self.iv.at(sector), data);
        }
    }
}
