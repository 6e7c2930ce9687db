//! Lines about what is found, on their way to the host as many at a time as fit into a record.

use alloc::{string::String, vec::Vec};

use protocol::CheckPart;

/// Most characters of a line: an image's names are in it.
const LINE_MAX: usize = 4096;
/// Bytes of JSON after which lines are handed on.
const PART_LEN: usize = 24 << 10;
/// Most bytes of JSON that a character takes.
const CHARACTER_LEN: usize = 6;

/// Collects lines.
pub struct Lines<'a> {
    tell: &'a mut dyn FnMut(CheckPart),
    part: fn(Vec<String>) -> CheckPart,
    lines: Vec<String>,
    length: usize,
}

impl<'a> Lines<'a> {
    /// Lines that are handed on as a `part`.
    pub fn new(tell: &'a mut dyn FnMut(CheckPart), part: fn(Vec<String>) -> CheckPart) -> Self {
        Self { tell, part, lines: Vec::new(), length: 0 }
    }

    /// Adds a line; what of it is too long is left out.
    pub fn push(&mut self, mut line: String) {
        if let Some((end, _)) = line.char_indices().nth(LINE_MAX) {
            line.truncate(end);
        }
        let plain = line.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        self.length += line.len() * if plain { 1 } else { CHARACTER_LEN } + 3;
        self.lines.push(line);
        if self.length > PART_LEN {
            self.flush();
        }
    }

    /// Hands on what there is.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            (self.tell)((self.part)(core::mem::take(&mut self.lines)));
            self.length = 0;
        }
    }

    /// Hands on what there is, and something that is no line.
    pub fn tell(&mut self, part: CheckPart) {
        self.flush();
        (self.tell)(part);
    }
}
