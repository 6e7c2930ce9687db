//! Extent descriptions: `RW sectors TYPE "name" offset`, a line each. Section "The Extent Descriptions".
//!
//! A line whose first word is no access is none. One that begins as an extent is one or the descriptor is refused:
//! where QEMU leaves out the part of the disk that it describes, all behind it would move.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::SECTOR;
use super::types::ExtentType;
use crate::{Error, ErrorKind};

/// Most extents of a disk. Each is a file to be opened, and 1024 open files are the usual limit of a process.
pub(super) const EXTENTS_MAX: usize = 1024;
/// Longest word of an access or a type in bytes: QEMU cuts longer ones and finds nothing it knows.
const WORD_MAX: usize = 10;
/// Longest file name in bytes: QEMU's limit.
const NAME_MAX: usize = 511;

/// An extent description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Sectors of the disk, at least 1.
    pub(super) sectors: u64,
    pub(super) kind: ExtentType,
    /// File name: at least one byte, but none at all for zeros.
    pub(super) name: Vec<u8>,
    /// File offset in bytes of the first byte of a flat extent, below 2^63.
    pub(super) offset: u64,
}

/// Type and name of an extent description, as they stand in `line`.
pub(super) fn words(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = line;
    if !is_access(word(&mut rest)) {
        return None;
    }
    number(&mut rest);
    Some((word(&mut rest), name(&mut rest).unwrap_or_default()))
}

fn is_access(word: &[u8]) -> bool {
    matches!(word, b"RW" | b"RDONLY" | b"NOACCESS")
}

/// All extents, in order.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        if let Some(line) = parse_line(line)? {
            if lines.len() == EXTENTS_MAX {
                let message = format!("Disk has more than {EXTENTS_MAX} extents");
                return Err(Error::new(ErrorKind::Limit, "extent description", message));
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

fn fault(kind: ErrorKind, message: String) -> Error {
    Error::new(kind, "extent description", message)
}

fn parse_line(line: &[u8]) -> Result<Option<Line>, Error> {
    let invalid = || {
        let message = format!("Invalid extent line: {}", String::from_utf8_lossy(line));
        fault(ErrorKind::InvalidFormat, message)
    };
    let mut rest = line;
    let access = word(&mut rest);
    if !is_access(access) {
        return Ok(None);
    }
    let sectors = number(&mut rest).ok_or_else(invalid)?;
    let type_name = word(&mut rest);
    let kind = ExtentType::of_name(type_name);
    if access != b"RW" {
        let message = format!("Unsupported extent access '{}'", String::from_utf8_lossy(access));
        return Err(fault(ErrorKind::Unsupported, message));
    }
    if kind == Some(ExtentType::Zero) && rest.trim_ascii().is_empty() && sectors > 0 {
        return Ok(Some(Line {
            sectors: sectors.unsigned_abs(),
            kind: ExtentType::Zero,
            name: Vec::new(),
            offset: 0,
        }));
    }
    let name = name(&mut rest).ok_or_else(invalid)?.to_vec();
    let offset = number(&mut rest);
    let offset = match (kind, offset) {
        (Some(ExtentType::Flat), Some(offset)) => u64::try_from(offset).map_err(|_| invalid())?,
        (Some(ExtentType::Flat), None) | (_, Some(_)) => return Err(invalid()),
        (_, None) => 0,
    };
    let kind = kind.filter(|&kind| kind != ExtentType::Zero).ok_or_else(|| {
        let message = format!("Unsupported extent type '{}'", String::from_utf8_lossy(type_name));
        fault(ErrorKind::Unsupported, message)
    })?;
    let Ok(sectors) = u64::try_from(sectors) else { return Err(invalid()) };
    if sectors == 0 {
        return Ok(None);
    }
    let offset = offset.checked_mul(SECTOR).filter(|&offset| offset <= i64::MAX as u64);
    let offset = offset.ok_or_else(|| fault(ErrorKind::Limit, "Extent offset is too large".into()))?;
    Ok(Some(Line { sectors, kind, name, offset }))
}

/// What C takes for white space, and [`trim_ascii_start`](slice::trim_ascii_start) but for the vertical tab.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn skip_blanks(rest: &mut &[u8]) {
    let blanks = rest.iter().take_while(|&&byte| is_blank(byte)).count();
    *rest = rest.get(blanks..).unwrap_or(&[]);
}

/// Takes the first `length` bytes.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length.min(rest.len()));
    *rest = left;
    taken
}

/// The next word, as C's `%10s` reads it.
fn word<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    skip_blanks(rest);
    let length = rest.iter().take(WORD_MAX).take_while(|&&byte| !is_blank(byte)).count();
    take(rest, length)
}

/// The next decimal number, as C's `%lld` reads it: one that is too large is the largest.
fn number(rest: &mut &[u8]) -> Option<i64> {
    skip_blanks(rest);
    let signs = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
    let digits = rest.iter().skip(signs).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let text = core::str::from_utf8(take(rest, signs + digits)).ok()?;
    let largest = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(largest))
}

/// The next file name in quotes; the quote at its end may be missing, as QEMU has it.
fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    skip_blanks(rest);
    let mut after = rest.strip_prefix(b"\"")?;
    let length = after.iter().take(NAME_MAX).take_while(|&&byte| byte != b'"' && byte != b'\r').count();
    let name = take(&mut after, length);
    // Without it, nothing behind the name is looked at.
    *rest = after.strip_prefix(b"\"").unwrap_or(&[]);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sectors: u64, kind: ExtentType, name: &str, offset: u64) -> Result<Vec<Line>, Error> {
        Ok(alloc::vec![Line { sectors, kind, name: name.into(), offset }])
    }

    #[test]
    fn lines_that_are_extents() {
        for (line, expected) in [
            ("RW 8 FLAT \"a b\" 3", one(8, ExtentType::Flat, "a b", 1536)),
            (" \tRW\t+8 FLAT \"a\"3junk\r", one(8, ExtentType::Flat, "a", 1536)),
            ("RW 8 VMFS \"../a\"", one(8, ExtentType::Vmfs, "../a", 0)),
            ("RW 8 SPARSE \"/a", one(8, ExtentType::Sparse, "/a", 0)),
            ("RW 8 VMFSSPARSE \"a\" x", one(8, ExtentType::VmfsSparse, "a", 0)),
            ("RW 8 SESPARSE \"a\"", one(8, ExtentType::SeSparse, "a", 0)),
            ("RW 8 ZERO\r", one(8, ExtentType::Zero, "", 0)),
            ("RW 99999999999999999999 VMFS \"a\"", one(i64::MAX as u64, ExtentType::Vmfs, "a", 0)),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn lines_that_are_none() {
        for line in ["", "#RW 8 VMFS \"a\"", "rw 8 VMFS \"a\"", "RWX 8 VMFS \"a\"", "RW 0 VMFS \"a\"", "a=b"]
        {
            assert_eq!(parse(line.as_bytes()), Ok(Vec::new()), "{line}");
        }
    }

    #[test]
    fn a_name_is_cut_where_qemu_img_cuts_it() {
        let line = format!("RW 8 VMFS \"{}\"", "a".repeat(600));
        assert_eq!(parse(line.as_bytes()), one(8, ExtentType::Vmfs, &"a".repeat(511), 0));
    }

    #[test]
    fn extents_are_counted() {
        let line = "RW 1 VMFS \"a\"\n";
        assert_eq!(parse(line.repeat(1024).as_bytes()).unwrap().len(), 1024);
        let error = parse(line.repeat(1025).as_bytes()).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Limit, "Disk has more than 1024 extents")
        );
    }
}
