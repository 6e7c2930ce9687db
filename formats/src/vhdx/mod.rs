//! VHDX, the format of Hyper-V. Section names in comments are those of Microsoft's [MS-VHDX]; checks come in
//! `qemu-img`'s order and, where it has any, in its words. Where all it says is "Invalid argument", the reason is given.

mod check;
mod crc32c;
mod create;
mod guid;
mod header;
mod log;
mod metadata;
mod overlay;
mod parent;
mod regions;
mod walk;
mod write;

use alloc::string::String;

pub use create::{Create, create};
pub use header::{Guids, Header};
pub use metadata::Metadata;
pub use parent::ParentLocator;
pub use write::{Target, open};

use crate::{Access, BackingFile, Error, ErrorKind, Extent, Storage};
use overlay::{Overlay, Replayed};
use regions::{Regions, Span};
use walk::{Place, Walk};

pub(crate) use header::probe;

/// Unit of the layout of a file, in bytes; the header section is the first of them.
const MIB: u64 = 1 << 20;

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

fn corrupt(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, field, message)
}

/// An open VHDX image.
#[derive(Debug)]
pub struct Vhdx {
    header: Header,
    overlay: Overlay,
    regions: Regions,
    metadata: Metadata,
    walk: Walk,
}

impl Vhdx {
    pub(crate) fn open<S: Storage>(storage: &mut S, access: Access<'_>) -> Result<Self, Error> {
        let header = Header::read(storage)?;
        let overlay = log::replay(storage, &header)?;
        let mut storage = Replayed::new(storage, &overlay);
        let (start, length) = header.log();
        let regions = Regions::read(&mut storage, Span { start, end: start.saturating_add(length) })?;
        let metadata = Metadata::read(&mut storage, regions.metadata)?;
        let place = Place { metadata: &metadata, regions: &regions, overlay: &overlay };
        let walk = Walk::open(&mut storage, place, access)?;
        Ok(Self { header, overlay, regions, metadata, walk })
    }

    /// The current header, checked.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The metadata, checked.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether the log held changes to the file, which are taken into account and not written.
    pub fn log_replayed(&self) -> bool {
        self.overlay.pieces() != 0
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.metadata.virtual_size()
    }

    pub(crate) fn backing(&self) -> Option<&BackingFile> {
        self.metadata.parent_locator().map(ParentLocator::backing)
    }

    pub(crate) fn max_extents(&self) -> u64 {
        self.walk.max_extents(&self.metadata)
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let place = Place { metadata: &self.metadata, regions: &self.regions, overlay: &self.overlay };
        self.walk.extent_at(storage, place, offset)
    }
}
