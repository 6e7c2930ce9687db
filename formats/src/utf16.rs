//! Names in UTF-16, as they are in images of Windows' make.

use alloc::string::String;
use alloc::vec::Vec;

/// The order of the two bytes of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Big,
    Little,
}

/// The text up to its first NUL in UTF-8, with U+FFFD for what is no character; an odd last byte is dropped.
pub(crate) fn decode(bytes: &[u8], order: ByteOrder) -> Vec<u8> {
    let units = bytes.chunks_exact(2).map(|pair| {
        let pair = <[u8; 2]>::try_from(pair).unwrap_or_default();
        match order {
            ByteOrder::Big => u16::from_be_bytes(pair),
            ByteOrder::Little => u16::from_le_bytes(pair),
        }
    });
    let text: String = char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_up_to_its_end() {
        assert_eq!(decode(b".\0\\\0a\0\0\0b\0", ByteOrder::Little), b".\\a");
        assert_eq!(decode(b"\0a\x20\xac\xd8", ByteOrder::Big), "a\u{20ac}".as_bytes());
        assert_eq!(decode(&[0, 0xd8, b'x', 0], ByteOrder::Little), "\u{fffd}x".as_bytes());
        assert_eq!(decode(&[0], ByteOrder::Little), b"");
    }
}
