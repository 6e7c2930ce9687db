//! The `-o` list of a target format: its grammar, which options a format has, and what their values mean.
//!
//! Checks come in the order and words of the `qemu-img` release that is followed. Nothing here knows an image or an
//! operation: `measure` reads a list as `create` would, short of the checks that only `create` makes.

mod driver;
mod file;
mod luks;
mod parallels;
mod printed;
mod qcow;
mod qcow2;
mod qcow2_create;
mod qed;
mod spec;
mod values;
mod vdi;
mod vhdx;
mod vmdk;
mod vpc;

use alloc::format;
use core::fmt;

use protocol::{
    ErrorKind, ErrorRecord,
    QemuVersion::{self, V5_2, V7_2, V8_0, V10_0, V11_1},
};

pub use driver::{Driver, Target};
pub use file::{Preallocation as FilePreallocation, check as file_preallocation};
pub use luks::{LuksOptions, LuksWords};
pub use parallels::new_image as parallels_image;
pub use printed::printed;
pub use qcow::new_image as qcow_image;
pub use qcow2::{Compat, Preallocation, Qcow2Options};
pub use qcow2_create::{Encryption, Qcow2Create};
pub use qed::new_image as qed_image;
pub use spec::{Kind, Spec};
pub use values::Values;
pub use vdi::new_image as vdi_image;
pub use vhdx::new_image as vhdx_image;
pub use vmdk::new_image as vmdk_image;
pub use vpc::new_image as vpc_image;

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

/// Options that no image can be made with, though each of them is right.
fn unsupported(message: fmt::Arguments<'_>) -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Unsupported, format!("{message}"))
}

/// A word that is none of those an option takes.
fn bad_value(name: &str, value: &str, profile: QemuVersion) -> ErrorRecord {
    let value = Quoted(value.as_bytes());
    match profile {
        V5_2 => usage(format_args!("Invalid parameter '{value}'")),
        V7_2 | V8_0 | V10_0 | V11_1 => {
            usage(format_args!("Parameter '{name}' does not accept value '{value}'"))
        }
    }
}

/// What the tests of the formats have in common.
#[cfg(test)]
mod testing {
    use super::{Driver, Values};
    use alloc::string::String;
    use calc::{Length, NewImage};
    use protocol::{ErrorRecord, QemuVersion};

    /// Length of the empty image that `new_image` makes by a list, or what is wrong with the list.
    pub fn length<I: NewImage>(
        format: &str,
        list: &str,
        size: u64,
        profile: QemuVersion,
        new_image: impl Fn(&Values, Length) -> Result<I, ErrorRecord>,
    ) -> Result<u64, String> {
        let driver = Driver::find(format, profile).unwrap();
        Values::parse(driver, list, profile)
            .and_then(|values| new_image(&values, Length::new(size).unwrap()))
            .map(|image| image.length())
            .map_err(|error| error.message)
    }
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
