//! vpc: the VHD format of Virtual PC and Hyper-V. Section names in comments are those of Microsoft's "Virtual Hard Disk
//! Image Format Specification"; checks come in `qemu-img`'s order and, where it has any, in its words.

mod check;
mod create;
mod footer;
mod geometry;
mod header;
mod parent;
mod walk;
mod write;

use alloc::string::String;
use alloc::vec::Vec;

pub use create::{Create, create};
pub use footer::{DiskType, Footer, Trailer};
pub use header::DynamicHeader;
pub use write::{Target, open};

use crate::{Access, BackingFile, Error, ErrorKind, Extent, ExtentKind, Regions, Storage};
use walk::Walk;

pub(crate) use footer::probe;

/// Unit of all offsets and lengths of the format, in bytes.
const SECTOR: u64 = 512;

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

/// An open VHD image.
#[derive(Debug)]
pub struct Vpc {
    footer: Footer,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Fixed(Regions),
    Blocks { header: DynamicHeader, parent: Option<Parent>, walk: Walk },
}

#[derive(Debug)]
struct Parent {
    backing: BackingFile,
    unique_id: [u8; 16],
}

impl Vpc {
    pub(crate) fn open<S: Storage>(storage: &mut S, access: Access<'_>) -> Result<Self, Error> {
        let footer = Footer::read(storage)?;
        if footer.disk_type() == DiskType::Fixed {
            return Ok(Self { footer, layout: Layout::Fixed(Regions::default()) });
        }
        let (header, named) = DynamicHeader::read(storage, &footer)?;
        let differencing = footer.disk_type() == DiskType::Differencing;
        let walk = Walk::open(storage, &header, footer.virtual_size(), differencing, access)?;
        let parent = if differencing {
            Some(Parent { backing: parent::read(storage, &named)?, unique_id: named.unique_id })
        } else {
            None
        };
        Ok(Self { footer, layout: Layout::Blocks { header, parent, walk } })
    }

    /// The footer, checked.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// What the end of the file says of an image that is not fixed, whose footer has its copy at the start.
    pub(crate) fn trailer<S: Storage>(&self, storage: &mut S) -> Result<Option<Trailer>, Error> {
        match self.layout {
            Layout::Fixed(_) => Ok(None),
            Layout::Blocks { .. } => self.footer.trailer(storage).map(Some),
        }
    }

    /// All names of the parent of a differencing image.
    pub(crate) fn parent_names<S: Storage>(&self, storage: &mut S) -> Result<Vec<Vec<u8>>, Error> {
        match self.parent() {
            None => Ok(Vec::new()),
            Some(_) => {
                let (_, named) = DynamicHeader::read(storage, &self.footer)?;
                parent::names(storage, &named)
            }
        }
    }

    /// The dynamic disk header, if the image is not fixed.
    pub fn dynamic_header(&self) -> Option<&DynamicHeader> {
        match &self.layout {
            Layout::Fixed(_) => None,
            Layout::Blocks { header, .. } => Some(header),
        }
    }

    /// What [`Footer::unique_id`] of the parent of a differencing image must be.
    pub fn parent_unique_id(&self) -> Option<[u8; 16]> {
        self.parent().map(|parent| parent.unique_id)
    }

    fn parent(&self) -> Option<&Parent> {
        match &self.layout {
            Layout::Fixed(_) => None,
            Layout::Blocks { parent, .. } => parent.as_ref(),
        }
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.footer.virtual_size()
    }

    pub(crate) fn backing(&self) -> Option<&BackingFile> {
        self.parent().map(|parent| &parent.backing)
    }

    pub(crate) fn max_extents(&self, file_len: u64) -> u64 {
        match &self.layout {
            Layout::Fixed(_) => 2,
            Layout::Blocks { header, walk, .. } => walk.max_extents(header, file_len, self.virtual_size()),
        }
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let virtual_size = self.footer.virtual_size();
        match &mut self.layout {
            Layout::Blocks { header, walk, .. } => walk.extent_at(storage, header, virtual_size, offset),
            Layout::Fixed(regions) => {
                let run = regions.at(storage, offset, virtual_size - offset)?;
                let kind = if run.zero { ExtentKind::Hole { offset } } else { ExtentKind::Data { offset } };
                Ok(Extent::own(offset, run.length, kind))
            }
        }
    }
}
