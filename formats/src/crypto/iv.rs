//! Initialisation vectors from sector numbers.

use alloc::boxed::Box;

use super::cipher::{Algorithm, BLOCK_MAX, BlockCipher};
use super::hash::Hash;
use crate::Error;

/// How a sector's number becomes its initialisation vector, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IvGenerator {
    /// The lower 32 bits, little-endian.
    Plain,
    /// All 64 bits, little-endian.
    Plain64,
    /// The 64 bits encrypted, a digest of the data's key being the key
    /// ([`Algorithm::for_essiv`] has checked that it can be).
    Essiv(Hash),
}

impl IvGenerator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Essiv(_) => "essiv",
        }
    }

    /// The hash that it takes, if it takes one.
    pub(crate) fn hash(self) -> Option<Hash> {
        match self {
            Self::Plain | Self::Plain64 => None,
            Self::Essiv(hash) => Some(hash),
        }
    }

    /// The generator for data that `algorithm` encrypts with `key`.
    pub(super) fn with_key(self, algorithm: Algorithm, key: &[u8]) -> Result<Generator, Error> {
        Ok(match self {
            Self::Plain => Generator::Plain,
            Self::Plain64 => Generator::Plain64,
            Self::Essiv(hash) => {
                let cipher = algorithm.for_essiv(hash.digest_len())?;
                Generator::Essiv(cipher.block_cipher(&hash.digest(&[key]))?)
            }
        })
    }
}

/// A generator with its key, if it has one.
pub(super) enum Generator {
    Plain,
    Plain64,
    Essiv(Box<dyn BlockCipher>),
}

impl Generator {
    /// The vector of a sector.
    pub(super) fn at(&self, sector: u64) -> [u8; BLOCK_MAX] {
        let number = match self {
            Self::Plain => sector & u64::from(u32::MAX),
            Self::Plain64 | Self::Essiv(_) => sector,
        };
        let mut iv = u128::from(number).to_le_bytes();
        if let Self::Essiv(cipher) = self {
            cipher.encrypt_first(&mut iv);
        }
        iv
    }
}
