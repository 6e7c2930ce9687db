//! What a secret holds: from the command line or a file, encoded, encrypted with another secret. Nothing of it is ever
//! in a message.

use std::{collections::BTreeMap, fs::File, io::Read};

use aes::Aes256;
use cbc::{
    Decryptor,
    cipher::{Array, BlockModeDecrypt, KeyIvInit},
};
use protocol::ErrorKind;

use crate::report::{Failure, escape, reason};

/// Longest secret in bytes, before decoding: written as JSON it stays below
/// [`MAX_PAYLOAD`](protocol::MAX_PAYLOAD) whatever it is. QEMU sets no limit.
pub const SECRET_MAX: usize = 128 << 10;

/// Bytes of a block of AES, and so of an initialisation vector.
const BLOCK: usize = 16;

/// Gives what is in the secret that has these properties; `key` gives what is in the one it was encrypted with.
pub fn content(
    properties: &BTreeMap<String, String>,
    key: impl FnOnce(&str) -> Result<Vec<u8>, Failure>,
) -> Result<Vec<u8>, Failure> {
    let property = |name: &str| properties.get(name).map(String::as_str);
    let encoded = match (property("data"), property("file")) {
        (Some(data), _) => data.as_bytes().to_vec(),
        (None, Some(name)) => read(name)?,
        (None, None) => Vec::new(),
    };
    if encoded.len() > SECRET_MAX {
        return Err(Failure::new(ErrorKind::Limit, format!("A secret is longer than {SECRET_MAX} bytes")));
    }
    let decode =
        |bytes: Vec<u8>| if property("format") == Some("base64") { base64(&bytes) } else { Ok(bytes) };
    match property("keyid") {
        None => decode(encoded),
        Some(id) => {
            let key = key(id)?;
            let vector = vector(&key, property("iv"))?;
            decrypt(&key, &vector, decode(encoded)?)
        }
    }
}

fn read(name: &str) -> Result<Vec<u8>, Failure> {
    let failed = |what: &str, error: &_| {
        let (name, reason) = (escape(name), reason(error));
        Failure::new(ErrorKind::Io, format!("Unable to read {name}: {what} file “{name}”: {reason}"))
    };
    let file = File::open(name).map_err(|error| failed("Failed to open", &error))?;
    let mut bytes = Vec::new();
    file.take(SECRET_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed("Error reading", &error))?;
    Ok(bytes)
}

/// Decodes as QEMU does by GLib: padding is a digit of value 0, may stand anywhere or be left out, and leaves out a
/// byte if it is among the last two of four.
fn base64(text: &[u8]) -> Result<Vec<u8>, Failure> {
    if text.contains(&0) {
        return Err(Failure::usage("Base64 data contains embedded NUL characters"));
    }
    let mut digits = Vec::with_capacity(text.len());
    for &character in text {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            b'\n' => continue,
            _ => return Err(Failure::usage("Base64 data contains invalid characters")),
        };
        digits.push((character == b'=', u32::from(value)));
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for four in digits.as_chunks::<4>().0 {
        let [_, first, second, third] =
            four.iter().fold(0, |bits, &(_, value)| bits << 6 | value).to_be_bytes();
        bytes.push(first);
        for (byte, (padding, _)) in [(second, four[2]), (third, four[3])] {
            if !padding {
                bytes.push(byte);
            }
        }
    }
    Ok(bytes)
}

/// The initialisation vector, once the key is long enough to use one.
fn vector(key: &[u8], text: Option<&str>) -> Result<[u8; BLOCK], Failure> {
    if key.len() != 32 {
        return Err(Failure::usage("Key should be 32 bytes in length"));
    }
    let text = text.ok_or_else(|| Failure::usage("IV is required to decrypt secret"))?;
    let vector = base64(text.as_bytes())?;
    let length = vector.len();
    vector
        .try_into()
        .map_err(|_| Failure::usage(format!("IV should be {BLOCK} bytes in length not {length}")))
}

/// AES-256 in CBC, the last byte telling how many of the last bytes are padding.
fn decrypt(key: &[u8], vector: &[u8; BLOCK], mut bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let length = bytes.len();
    if !length.is_multiple_of(BLOCK) {
        return Err(Failure::usage(format!("Length {length} must be a multiple of block size {BLOCK}")));
    }
    let mut decryptor = Decryptor::<Aes256>::new_from_slices(key, vector)
        .map_err(|_| Failure::usage("Key should be 32 bytes in length"))?;
    decryptor.decrypt_blocks(Array::slice_as_chunks_mut(&mut bytes).0);
    let padding = bytes.last().map_or(0, |&last| usize::from(last));
    if padding > BLOCK {
        let message = format!("Incorrect number of padding bytes ({padding}) found on decrypted data");
        return Err(Failure::usage(message));
    }
    bytes.truncate(length - padding);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_leniently_as_by_qemu() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("YWJj", b"abc"),
            ("YW\nJj\n", b"abc"),
            ("YWI=", b"ab"),
            ("YQ==", b"a"),
            ("YWJ", b""),
            ("YWJjY", b"abc"),
            ("YWI=YWJj", b"ababc"),
            ("YW=j", b"a#"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(base64(text.as_bytes()), Ok(bytes.to_vec()), "{text}");
        }
        assert!(base64(b"YW Jj").is_err() && base64(b"YWJ\0").is_err());
    }
}
