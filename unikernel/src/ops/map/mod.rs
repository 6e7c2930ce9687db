//! `map`: where the bytes of a disk come from, extent by extent, as far as `qemu-img` tells.

mod entry;
mod listing;

use formats::ChainError;
use protocol::{ErrorRecord, MapAnswer, MapPart, MapRequest};

use self::{entry::Layers, listing::Listing};
use super::status;
use crate::{file::File, files::Files, source};

/// Answers `request` about `files`. The extents go to `tell` as they are found, those before a fault as well.
pub fn run<F: Files<Storage = File>>(
    request: &MapRequest,
    files: &mut F,
    tell: &mut dyn FnMut(MapPart),
) -> Result<MapAnswer, ErrorRecord> {
    let mut chain = source::open(&request.source, &request.secrets, request.profile, files)?;
    let length = chain.virtual_size();
    tell(MapPart::Disk { length });
    let layers = Layers::of(&chain);
    let mut listing = Listing::new(request.profile, tell);
    let end = request.end.map_or(length, |end| end.min(length));
    let mut offset = request.start;
    while offset < end {
        let mapping = chain.status_at(offset).map_err(|error: ChainError| {
            listing.flush();
            status::failure(&chain, &error, "Could not read file metadata")
        })?;
        let entry = layers.entry(&mapping, end - offset);
        offset = offset.saturating_add(entry.length);
        listing.add(entry, |file| layers.serial(&chain, file));
    }
    Ok(MapAnswer { extents: listing.finish(|file| layers.serial(&chain, file)) })
}

#[cfg(test)]
mod tests;
