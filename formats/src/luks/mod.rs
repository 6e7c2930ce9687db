//! LUKS, version 1: what the header says, without a key. Field names are those of the LUKS1 on-disk format
//! specification; checks come in `qemu-img`'s order and in its words.

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::qcow2::Access;
use crate::reader::Reader;
use crate::{Error, ErrorKind, Extent, ExtentKind, Storage};

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
const VERSION: u16 = 1;
const SECTOR: u64 = 512;
/// Sectors of the header, rounded up to a page: nothing else begins before their end.
const HEADER_SECTORS: u32 = 8;
/// `LUKS_NUMKEYS`.
const KEY_SLOTS: usize = 8;
/// `LUKS_STRIPES`.
const STRIPES: u32 = 4000;
/// `LUKS_KEY_DISABLED`.
const KEY_DISABLED: u32 = 0x0000_dead;
/// `LUKS_KEY_ENABLED`.
const KEY_ENABLED: u32 = 0x00ac_71f3;

/// A key slot as it lies in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct KeySlot {
    active: U32,
    iterations: U32,
    salt: [u8; 32],
    key_material_offset: U32,
    stripes: U32,
}

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: [u8; 6],
    version: U16,
    cipher_name: [u8; 32],
    cipher_mode: [u8; 32],
    hash_spec: [u8; 32],
    payload_offset: U32,
    key_bytes: U32,
    mk_digest: [u8; 20],
    mk_digest_salt: [u8; 32],
    mk_digest_iterations: U32,
    uuid: [u8; 40],
    key_slots: [KeySlot; KEY_SLOTS],
}

/// Whether the first bytes of a file are those of a LUKS image of version 1.
pub(crate) fn probe(head: &[u8]) -> bool {
    let version = head.get(MAGIC.len()..).and_then(|rest| U16::read_from_prefix(rest).ok());
    head.starts_with(MAGIC) && version.is_some_and(|(version, _)| version.get() == VERSION)
}

/// An open LUKS image.
#[derive(Debug)]
pub(crate) struct Luks {
    virtual_size: u64,
    payload_offset: u64,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

impl Luks {
    pub(crate) fn open<S: Storage>(storage: &mut S, access: Access) -> Result<Self, Error> {
        // There is no key; this is said before anything is read.
        if access == Access::Data {
            let message = "Parameter 'key-secret' is required for cipher";
            return Err(Error::new(ErrorKind::Unsupported, "key-secret", message));
        }
        let file_len = storage.len().next_multiple_of(SECTOR);
        let fields: Fields = Reader::new(storage).record()?;
        fields.check_head()?;
        fields.check_key_slots()?;
        let payload_offset = u64::from(fields.payload_offset.get()) * SECTOR;
        let virtual_size = file_len.checked_sub(payload_offset).ok_or_else(|| {
            invalid("payload-offset", "Could not refresh total sector count: Input/output error")
        })?;
        Ok(Self { virtual_size, payload_offset })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The whole disk is cipher text; `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at(&self, offset: u64) -> Extent {
        let kind = ExtentKind::Data { offset: self.payload_offset + offset };
        Extent::own(offset, self.virtual_size - offset, kind)
    }
}

impl Fields {
    fn check_head(&self) -> Result<(), Error> {
        if self.magic != *MAGIC {
            return Err(invalid("magic", "Volume is not in LUKS format"));
        }
        let version = self.version.get();
        if version != VERSION {
            let message = format!("LUKS version {version} is not supported");
            return Err(Error::new(ErrorKind::Unsupported, "version", message));
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

    /// Sectors of the key material of a slot.
    fn key_material_sectors(&self) -> u64 {
        (u64::from(self.key_bytes.get()) * u64::from(STRIPES)).div_ceil(SECTOR)
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
            if slot.active.get() == KEY_ENABLED && slot.iterations.get() == 0 {
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
