//! New headers, as `qemu-img` makes them.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::header::{Fields, HEADER_SECTORS, KEY_DISABLED, KEY_ENABLED, MAGIC, STRIPES, VERSION};
use super::unlock::{check_work, split};
use crate::crypto::{Algorithm, DiskCipher, Hash, Mode, SECTOR, Scheme};
use crate::{Error, ErrorKind};

/// Least iterations of PBKDF2 that `qemu-img` makes (`QCRYPTO_BLOCK_LUKS_MIN_SLOT_KEY_ITERS`,
/// `QCRYPTO_BLOCK_LUKS_MIN_MASTER_KEY_ITERS`).
const ITERATIONS_MIN: u32 = 1000;

/// Bytes of a salt.
const SALT_LEN: usize = 32;
/// Bytes of the digest of the master key.
const DIGEST_LEN: usize = 20;

/// How a new image is to be encrypted. Names are those of `qemu-img`'s options.
#[derive(Clone, Copy)]
pub struct Encryption<'a> {
    /// `cipher-alg`, as in `aes-256`.
    pub cipher: &'a str,
    /// `cipher-mode`.
    pub mode: &'a str,
    /// `ivgen-alg`.
    pub iv_generator: &'a str,
    /// `ivgen-hash-alg`; `essiv` takes SHA-256 without one.
    pub iv_hash: Option<&'a str>,
    /// `hash-alg`.
    pub hash: &'a str,
    /// The password of the first key slot.
    pub password: &'a [u8],
    /// Iterations that make a key of the password; 1000 at least. `qemu-img` makes as many as take `iter-time`.
    pub slot_iterations: u32,
    /// Iterations for the digest of the master key; 1000 at least. `qemu-img` makes as many as take an eighth of that.
    pub digest_iterations: u32,
}

impl<'a> Encryption<'a> {
    /// What `qemu-img` has as defaults, with a password.
    pub fn new(password: &'a [u8], slot_iterations: u32) -> Self {
        Self {
            cipher: "aes-256",
            mode: "xts",
            iv_generator: "plain64",
            iv_hash: None,
            hash: "sha256",
            password,
            slot_iterations,
            digest_iterations: slot_iterations / 8,
        }
    }
}

/// Nothing of the password.
impl fmt::Debug for Encryption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encryption({}-{}-{}:{:?})", self.cipher, self.mode, self.iv_generator, self.iv_hash)
    }
}

/// A new header with its master key, to be put into a file.
#[derive(Clone)]
pub struct NewHeader {
    /// Header, and key material of the first slot; what follows up to the payload are zeros.
    bytes: Vec<u8>,
    payload_offset: u64,
    scheme: Scheme,
    key: Vec<u8>,
}

/// Nothing of the key.
impl fmt::Debug for NewHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewHeader({:?})", self.scheme)
    }
}

impl NewHeader {
    /// A header with its first key slot in use. `random` fills a buffer with bytes that nobody can guess: master key, salts,
    /// identifier, and some 256 KB of key material. Costs the iterations. `unsupported` and `invalid-format` are a cipher, mode,
    /// generator or hash that is not known, or not together, in `qemu-img`'s words.
    pub fn new(how: &Encryption<'_>, random: &mut dyn FnMut(&mut [u8])) -> Result<Self, Error> {
        let (algorithm, mode) = how.cipher()?;
        let key_bytes = key_bytes(algorithm, mode);
        let mut fields = Fields::new_zeroed();
        fields.magic = *MAGIC;
        fields.version = U16::new(VERSION);
        put(&mut fields.cipher_name, algorithm.family_name());
        put(&mut fields.cipher_mode, &how.mode_text());
        put(&mut fields.hash_spec, how.hash);
        fields.key_bytes = U32::new(u32::try_from(key_bytes).unwrap_or(u32::MAX));
        let (scheme, hash) = fields.ciphers()?;

        let mut key = vec![0; key_bytes];
        random(&mut key);
        let mut uuid = [0; 16];
        random(&mut uuid);
        put(&mut fields.uuid, &uuid_text(uuid));
        random(&mut fields.mk_digest_salt);
        let iterations = how.digest_iterations.max(ITERATIONS_MIN);
        fields.mk_digest_iterations = U32::new(iterations);
        // The cipher may not exist in this mode: that is known before all the work.
        DiskCipher::new(scheme, &key)?;
        check_work(hash, (how.slot_iterations.max(ITERATIONS_MIN), key_bytes), (iterations, DIGEST_LEN))?;
        hash.pbkdf2(&key, &fields.mk_digest_salt, iterations, &mut fields.mk_digest);

        let material_sectors = fields.key_material_sectors();
        let mut place = u64::from(HEADER_SECTORS);
        for slot in &mut fields.key_slots {
            slot.active = U32::new(KEY_DISABLED);
            slot.stripes = U32::new(STRIPES);
            slot.key_material_offset = U32::new(u32::try_from(place).unwrap_or(u32::MAX));
            place += material_sectors;
        }
        fields.payload_offset = U32::new(u32::try_from(place).unwrap_or(u32::MAX));
        let material = key_material(how, &mut fields, (scheme, hash), &key, random)?;
        let mut bytes = Vec::from(fields.as_bytes());
        bytes.resize(HEADER_SECTORS as usize * SECTOR, 0);
        bytes.extend(material);
        Ok(Self { bytes, payload_offset: place * SECTOR as u64, scheme, key })
    }

    /// Where the payload begins, in bytes from the start of the header.
    pub fn payload_offset(&self) -> u64 {
        self.payload_offset
    }

    /// Header and key material; what follows up to the payload are zeros.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn cipher(&self) -> Result<DiskCipher, Error> {
        DiskCipher::new(self.scheme, &self.key)
    }
}

impl Encryption<'_> {
    /// Does the work that `iterations` for the first key slot are, so that it can be timed. Errors are those of
    /// [`NewHeader::new`].
    pub fn slot_cost(&self, iterations: u32) -> Result<(), Error> {
        let (algorithm, mode) = self.cipher()?;
        self.hash()?.pbkdf2(
            self.password,
            &[0; SALT_LEN],
            iterations,
            &mut vec![0; key_bytes(algorithm, mode)],
        );
        Ok(())
    }

    /// As [`slot_cost`](Self::slot_cost), for the digest of the master key.
    pub fn digest_cost(&self, iterations: u32) -> Result<(), Error> {
        let (algorithm, mode) = self.cipher()?;
        let key = vec![0; key_bytes(algorithm, mode)];
        self.hash()?.pbkdf2(&key, &[0; SALT_LEN], iterations, &mut [0; DIGEST_LEN]);
        Ok(())
    }

    fn cipher(&self) -> Result<(Algorithm, Mode), Error> {
        let algorithm = Algorithm::from_name(self.cipher).ok_or_else(|| {
            unsupported("cipher-name", format!("Algorithm '{}' not supported", self.cipher))
        })?;
        let mode = Mode::from_name(self.mode.as_bytes()).ok_or_else(|| {
            unsupported("cipher-mode", format!("Cipher mode '{}' not supported", self.mode))
        })?;
        Ok((algorithm, mode))
    }

    fn hash(&self) -> Result<Hash, Error> {
        let unknown = || unsupported("hash-spec", format!("Hash algorithm '{}' not supported", self.hash));
        Hash::from_name(self.hash.as_bytes()).ok_or_else(unknown)
    }

    /// `cipher-mode` of the header: `MODE-IVGEN` or `MODE-IVGEN:HASH`.
    fn mode_text(&self) -> String {
        let hash = match self.iv_hash {
            None if self.iv_generator == "essiv" => Some("sha256"),
            hash => hash,
        };
        let (mode, generator) = (self.mode, self.iv_generator);
        hash.map_or_else(|| format!("{mode}-{generator}"), |hash| format!("{mode}-{generator}:{hash}"))
    }
}

/// Puts the key into the first slot, and gives its key material.
fn key_material(
    how: &Encryption<'_>,
    fields: &mut Fields,
    (scheme, hash): (Scheme, Hash),
    key: &[u8],
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Vec<u8>, Error> {
    let [slot, ..] = &mut fields.key_slots;
    let iterations = how.slot_iterations.max(ITERATIONS_MIN);
    slot.active = U32::new(KEY_ENABLED);
    slot.iterations = U32::new(iterations);
    random(&mut slot.salt);
    let mut slot_key = vec![0; key.len()];
    hash.pbkdf2(how.password, &slot.salt, iterations, &mut slot_key);
    let mut material = vec![0; key.len() * STRIPES as usize];
    random(&mut material);
    split(hash, key, &mut material);
    DiskCipher::new(scheme, &slot_key)?.encrypt(0, &mut material);
    Ok(material)
}

/// Bytes of the master key.
fn key_bytes(algorithm: Algorithm, mode: Mode) -> usize {
    algorithm.key_len() * mode.keys() as usize
}

fn unsupported(field: &'static str, message: String) -> Error {
    Error::new(ErrorKind::Unsupported, field, message)
}

/// Puts a text into a field of zeros; what has no room is left out, so that it ends in one.
fn put(field: &mut [u8], text: &str) {
    let room = field.len().saturating_sub(1);
    for (byte, with) in field.iter_mut().zip(text.bytes().take(room)) {
        *byte = with;
    }
}

/// A random UUID (version 4, RFC 9562) as text.
fn uuid_text(bytes: [u8; 16]) -> String {
    let mut number = u128::from_be_bytes(bytes);
    number = number & !(0xf << 76) | 0x4 << 76;
    number = number & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{number:032x}");
    let mut text = String::new();
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_says_that_it_is_random() {
        assert_eq!(uuid_text([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid_text([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let how = Encryption::new(b"secret", 1);
        let header = NewHeader::new(&how, &mut |bytes| bytes.fill(7)).unwrap();
        for text in [format!("{how:?}"), format!("{header:?}")] {
            assert!(!text.contains("secret") && !text.contains("7, 7"), "{text}");
        }
    }
}
