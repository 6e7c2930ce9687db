//! The `-o` list of a target format: its grammar, which options a format has, and what their values mean.
//!
//! Checks come in the order and words of the `qemu-img` release that is followed. Nothing here knows an image or an
//! operation: `measure` reads a list as `create` would, short of the checks that only `create` makes.

mod driver;
mod luks;
mod qcow2;
mod values;

use alloc::format;
use core::fmt;

use protocol::{ErrorKind, ErrorRecord};

pub use driver::{Driver, Target};
pub use luks::LuksOptions;
pub use qcow2::{Compat, Preallocation, Qcow2Options};
pub use values::Values;

/// A text inside a message: control characters and bytes that are not UTF-8 are escaped, all else stands as it is.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// An error in the command line, to be blamed on an option.
fn usage(message: fmt::Arguments<'_>) -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Usage, format!("{message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        assert_eq!(Quoted("a\nb\x1b[1m\té".as_bytes()).to_string(), "a\\nb\\u{1b}[1m\\té");
        assert_eq!(Quoted(b"a\xff\\").to_string(), "a\\xff\\");
    }
}
