//! What of an image is written to a new one.

use alloc::{borrow::ToOwned, format};

use calc::Length;
use formats::{Chain, ChainError, ExtentKind, Format, Image, Storage};
use protocol::ErrorRecord;

use crate::source::kind;

/// Calls `write` for each range `[start, end)` of the disk that counts as data, in ascending order. Neighbours may
/// touch.
pub fn ranges<S: Storage>(
    chain: &mut Chain<S>,
    mut write: impl FnMut(Length, Length),
) -> Result<(), ErrorRecord> {
    let end = chain.virtual_size();
    let mut offset = 0;
    while offset < end {
        let extent = match chain.status_at(offset) {
            Ok(mapping) => mapping.extent,
            Err(ChainError { layer, error }) => {
                let format = chain.layers().get(layer).map(Image::format);
                let message = format!("Unable to get block status: {}", why(format, &error));
                let field = Some(error.field.to_owned());
                return Err(ErrorRecord { field, ..ErrorRecord::new(kind(error.kind), message) });
            }
        };
        let next = offset.saturating_add(extent.length.max(1)).min(end);
        match extent.kind {
            ExtentKind::Data { .. } | ExtentKind::Compressed { .. } => write(at(offset), at(next)),
            ExtentKind::Zero { .. } | ExtentKind::Hole { .. } | ExtentKind::Unallocated { .. } => {}
        }
        offset = next;
    }
    Ok(())
}

/// The system's words for why the mapping ends.
fn why(format: Option<Format>, error: &formats::Error) -> &'static str {
    match (format, error.kind) {
        (Some(Format::Qed), formats::ErrorKind::Corrupt) => "Invalid argument",
        _ => "Input/output error",
    }
}

/// An offset on a disk; none is past [`Length::MAX`], which every disk ends at or before.
fn at(offset: u64) -> Length {
    Length::new(offset).unwrap_or(Length::MAX)
}
