//! What `info` says of a header, for which no key is needed.

use alloc::string::String;
use alloc::vec::Vec;

use super::header::Header;
use crate::crypto::Hash;

/// What a LUKS header says, in the names that QEMU has for algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuksInfo {
    /// Cipher and bits of a key, as in `aes-256`.
    pub cipher: String,
    /// Mode of the cipher.
    pub mode: &'static str,
    /// How initialisation vectors are made.
    pub iv_generator: &'static str,
    /// Hash for that, if it takes one.
    pub iv_hash: Option<&'static str>,
    /// Hash for the derivation of keys.
    pub hash: &'static str,
    /// `uuid`: up to 40 bytes, none of them NUL.
    pub uuid: Vec<u8>,
    /// Where the data begins, in bytes from the start of the header.
    pub payload_offset: u64,
    /// `mk-digest-iter`, at least 1.
    pub master_key_iterations: u32,
    /// The key slots, in order.
    pub slots: Vec<SlotInfo>,
}

/// A key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Where its key material begins, in bytes from the start of the header.
    pub key_offset: u64,
    /// Iterations, at least 1, and stripes, if it holds a key.
    pub active: Option<(u32, u32)>,
}

impl LuksInfo {
    pub(crate) fn new(header: &Header) -> Self {
        let (_, _, master_key_iterations) = header.master_key_digest();
        Self {
            cipher: header.scheme.algorithm.name(),
            mode: header.scheme.mode.name(),
            iv_generator: header.scheme.iv.name(),
            iv_hash: header.scheme.iv.hash().map(Hash::name),
            hash: header.hash.name(),
            uuid: header.uuid().to_vec(),
            payload_offset: header.payload_offset(),
            master_key_iterations,
            slots: header.slots().collect(),
        }
    }
}
