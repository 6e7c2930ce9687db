//! The descriptor inside of a sparse file, which says again what the header says. QEMU takes next to nothing from it, others
//! take all: what is wrong with it is for those who look an image over.

use super::lines;
use super::text::Text;

/// Values of `createType` of disks in one sparse file, and of its parts.
const CREATE_TYPES: [&[u8]; 5] =
    [b"monolithicSparse", b"streamOptimized", b"vmfsSparse", b"twoGbMaxExtentSparse", b"custom"];

/// In what it describes another disk than the one in this file.
pub(super) fn fault(text: &Text) -> Option<&'static str> {
    let mut extents = 0;
    for (kind, name) in text.lines().filter_map(lines::words) {
        extents += 1;
        if !matches!(kind, b"SPARSE" | b"VMFSSPARSE") {
            return Some("It has an extent that is no sparse file");
        }
        if name.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
            return Some("It has an extent in another directory");
        }
    }
    if extents > 1 {
        return Some("It has more than one extent");
    }
    let mut types = text.lines().filter(|line| {
        let key = line.trim_ascii_start().get(..b"createType".len());
        key.is_some_and(|key| key.eq_ignore_ascii_case(b"createType"))
    });
    let first = types.next()?.trim_ascii();
    if types.any(|other| other.trim_ascii() != first) {
        return Some("It has two values for createType");
    }
    let value = text.quoted(b"createType");
    match value.is_some_and(|value| CREATE_TYPES.contains(&value)) {
        true => None,
        false => Some("Its createType is not that of a sparse file"),
    }
}
