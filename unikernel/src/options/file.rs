//! The options of the file that an image lies in, for formats that make the file first. They have no influence on its
//! length: the formats here make it empty and let it grow.

use protocol::ErrorRecord;

use super::{Quoted, Values, unsupported, usage};

/// Longest extent size hint, in bytes.
const MAX_HINT: u64 = u32::MAX as u64;

/// How much of a file is set aside at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    Off,
    /// Space.
    Falloc,
    /// Space, with zeros written to it.
    Full,
}

/// Checks them in the order of `qemu-img create`, and tells what is to be set aside.
pub fn check(values: &Values) -> Result<Preallocation, ErrorRecord> {
    let mode = values.text("preallocation").unwrap_or("off");
    if !["off", "metadata", "falloc", "full"].contains(&mode) {
        return Err(usage(format_args!("invalid parameter value: {}", Quoted(mode.as_bytes()))));
    }
    if values.number("extent_size_hint").is_some_and(|hint| hint > MAX_HINT) {
        return Err(usage(format_args!("Extent size hint is too large")));
    }
    match mode {
        "metadata" => Err(unsupported(format_args!("Unsupported preallocation mode: metadata"))),
        "falloc" => Ok(Preallocation::Falloc),
        "full" => Ok(Preallocation::Full),
        _ => Ok(Preallocation::Off),
    }
}
