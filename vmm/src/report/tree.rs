//! Values by their names, as QEMU's QAPI has them, and both of qemu-img's ways to print them.

use std::{ffi::OsStr, fmt::Write, os::unix::ffi::OsStrExt};

use super::escape_name;

/// Spaces of a level.
const INDENT: usize = 4;

/// What JSON says in place of what is no character.
const REPLACEMENT: u32 = 0xfffd;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A number. QAPI's are signed: from 2^63 on they come out negative.
    Number(u64),
    /// Text in no particular encoding.
    Text(Vec<u8>),
    /// Several, in order.
    List(Vec<Self>),
    /// Several by name, in the order that they are printed in.
    Map(Vec<(&'static str, Self)>),
}

impl Value {
    /// The value of a name or a word.
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::Text(text.as_ref().to_vec())
    }

    /// The value as `--output json` prints it.
    pub fn json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, 0);
        out.push('\n');
        out
    }

    fn write_json(&self, out: &mut String, depth: usize) {
        let line = |out: &mut String, depth: usize| {
            out.push('\n');
            indent(out, depth);
        };
        match self {
            Self::Bool(value) => write!(out, "{value}").unwrap_or_default(),
            Self::Number(value) => write!(out, "{}", value.cast_signed()).unwrap_or_default(),
            Self::Text(text) => quote(out, text),
            Self::List(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    line(out, depth + 1);
                    value.write_json(out, depth + 1);
                }
                line(out, depth);
                out.push(']');
            }
            Self::Map(values) => {
                out.push('{');
                for (index, (name, value)) in values.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    line(out, depth + 1);
                    write!(out, "\"{name}\": ").unwrap_or_default();
                    value.write_json(out, depth + 1);
                }
                line(out, depth);
                out.push('}');
            }
        }
    }

    /// The lines of what is inside, as human output has them: `-` in names is a space, text is escaped.
    pub fn write_lines(&self, out: &mut String, depth: usize) {
        let mut item = |name: &str, value: &Self| {
            indent(out, depth);
            out.push_str(name);
            out.push(':');
            match value {
                Self::List(_) | Self::Map(_) => {
                    out.push('\n');
                    value.write_lines(out, depth + 1);
                }
                Self::Bool(value) => writeln!(out, " {value}").unwrap_or_default(),
                Self::Number(value) => writeln!(out, " {}", value.cast_signed()).unwrap_or_default(),
                Self::Text(text) => {
                    writeln!(out, " {}", escape_name(OsStr::from_bytes(text))).unwrap_or_default();
                }
            }
        };
        match self {
            Self::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    item(&format!("[{index}]"), value);
                }
            }
            Self::Map(values) => {
                for (name, value) in values {
                    item(&name.replace('-', " "), value);
                }
            }
            Self::Bool(_) | Self::Number(_) | Self::Text(_) => {}
        }
    }
}

/// Begins a line at a level.
pub fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth * INDENT));
}

/// A string of JSON in ASCII, as QEMU writes it: what it takes for no character is U+FFFD.
fn quote(out: &mut String, text: &[u8]) {
    out.push('"');
    let mut rest = text;
    while !rest.is_empty() {
        let (code, length) = code_point(rest);
        rest = &rest[length..];
        match code.and_then(char::from_u32) {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(plain @ ' '..='~') => out.push(plain),
            Some(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04X}").unwrap_or_default();
                }
            }
            None => write!(out, "\\u{REPLACEMENT:04X}").unwrap_or_default(),
        }
    }
    out.push('"');
}

/// The character that a text, which is not empty, begins with, and the bytes it takes. QEMU's rules: what is no
/// character takes as many bytes as look like one, up to six; NUL may be written in two; neither surrogates nor
/// noncharacters are characters.
fn code_point(text: &[u8]) -> (Option<u32>, usize) {
    const LEAST: [u32; 5] = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000];
    let first = text[0];
    let length = first.leading_ones() as usize;
    match length {
        0 => return (Some(first.into()), 1),
        1 | 7.. => return (None, 1),
        _ => {}
    }
    let mut code = u32::from(first & (0x7f >> length));
    for at in 1..length {
        match text.get(at) {
            Some(&byte) if byte & 0xc0 == 0x80 => code = code << 6 | u32::from(byte & 0x3f),
            _ => return (None, at),
        }
    }
    let overlong = code < LEAST[length - 2] && !(code == 0 && length == 2);
    let noncharacter = code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code);
    let valid = !overlong && !noncharacter && char::from_u32(code).is_some();
    (valid.then_some(code), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &[u8]) -> String {
        let mut out = String::new();
        quote(&mut out, text);
        out
    }

    #[test]
    fn text_is_ascii_in_json() {
        assert_eq!(quoted(b"a \"b\"\\\x08\x0c\n\r\t\x1b\x7f"), r#""a \"b\"\\\b\f\n\r\t\u001B\u007F""#);
        assert_eq!(quoted("é€😀".as_bytes()), r#""\u00E9\u20AC\uD83D\uDE00""#);
        for (bytes, expected) in [
            (&b"\xc0\x80"[..], "\\u0000"),
            (b"\xc1\x81", "\\uFFFD"),
            (b"\xff\xfe", "\\uFFFD\\uFFFD"),
            (b"\x80x", "\\uFFFDx"),
            (b"\xe2\x82x", "\\uFFFDx"),
            (b"\xe2\x82", "\\uFFFD"),
            (b"\xed\xa0\x80", "\\uFFFD"),
            (b"\xef\xb7\x90", "\\uFFFD"),
            (b"\xef\xbf\xbf", "\\uFFFD"),
            (b"\xf4\x90\x80\x80", "\\uFFFD"),
            (b"\xfd\xbf\xbf\xbf\xbf\xbf", "\\uFFFD"),
        ] {
            assert_eq!(quoted(bytes), format!("\"{expected}\""), "{bytes:?}");
        }
    }

    #[test]
    fn both_shapes_are_qemu_imgs() {
        let flags = Value::List(vec![Value::text("in-use")]);
        let empty = Value::List(vec![]);
        let tree = Value::Map(vec![
            ("last-flags", flags),
            ("no-flags", empty),
            ("size", Value::Number(u64::MAX)),
            ("ok", Value::Bool(true)),
            ("name", Value::text("a\n\u{e9}")),
        ]);
        let json = "{\n    \"last-flags\": [\n        \"in-use\"\n    ],\n    \"no-flags\": [\n    ],\n    \"size\": -1,\n    \"ok\": true,\n    \"name\": \"a\\n\\u00E9\"\n}\n";
        assert_eq!(tree.json(), json);
        let mut lines = String::new();
        tree.write_lines(&mut lines, 1);
        let expected = "    last flags:\n        [0]: in-use\n    no flags:\n    size: -1\n    ok: true\n    name: a\\n\u{e9}\n";
        assert_eq!(lines, expected);
    }
}
