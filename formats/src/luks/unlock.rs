//! From a password to the master key: every active key slot is tried in order.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::header::{Header, KeySlot, STRIPES};
use crate::crypto::{DiskCipher, Hash, Mode};
use crate::{Error, ErrorKind, Storage};

/// Most iterations of PBKDF2 to unlock an image. Eight slots made by `qemu-img` in its usual two seconds each, on a
/// processor that does 8 million SHA-256 iterations in a second and with keys of two digests, take that many; an image
/// can ask for 2^37.
const ITERATIONS_MAX: u64 = 1 << 28;

/// Iterations that are still allowed.
struct Budget(u64);

impl Budget {
    /// Takes what it costs to derive `key_len` bytes.
    fn take(&mut self, hash: Hash, iterations: u32, key_len: usize) -> Option<()> {
        let digests = key_len.div_ceil(hash.digest_len()) as u64;
        self.0 = self.0.checked_sub(u64::from(iterations).checked_mul(digests)?)?;
        Some(())
    }
}

/// Whether an image can be unlocked that has one key slot, with this many iterations and bytes for the slot and for the
/// digest of the master key.
pub(super) fn check_work(hash: Hash, slot: (u32, usize), digest: (u32, usize)) -> Result<(), Error> {
    let mut budget = Budget(ITERATIONS_MAX);
    budget.take(hash, slot.0, slot.1).ok_or_else(|| too_much(0, "iterations"))?;
    budget.take(hash, digest.0, digest.1).ok_or_else(|| too_much(0, "mk-digest-iter"))
}

fn too_much(slot: usize, field: &'static str) -> Error {
    let message = format!("Keyslot {slot} takes more than {ITERATIONS_MAX} iterations to unlock");
    Error::new(ErrorKind::Limit, field, message)
}

impl Header {
    /// What decrypts the data, if the password is that of a key slot.
    pub(crate) fn unlock<S: Storage>(&self, storage: &mut S, password: &[u8]) -> Result<DiskCipher, Error> {
        let mut budget = Budget(ITERATIONS_MAX);
        for (index, slot) in self.active_slots() {
            if let Some(key) = self.master_key(storage, password, index, slot, &mut budget)? {
                return DiskCipher::new(self.scheme, &key);
            }
        }
        Err(Error::new(ErrorKind::Key, "key-secret", "Invalid password, cannot unlock any keyslot"))
    }

    /// The master key, if the password is that of the slot.
    fn master_key<S: Storage>(
        &self,
        storage: &mut S,
        password: &[u8],
        index: usize,
        slot: &KeySlot,
        budget: &mut Budget,
    ) -> Result<Option<Vec<u8>>, Error> {
        let key_bytes = self.key_bytes();
        if self.scheme.mode == Mode::Xts && !key_bytes.is_multiple_of(2) {
            let message = "XTS cipher key length should be a multiple of 2";
            return Err(Error::new(ErrorKind::InvalidFormat, "key-bytes", message));
        }
        let too_much = |field| too_much(index, field);
        // At most 65 bytes: the header was refused if the cipher takes no such key.
        let key_len = key_bytes as usize;
        let (salt, iterations) = slot.derivation();
        let (digest, digest_salt, digest_iterations) = self.master_key_digest();
        budget.take(self.hash, iterations, key_len).ok_or_else(|| too_much("iterations"))?;
        budget.take(self.hash, digest_iterations, digest.len()).ok_or_else(|| too_much("mk-digest-iter"))?;

        let mut slot_key = vec![0; key_len];
        // The cipher may not exist in this mode: that is known before all the work.
        DiskCipher::new(self.scheme, &slot_key)?;
        self.hash.pbkdf2(password, salt, iterations, &mut slot_key);
        let mut material = vec![0; key_len * STRIPES as usize];
        let start = self.area.at(slot.key_material_offset(), material.len() as u64)?;
        storage.read_at(start, &mut material)?;
        DiskCipher::new(self.scheme, &slot_key)?.decrypt(0, &mut material);

        let key = merge(self.hash, &material, key_len);
        let mut found = [0; 20];
        self.hash.pbkdf2(&key, digest_salt, digest_iterations, &mut found);
        Ok((found == *digest).then_some(key))
    }
}

/// Merges the stripes of an anti-forensic split, each of `length` bytes. Specification, section "Anti-forensic
/// information splitter".
fn merge(hash: Hash, material: &[u8], length: usize) -> Vec<u8> {
    let mut key = vec![0; length];
    let mut stripes = material.chunks_exact(length).peekable();
    while let Some(stripe) = stripes.next() {
        for (byte, with) in key.iter_mut().zip(stripe) {
            *byte ^= with;
        }
        if stripes.peek().is_some() {
            diffuse(hash, &mut key);
        }
    }
    key
}

/// Splits a key anti-forensically: all stripes but the last, which this changes, are random.
pub(super) fn split(hash: Hash, key: &[u8], material: &mut [u8]) {
    let Some(start) = material.len().checked_sub(key.len()) else { return };
    let (random, last) = material.split_at_mut(start);
    let mut block = vec![0; key.len()];
    for stripe in random.chunks_exact(key.len().max(1)) {
        for (byte, with) in block.iter_mut().zip(stripe) {
            *byte ^= with;
        }
        diffuse(hash, &mut block);
    }
    for ((byte, with), key) in last.iter_mut().zip(block).zip(key) {
        *byte = with ^ key;
    }
}

/// Replaces each piece of a block, as long as a digest, with the digest of its number and itself.
fn diffuse(hash: Hash, block: &mut [u8]) {
    for (number, piece) in (0u32..).zip(block.chunks_mut(hash.digest_len())) {
        let digest = hash.digest(&[&number.to_be_bytes(), piece]);
        piece.copy_from_slice(&digest[..piece.len()]);
    }
}
