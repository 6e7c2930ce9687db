//! What of an image is written to a new one.

use calc::Length;
use formats::{Chain, ExtentKind, Storage};
use protocol::ErrorRecord;

use crate::ops::status;

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
            Err(error) => return Err(status::failure(chain, &error, "Unable to get block status")),
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

/// An offset on a disk; none is past [`Length::MAX`], which every disk ends at or before.
fn at(offset: u64) -> Length {
    Length::new(offset).unwrap_or(Length::MAX)
}
