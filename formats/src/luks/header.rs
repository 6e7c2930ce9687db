//! The header: key slots within their bounds, and the names of ciphers and hashes understood.

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::info::SlotInfo;
use crate::crypto::{Algorithm, Hash, IvGenerator, Mode, SECTOR, Scheme};
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

pub(super) const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
pub(super) const VERSION: u16 = 1;
/// Sectors of the header, rounded up to a page: nothing else begins before their end.
pub(super) const HEADER_SECTORS: u32 = 8;
/// `LUKS_NUMKEYS`.
const KEY_SLOTS: usize = 8;
/// `LUKS_STRIPES`.
pub(super) const STRIPES: u32 = 4000;
/// `LUKS_KEY_DISABLED`.
pub(super) const KEY_DISABLED: u32 = 0x0000_dead;
/// `LUKS_KEY_ENABLED`.
pub(super) const KEY_ENABLED: u32 = 0x00ac_71f3;
/// Longest file that QEMU reads from, in bytes: 2^63 - 1 rounded down to 1 GiB.
const FILE_MAX: u64 = (i64::MAX as u64) & !((1 << 30) - 1);

/// A key slot as it lies in the file.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct KeySlot {
    pub(super) active: U32,
    pub(super) iterations: U32,
    pub(super) salt: [u8; 32],
    pub(super) key_material_offset: U32,
    pub(super) stripes: U32,
}

/// The fields as they lie in the file.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Fields {
    pub(super) magic: [u8; 6],
    pub(super) version: U16,
    pub(super) cipher_name: [u8; 32],
    pub(super) cipher_mode: [u8; 32],
    pub(super) hash_spec: [u8; 32],
    pub(super) payload_offset: U32,
    pub(super) key_bytes: U32,
    pub(super) mk_digest: [u8; 20],
    pub(super) mk_digest_salt: [u8; 32],
    pub(super) mk_digest_iterations: U32,
    pub(super) uuid: [u8; 40],
    pub(super) key_slots: [KeySlot; KEY_SLOTS],
}

/// Where a file has a header and its key material.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    /// File offset in bytes.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

impl Area {
    pub(crate) const WHOLE_FILE: Self = Self { offset: 0, length: u64::MAX };

    /// File offset of `length` bytes from `offset` of the area on, all of which it has.
    pub(super) fn at(self, offset: u64, length: u64) -> Result<u64, Error> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(invalid("header extension", "Request for data outside of extension header"));
        }
        let start = self.offset.checked_add(offset);
        start.filter(|&start| start.checked_add(length).is_some_and(|end| end <= FILE_MAX)).ok_or_else(|| {
            invalid("header extension", "Could not read encryption header: Input/output error")
        })
    }
}

/// Whether the first bytes of a file are those of a LUKS image of version 1.
pub(crate) fn probe(head: &[u8]) -> bool {
    let version = head.get(MAGIC.len()..).and_then(|rest| U16::read_from_prefix(rest).ok());
    head.starts_with(MAGIC) && version.is_some_and(|(version, _)| version.get() == VERSION)
}

/// The header, checked.
#[derive(Debug)]
pub(crate) struct Header {
    fields: Fields,
    pub(super) area: Area,
    pub(super) scheme: Scheme,
    pub(super) hash: Hash,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

fn unsupported(field: &'static str, message: String) -> Error {
    Error::new(ErrorKind::Unsupported, field, message)
}

impl Header {
    pub(crate) fn read<S: Storage>(storage: &mut S, area: Area) -> Result<Self, Error> {
        let start = area.at(0, size_of::<Fields>() as u64)?;
        let mut reader = Reader::new(storage);
        reader.seek(start);
        let fields: Fields = reader.record()?;
        fields.check_head()?;
        fields.check_key_slots()?;
        let (scheme, hash) = fields.ciphers()?;
        Ok(Self { fields, area, scheme, hash })
    }

    /// Where the data begins, in bytes from the start of the header.
    pub(crate) fn payload_offset(&self) -> u64 {
        u64::from(self.fields.payload_offset.get()) * SECTOR as u64
    }

    /// Bytes of the master key and of the key of each slot: as many as the cipher and its mode take, or one more.
    pub(super) fn key_bytes(&self) -> u32 {
        self.fields.key_bytes.get()
    }

    /// Digest of the master key by PBKDF2, its salt and its iterations, at least 1.
    pub(super) fn master_key_digest(&self) -> (&[u8; 20], &[u8; 32], u32) {
        let Fields { mk_digest, mk_digest_salt, mk_digest_iterations, .. } = &self.fields;
        (mk_digest, mk_digest_salt, mk_digest_iterations.get())
    }

    /// The identifier.
    pub(super) fn uuid(&self) -> &[u8] {
        before_nul(&self.fields.uuid)
    }

    /// All slots, in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotInfo> {
        self.fields.key_slots.iter().map(|slot| SlotInfo {
            key_offset: slot.key_material_offset(),
            active: slot.is_active().then(|| (slot.iterations.get(), slot.stripes.get())),
        })
    }

    /// The slots that hold a key, in order, with their positions.
    pub(super) fn active_slots(&self) -> impl Iterator<Item = (usize, &KeySlot)> {
        self.fields.key_slots.iter().enumerate().filter(|(_, slot)| slot.is_active())
    }
}

impl KeySlot {
    fn is_active(&self) -> bool {
        self.active.get() == KEY_ENABLED
    }

    /// Salt and iterations, at least 1, of PBKDF2.
    pub(super) fn derivation(&self) -> (&[u8; 32], u32) {
        (&self.salt, self.iterations.get())
    }

    /// Where the key material begins, in bytes from the start of the header.
    pub(super) fn key_material_offset(&self) -> u64 {
        u64::from(self.key_material_offset.get()) * SECTOR as u64
    }
}

impl Fields {
    fn check_head(&self) -> Result<(), Error> {
        if self.magic != *MAGIC {
            return Err(invalid("magic", "Volume is not in LUKS format"));
        }
        let version = self.version.get();
        if version != VERSION {
            return Err(unsupported("version", format!("LUKS version {version} is not supported")));
        }
        for (name, text, field) in [
            ("cipher name", &self.cipher_name, "cipher-name"),
            ("cipher mode", &self.cipher_mode, "cipher-mode"),
            ("hash spec", &self.hash_spec, "hash-spec"),
        ] {
            if !text.contains(&0) {
                return Err(invalid(field, format!("LUKS header {name} is not NUL terminated")));
            }
        }
        if self.payload_offset.get() < HEADER_SECTORS {
            return Err(invalid("payload-offset", "LUKS payload is overlapping with the header"));
        }
        if self.mk_digest_iterations.get() == 0 {
            return Err(invalid("mk-digest-iter", "LUKS key iteration count is zero"));
        }
        Ok(())
    }

    /// Sectors that are set aside for the key material of a slot: whole pages.
    pub(super) fn key_material_sectors(&self) -> u64 {
        (u64::from(self.key_bytes.get()) * u64::from(STRIPES))
            .div_ceil(SECTOR as u64)
            .next_multiple_of(HEADER_SECTORS.into())
    }

    /// Key material lies between the header and the payload, each slot's apart from the others'. Sums of 32-bit numbers
    /// do not wrap round here, as they do in `qemu-img`.
    fn check_key_slots(&self) -> Result<(), Error> {
        let length = self.key_material_sectors();
        let bad = |field, index: usize, what: &str| Err(invalid(field, format!("Keyslot {index} {what}")));
        for (index, slot) in self.key_slots.iter().enumerate() {
            let (stripes, start) = (slot.stripes.get(), u64::from(slot.key_material_offset.get()));
            if stripes != STRIPES {
                return bad("stripes", index, &format!("is corrupted (stripes {stripes} != {STRIPES})"));
            }
            if start < HEADER_SECTORS.into() {
                return bad("key-material-offset", index, "is overlapping with the LUKS header");
            }
            if !matches!(slot.active.get(), KEY_DISABLED | KEY_ENABLED) {
                return bad("active", index, "state (active/disable) is corrupted");
            }
            if slot.is_active() && slot.iterations.get() == 0 {
                return bad("iterations", index, "iteration count is zero");
            }
            if start + length > self.payload_offset.get().into() {
                return bad("key-material-offset", index, "is overlapping with the encrypted payload");
            }
            for (other_index, other) in self.key_slots.iter().enumerate().skip(index + 1) {
                let other = u64::from(other.key_material_offset.get());
                if start + length > other && other + length > start {
                    let message = format!("Keyslots {index} and {other_index} are overlapping in the header");
                    return Err(invalid("key-material-offset", message));
                }
            }
        }
        Ok(())
    }

    /// What `cipher-name`, `cipher-mode` (`MODE-IVGEN` or `MODE-IVGEN:HASH`) and `hash-spec` stand for.
    pub(super) fn ciphers(&self) -> Result<(Scheme, Hash), Error> {
        let hash_named = |field, name: &[u8]| {
            Hash::from_name(name).ok_or_else(|| {
                unsupported(field, format!("Hash algorithm '{}' not supported", name.escape_ascii()))
            })
        };
        let text = before_nul(&self.cipher_mode);
        let Some((mode, generator)) = split_at(text, b'-') else {
            let message = format!("Unexpected cipher mode string format '{}'", text.escape_ascii());
            return Err(invalid("cipher-mode", message));
        };
        let (generator, generator_hash) = match split_at(generator, b':') {
            None => (generator, None),
            Some((generator, hash)) => (generator, Some(hash_named("cipher-mode", hash)?)),
        };
        let mode = Mode::from_name(mode).ok_or_else(|| {
            unsupported("cipher-mode", format!("Cipher mode '{}' not supported", mode.escape_ascii()))
        })?;
        let (name, key_len) = (before_nul(&self.cipher_name), self.key_bytes.get() / mode.keys());
        let algorithm = Algorithm::find(name, key_len).ok_or_else(|| {
            let name = name.escape_ascii();
            let message = format!("Algorithm '{name}' with key size {key_len} bytes not supported");
            unsupported("cipher-name", message)
        })?;
        let hash = hash_named("hash-spec", before_nul(&self.hash_spec))?;
        let iv = match generator {
            b"plain" => IvGenerator::Plain,
            b"plain64" => IvGenerator::Plain64,
            b"essiv" => {
                let hash = generator_hash
                    .ok_or_else(|| invalid("cipher-mode", "Missing IV generator hash specification"))?;
                algorithm.for_essiv(hash.digest_len())?;
                IvGenerator::Essiv(hash)
            }
            other => {
                let message = format!("IV generator '{}' not supported", other.escape_ascii());
                return Err(unsupported("cipher-mode", message));
            }
        };
        Ok((Scheme { algorithm, mode, iv }, hash))
    }
}

/// The text of a field, without the NUL and what is behind.
fn before_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// What is before and behind the first `separator`.
fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_the_specification_puts_them() {
        use core::mem::offset_of;
        assert_eq!(size_of::<Fields>(), 592);
        assert_eq!(offset_of!(Fields, key_slots), 208);
    }

    #[test]
    fn version_2_is_not_found() {
        assert!(probe(b"LUKS\xba\xbe\0\x01"));
        assert!(!probe(b"LUKS\xba\xbe\0\x02"));
        assert!(!probe(b"LUKS\xba\xbe\0"));
    }
}
