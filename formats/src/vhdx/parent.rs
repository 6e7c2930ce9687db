//! Section "Parent Locator": by which names a differencing image knows its parent.

use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::guid::{self, guid};
use super::{corrupt, invalid};
use crate::utf16::{ByteOrder, decode};
use crate::{BackingFile, Error, ErrorKind};

/// "Locator Type" of a parent that is a VHDX image.
const VHDX: [u8; 16] = guid(0xb04a_efb7, 0xd19e, 0x4a81, 0xb789_25b8_e944_5913);

/// The keys that are known: the GUID of the parent's data, then its names, the best first.
const KEYS: [&[u8]; 4] = [b"parent_linkage", b"relative_path", b"absolute_win32_path", b"volume_path"];

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct LocatorHeader {
    locator_type: [u8; 16],
    reserved: U16,
    key_value_count: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    key_offset: U32,
    value_offset: U32,
    key_length: U16,
    value_length: U16,
}

/// How a differencing image knows its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentLocator {
    backing: BackingFile,
    /// All names, the best first.
    names: Vec<Vec<u8>>,
    linkage: Vec<u8>,
}

impl ParentLocator {
    /// Reads the item. Names come in UTF-8.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Ok((header, mut rest)) = LocatorHeader::read_from_prefix(bytes) else { return Err(outside()) };
        if header.locator_type != VHDX {
            let message = "Parent is not a VHDX image";
            return Err(Error::new(ErrorKind::Unsupported, "LocatorType", message));
        }
        let mut values: [Option<Vec<u8>>; KEYS.len()] = [const { None }; KEYS.len()];
        for _ in 0..header.key_value_count.get() {
            let Ok((entry, next)) = Entry::read_from_prefix(rest) else { return Err(outside()) };
            rest = next;
            let key = part(bytes, entry.key_offset.get(), entry.key_length.get())?;
            let known = KEYS
                .iter()
                .zip(&mut values)
                .find(|(name, _)| key.len() == 2 * name.len() && decode(key, ByteOrder::Little) == **name);
            let Some((_, value)) = known else { continue };
            let text =
                decode(part(bytes, entry.value_offset.get(), entry.value_length.get())?, ByteOrder::Little);
            if value.replace(text).is_some() {
                let mut message = String::from("Parent locator has two values for ");
                message.extend(decode(key, ByteOrder::Little).into_iter().map(char::from));
                return Err(invalid("ParentLocator", message));
            }
        }
        let [linkage, names @ ..] = values;
        let names: Vec<Vec<u8>> = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
        let Some(name) = names.first().cloned() else {
            return Err(invalid("ParentLocator", "Differencing disk does not name its parent"));
        };
        let backing = BackingFile { name, format: Some(b"vhdx".to_vec()) };
        Ok(Self { backing, names, linkage: linkage.unwrap_or_default() })
    }

    /// The parent by the best name there is for it.
    pub fn backing(&self) -> &BackingFile {
        &self.backing
    }

    /// All names of the parent, the best first.
    pub(crate) fn names(&self) -> &[Vec<u8>] {
        &self.names
    }

    /// The GUID that the parent's data must have, as text: the image's word, empty if it has none.
    pub fn linkage(&self) -> &[u8] {
        &self.linkage
    }

    /// Whether the parent's data is the one with this GUID.
    pub fn is_linked_to(&self, guid: [u8; 16]) -> bool {
        guid::parse(&self.linkage) == Some(guid)
    }
}

fn part(bytes: &[u8], offset: u32, length: u16) -> Result<&[u8], Error> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.checked_add(usize::from(length));
    end.and_then(|end| bytes.get(start..end)).ok_or_else(outside)
}

fn outside() -> Error {
    corrupt("ParentLocator", "Parent locator points outside of itself")
}
