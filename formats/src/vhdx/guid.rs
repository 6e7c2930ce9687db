//! GUIDs as they lie in a file: the first three numbers little-endian, the rest as it is read.

/// A GUID from the numbers it is written with.
pub(super) const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let ([a, b, c, d], [e, f], [g, h]) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes());
    let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// A GUID as it is written, `{01234567-89ab-cdef-0123-456789abcdef}`, the braces perhaps left out.
pub(super) fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let text = core::str::from_utf8(text).ok()?;
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(part, 16).ok())?
    };
    let first = u32::try_from(number(8)?).ok()?;
    let second = u16::try_from(number(4)?).ok()?;
    let third = u16::try_from(number(4)?).ok()?;
    let rest = number(4)? << 48 | number(12)?;
    parts.next().is_none().then(|| guid(first, second, third, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_guids_are_read() {
        let expected = guid(0x0123_4567, 0x89ab, 0xcdef, 0x0123_4567_89ab_cdef);
        for text in ["{01234567-89ab-cdef-0123-456789abcdef}", "01234567-89AB-CDEF-0123-456789ABCDEF"] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "",
            "{01234567-89ab-cdef-0123-456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdef-",
            "0123456-89ab-cdef-0123-456789abcdef0",
            "+1234567-89ab-cdef-0123-456789abcdef",
            "01234567-89ab-cdef-0123",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
