//! What of an image is written to a new one.

use alloc::{borrow::ToOwned, format};

use calc::Length;
use formats::{ExtentKind, Format, Image, Storage};
use protocol::ErrorRecord;

use crate::source::kind;

/// Calls `write` for each range `[start, end)` of the disk that counts as data, in ascending order. Neighbours may
/// touch. Of a format without block status all of the disk is data.
pub fn ranges<S: Storage>(
    image: &mut Image<S>,
    mut write: impl FnMut(Length, Length),
) -> Result<(), ErrorRecord> {
    let (end, format) = (image.virtual_size(), image.format());
    if !image.reports_block_status() {
        write(at(0), at(end));
        return Ok(());
    }
    let mut offset = 0;
    while offset < end {
        let extent = image.extent_at(offset).map_err(|error| ErrorRecord {
            field: Some(error.field.to_owned()),
            ..ErrorRecord::new(
                kind(error.kind),
                format!("Unable to get block status: {}", why(format, &error)),
            )
        })?;
        let next = offset.saturating_add(extent.length.max(1)).min(end);
        match extent.kind {
            ExtentKind::Data { .. } | ExtentKind::Compressed { .. } => write(at(offset), at(next)),
            ExtentKind::Zero { .. } | ExtentKind::Unallocated => {}
        }
        offset = next;
    }
    Ok(())
}

/// The system's words for why the mapping ends.
fn why(format: Format, error: &formats::Error) -> &'static str {
    match (format, error.kind) {
        (Format::Qed, formats::ErrorKind::Corrupt) => "Invalid argument",
        _ => "Input/output error",
    }
}

/// An offset on a disk; none is past [`Length::MAX`], which every disk ends at or before.
fn at(offset: u64) -> Length {
    Length::new(offset).unwrap_or(Length::MAX)
}
