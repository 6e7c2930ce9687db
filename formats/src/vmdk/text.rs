//! The descriptor: text that says what the disk is made of. Section "The Descriptor File" of the VMDK specification
//! ("Virtual Disk Format 5.0"), read the way QEMU reads it: a key's value is what follows the first place where the
//! key's letters stand, and the text ends at its first NUL.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::lines::{self, Line};
use super::types::CreateType;
use crate::reader::{Reader, c_string};
use crate::{BackingFile, Error, ErrorKind, Storage};

/// Longest descriptor that is a file of its own, in bytes: QEMU looks at no more.
const TEXT_MAX: u64 = (1 << 20) - 1;
/// Place of a descriptor inside a sparse file, in bytes: QEMU's, which does not ask the header.
pub(super) const EMBEDDED_OFFSET: u64 = 512;
/// Bytes of a descriptor inside a sparse file: 20 sectors, QEMU's `DESC_SIZE`.
pub(super) const EMBEDDED_LEN: usize = 20 * 512;
/// Longest name of the parent in bytes: what fits into QEMU's `auto_backing_file`.
const PARENT_NAME_MAX: usize = 4095;
/// Longest `createType` in bytes that QEMU takes for one.
const CREATE_TYPE_MAX: usize = 127;

/// A descriptor's text, without what follows its first NUL.
#[derive(Debug)]
pub(super) struct Text(Vec<u8>);

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

impl Text {
    /// The file as a descriptor from `offset` on.
    pub(super) fn read<S: Storage>(reader: &mut Reader<'_, S>, offset: u64) -> Result<Self, Error> {
        let rest = reader.file_len().saturating_sub(offset);
        reader.seek(offset);
        let text = c_string(reader.bytes(usize::try_from(rest.min(TEXT_MAX)).unwrap_or(0))?);
        if text.len() as u64 == TEXT_MAX && rest > TEXT_MAX {
            let message = format!("Descriptor is longer than {TEXT_MAX} bytes");
            return Err(Error::new(ErrorKind::Limit, "descriptor", message));
        }
        Ok(Self(text))
    }

    /// The descriptor inside a sparse file.
    pub(super) fn read_embedded<S: Storage>(reader: &mut Reader<'_, S>) -> Result<Self, Error> {
        reader.seek(EMBEDDED_OFFSET);
        Ok(Self(c_string(reader.bytes(EMBEDDED_LEN)?)))
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'\n')
    }

    /// What follows the first `key` and `skip` bytes more.
    fn after(&self, key: &[u8], skip: usize) -> Option<&[u8]> {
        let position = self.0.windows(key.len()).position(|window| window == key)?;
        self.0.get(position.checked_add(key.len())?.checked_add(skip)?..)
    }

    /// The value of `key="value"`, if its end is there.
    pub(super) fn quoted(&self, key: &[u8]) -> Option<&[u8]> {
        let value = self.after(key, 2)?;
        value.get(..value.iter().position(|&byte| byte == b'"')?)
    }

    /// `createType`: one of those that can be told from a descriptor alone.
    pub(super) fn create_type(&self) -> Result<CreateType, Error> {
        let value = self
            .quoted(b"createType")
            .filter(|value| <[u8]>::len(value) <= CREATE_TYPE_MAX)
            .ok_or_else(|| invalid("createType", "invalid VMDK image descriptor"))?;
        CreateType::of_descriptor(value).ok_or_else(|| {
            let message = format!("Unsupported image type '{}'", String::from_utf8_lossy(value));
            Error::new(ErrorKind::Unsupported, "createType", message)
        })
    }

    /// The extent descriptions.
    pub(super) fn extents(&self) -> Result<Vec<Line>, Error> {
        lines::parse(&self.0)
    }

    /// `parentFileNameHint`: an empty name is none.
    pub(super) fn parent(&self) -> Result<Option<BackingFile>, Error> {
        const KEY: &[u8] = b"parentFileNameHint";
        let Some(name) = self.quoted(KEY) else {
            return match self.after(KEY, 0) {
                None => Ok(None),
                Some(_) => Err(invalid("parentFileNameHint", "Name of the parent does not end")),
            };
        };
        if <[u8]>::len(name) > PARENT_NAME_MAX {
            return Err(invalid("parentFileNameHint", "Name of the parent is too long"));
        }
        let format = Some(b"vmdk".to_vec());
        Ok((!name.is_empty()).then(|| BackingFile { name: name.to_vec(), format }))
    }

    /// `CID`: the content id.
    pub(super) fn cid(&self) -> Result<u32, Error> {
        self.after(b"CID", 1).and_then(hexadecimal).ok_or_else(|| invalid("CID", "Descriptor has no CID"))
    }

    /// `parentCID`: the content id that the parent must have.
    pub(super) fn parent_cid(&self) -> Result<u32, Error> {
        let value = self.after(b"parentCID", 1).and_then(hexadecimal);
        value.ok_or_else(|| invalid("parentCID", "Descriptor has no parentCID"))
    }
}

/// A number as C's `%x` reads it: blanks, a sign, `0x`, at least one digit; cut to 32 bits.
fn hexadecimal(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii_start();
    let (negative, text) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let text = match text {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => rest,
        _ => text,
    };
    let digits = text.iter().map_while(|&byte| char::from(byte).to_digit(16));
    let value = digits
        .fold(None, |value: Option<u64>, digit| {
            let value = value.unwrap_or(0);
            Some(value.checked_mul(16).map_or(u64::MAX, |value| value | u64::from(digit)))
        })
        .map(|value| if negative { value.wrapping_neg() } else { value })?;
    u32::try_from(value & u64::from(u32::MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text(text.as_bytes().to_vec())
    }

    #[test]
    fn the_first_place_of_a_key_counts_wherever_it_is() {
        let found = text("# createType=\"vmfs\"\ncreateType=\"monolithicFlat\"").create_type();
        assert_eq!(found.unwrap(), CreateType::Vmfs);
        assert_eq!(text("parentCID=12\nCID=34").cid(), Ok(0x12));
        assert_eq!(text("CID=34\nparentCID=12").parent_cid(), Ok(0x12));
        for none in ["", "createType", "createType=\"", "createType=\"vmfs"] {
            assert_eq!(text(none).create_type().unwrap_err().message, "invalid VMDK image descriptor");
        }
        assert_eq!(text("createType=\"x\"").create_type().unwrap_err().message, "Unsupported image type 'x'");
    }

    #[test]
    fn the_name_of_the_parent_must_end() {
        let name = |name: &str| BackingFile { name: name.into(), format: Some(b"vmdk".to_vec()) };
        assert_eq!(text("parentFileNameHint=\"a b\"").parent(), Ok(Some(name("a b"))));
        assert_eq!(text("parentFileNameHint=\"\"").parent(), Ok(None));
        assert_eq!(text("parent").parent(), Ok(None));
        assert!(text("parentFileNameHint=\"a").parent().is_err());
        assert!(text("parentFileNameHint").parent().is_err());
        assert!(text(&format!("parentFileNameHint=\"{}\"", "a".repeat(4095))).parent().is_ok());
        assert!(text(&format!("parentFileNameHint=\"{}\"", "a".repeat(4096))).parent().is_err());
    }

    #[test]
    fn numbers_are_those_of_scanf() {
        for (text, value) in [
            ("1f", Some(0x1f)),
            (" \n0x1F,", Some(0x1f)),
            ("-1", Some(u32::MAX)),
            ("+5", Some(5)),
            ("1ffffffff", Some(u32::MAX)),
            ("fffffffffffffffff0", Some(u32::MAX)),
            ("0xg", Some(0)),
            ("", None),
            ("g", None),
            ("-", None),
        ] {
            assert_eq!(hexadecimal(text.as_bytes()), value, "{text}");
        }
    }
}
