//! Names that stand in images, as far as they are understood here: what is a file's name goes to the host as it is, and
//! nothing else does.

use alloc::{borrow::ToOwned, format, string::String};
use core::str;

use formats::Format;
use protocol::{ErrorKind, ErrorRecord, Role};

use super::described::Described;
use crate::options::Quoted;

/// In front of a description in place of a name.
const DESCRIPTION: &str = "json:";

/// What the name of a backing file is.
pub enum Name {
    /// A file's name.
    File(String),
    /// A description of an image.
    Described(Described),
}

/// The name in the `field` of an image: names are asked for as text, and others are none that could be had.
pub fn text(name: &[u8], role: Role, field: &str) -> Result<String, ErrorRecord> {
    str::from_utf8(name).map(ToOwned::to_owned).map_err(|_| denied(name, role, field, "is not UTF-8"))
}

/// The name of the image below one of `format`.
pub fn backing(name: &[u8], format: Format, field: &str) -> Result<Name, ErrorRecord> {
    let text = text(name, Role::Backing, field)?;
    if matches!(format, Format::Vpc | Format::Vhdx) {
        return Ok(Name::File(from_windows(&text)));
    }
    match text.strip_prefix(DESCRIPTION) {
        None => Ok(Name::File(text)),
        Some(description) => Described::parse(description)
            .map(Name::Described)
            .ok_or_else(|| denied(name, Role::Backing, field, "is more than a file")),
    }
}

/// A name that a differencing disk has for its parent: one that is relative is taken with `/` in place of `\`; of one
/// that begins at a drive, a server, a volume or is a URL, there is only the last part to go by. What begins with `/`
/// stays as it is.
fn from_windows(name: &str) -> String {
    let drive = matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if drive || name.starts_with('\\') || name.starts_with("file://") {
        let last = name.rsplit(['\\', '/', ':']).next();
        return last.unwrap_or(name).to_owned();
    }
    name.replace('\\', "/")
}

fn denied(name: &[u8], role: Role, field: &str, why: &str) -> ErrorRecord {
    let message = format!("{} '{}' {why} and was not followed", role.name(), Quoted(name));
    ErrorRecord { field: Some(field.to_owned()), ..ErrorRecord::new(ErrorKind::ReferenceDenied, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_looked_for_beside_the_image() {
        for (name, expected) in [
            ("parent.vhd", "parent.vhd"),
            (".\\parent.vhd", "./parent.vhd"),
            ("..\\disks\\a b.vhd", "../disks/a b.vhd"),
            ("C:\\disks\\parent.vhd", "parent.vhd"),
            ("c:parent.vhd", "parent.vhd"),
            ("\\\\server\\share\\parent.vhd", "parent.vhd"),
            ("\\\\?\\Volume{26a21bda}\\disks\\parent.vhdx", "parent.vhdx"),
            ("file://localhost/disks/parent.vhd", "parent.vhd"),
            ("/disks/parent.vhd", "/disks/parent.vhd"),
        ] {
            assert_eq!(from_windows(name), expected);
        }
    }

    #[test]
    fn what_is_no_text_is_no_name() {
        let error = text(b"a\xff\n", Role::DataFile, "f").unwrap_err();
        assert_eq!(error.message, "external data file 'a\\xff\\n' is not UTF-8 and was not followed");
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::ReferenceDenied, Some("f")));
    }
}
