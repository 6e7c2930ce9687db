//! Makes hostile text harmless for a terminal or a log: one line, no control characters.

use std::ffi::OsStr;
use std::fmt::Write;

/// `text` with control characters, line and paragraph separators and bidirectional controls written as `\n`,
/// `\x1b` or `\u{202e}`. Backslashes stay as they are, so names with none of these come out unchanged.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        push(&mut out, character);
    }
    out
}

/// The same for a file name, which need not be UTF-8: stray bytes are written as `\xff`.
pub fn escape_name(name: &OsStr) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut out, character);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn push(out: &mut String, character: char) {
    let harmless = match character {
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        other => !other.is_control(),
    };
    // Writing to a String cannot fail.
    let _ = match character {
        _ if harmless => {
            out.push(character);
            Ok(())
        }
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        control if control.is_ascii() => write!(out, "\\x{:02x}", u32::from(control)),
        other => write!(out, "\\u{{{:x}}}", u32::from(other)),
    };
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn plain_names_are_left_alone() {
        for name in ["a.qcow2", "mit Leerzeichen", "ü/日本/😀", r"back\slash", "q'uote"] {
            assert_eq!(escape(name), name);
            assert_eq!(escape_name(OsStr::new(name)), name);
        }
    }

    #[test]
    fn controls_become_visible() {
        assert_eq!(escape("a\x1b[31m\n\r\t\0\x7f\u{9b}\u{202e}"), r"a\x1b[31m\n\r\t\x00\x7f\u{9b}\u{202e}");
        assert_eq!(escape_name(OsStr::from_bytes(b"\xffa\xc3\n")), r"\xffa\xc3\n");
    }
}
