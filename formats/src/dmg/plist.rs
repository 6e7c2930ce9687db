//! The property list, of which nothing counts but what its `data` elements hold: blocks of chunks in Base64, and other
//! things. It is searched for their tags and not parsed, as QEMU does it.

use alloc::vec;
use alloc::vec::Vec;

use super::chunks::Chunks;
use super::{TABLE_LEN_MAX, invalid};
use crate::{Error, Storage};

const OPENING: &[u8] = b"<data>";
const CLOSING: &[u8] = b"</data>";
/// Bytes that are read at a time.
const WINDOW: usize = 64 << 10;

/// Adds the chunks that the list at `offset` tells of, `length` bytes in the file.
pub(super) fn read<S: Storage>(
    storage: &mut S,
    offset: u64,
    length: u64,
    chunks: &mut Chunks,
) -> Result<(), Error> {
    if length > TABLE_LEN_MAX {
        return Err(super::too_long("XMLLength"));
    }
    let mut window = vec![0; WINDOW];
    let mut search = Search { element: None, matched: 0 };
    let mut done = 0;
    while done < length {
        let count = usize::try_from(length - done).unwrap_or(WINDOW).min(WINDOW);
        let part = window.get_mut(..count).unwrap_or_default();
        storage.read_at(offset + done, part)?;
        for &byte in &*part {
            // The text ends here, as a string of C does.
            if byte == 0 {
                return search.end();
            }
            if let Some(mut element) = search.push(byte) {
                decode(&mut element);
                chunks.add(&element)?;
            }
        }
        done += count as u64;
    }
    search.end()
}

/// Looks for the tags, byte by byte.
struct Search {
    /// The text of the element at hand.
    element: Option<Vec<u8>>,
    /// How much of the next tag was just met.
    matched: usize,
}

impl Search {
    /// Takes a byte; answers the text of the element that ends with it, if one does.
    fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        let tag = if self.element.is_some() { CLOSING } else { OPENING };
        // The first byte of a tag is nowhere else in it: what does not go on can only begin anew.
        self.matched = match tag.get(self.matched) {
            Some(&next) if next == byte => self.matched + 1,
            _ => usize::from(tag.first() == Some(&byte)),
        };
        if let Some(element) = &mut self.element {
            element.push(byte);
        }
        if self.matched < tag.len() {
            return None;
        }
        self.matched = 0;
        match self.element.take() {
            None => {
                self.element = Some(Vec::new());
                None
            }
            Some(mut element) => {
                element.truncate(element.len() - CLOSING.len());
                Some(element)
            }
        }
    }

    /// What there is to say at the end of the text.
    fn end(self) -> Result<(), Error> {
        match self.element {
            None => Ok(()),
            Some(_) => Err(invalid("blkx", "An element of the property list does not end")),
        }
    }
}

/// Decodes Base64 in its place. What is not of its alphabet is passed over, and so is what is less than four digits at
/// the end; a `=` is a zero that makes the byte it ends not count.
fn decode(text: &mut Vec<u8>) {
    let (mut written, mut group, mut digits) = (0, 0_u32, [0; 4]);
    let mut count = 0;
    for read in 0..text.len() {
        let Some((byte, value)) = text.get(read).and_then(|&byte| Some((byte, digit(byte)?))) else {
            continue;
        };
        group = group << 6 | value;
        digits[count] = byte;
        count += 1;
        if count < digits.len() {
            continue;
        }
        let [_, first, second, third] = group.to_be_bytes();
        for (byte, counts) in [(first, true), (second, digits[2] != b'='), (third, digits[3] != b'=')] {
            if let Some(place) = text.get_mut(written).filter(|_| counts) {
                *place = byte;
                written += 1;
            }
        }
        (group, count) = (0, 0);
    }
    text.truncate(written);
}

/// The value of a digit of Base64.
fn digit(byte: u8) -> Option<u32> {
    let (first, value) = match byte {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        b'=' => (b'=', 0),
        _ => return None,
    };
    Some(u32::from(byte - first) + value)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        decode(&mut bytes);
        bytes
    }

    #[test]
    fn base64_is_decoded_whatever_is_in_between() {
        assert_eq!(decoded("bWlzaA=="), b"mish");
        assert_eq!(decoded("\n\tbW lz\r\naDE="), b"mish1");
        assert_eq!(decoded("bWlzaDEy<!-- -->"), b"mish12");
        assert_eq!(decoded("+/+/"), [0xfb, 0xff, 0xbf]);
        assert_eq!(decoded("bWlzaDE"), b"mis");
        assert_eq!(decoded("===="), [0]);
        assert_eq!(decoded("bW=="), b"m");
        assert_eq!(decoded("bWlzaA==bWlz"), b"mishmis");
        assert_eq!(decoded(""), b"");
    }

    #[test]
    fn elements_are_found_byte_by_byte() {
        let elements = |text: &str| {
            let mut search = Search { element: None, matched: 0 };
            let found: Vec<_> = text
                .bytes()
                .filter_map(|byte| search.push(byte))
                .map(|element| String::from_utf8(element).unwrap())
                .collect();
            (found, search.end().is_ok())
        };
        assert_eq!(elements("<data>ab</data><x><<data>c</data>"), (vec!["ab".into(), "c".into()], true));
        assert_eq!(elements("<data><data></data></data>"), (vec!["<data>".into()], true));
        assert_eq!(elements("<data></</data>"), (vec!["</".into()], true));
        assert_eq!(elements("<data >a</data>"), (vec![], true));
        assert_eq!(elements("<data>a</dat"), (vec![], false));
    }
}
