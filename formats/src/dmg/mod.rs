//! UDIF, the format of Apple's disk images (`.dmg`): a trailer, a table of chunks, and chunks that are stored, compressed
//! or zero. There is no specification: names are those of Apple's `hdiutil`, facts were measured from `qemu-img` and from
//! images; checks come in `qemu-img`'s order and in its words.

mod chunks;
mod plist;
mod resources;
mod trailer;

use alloc::string::String;

use chunks::{Chunks, Kind};
use trailer::{Table, Trailer};

use crate::{Error, ErrorKind, Extent, ExtentKind, Storage, Stream};

const SECTOR: u64 = 512;
/// Longest table of chunks in bytes: QEMU's limit for a property list, and ours for a resource fork.
const TABLE_LEN_MAX: u64 = 16 << 20;

fn invalid(field: &'static str, message: &str) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "chunk", message)
}

fn too_long(field: &'static str) -> Error {
    Error::new(ErrorKind::Limit, field, "The table of chunks is longer than 16 MiB")
}

/// An open Apple disk image.
#[derive(Debug)]
pub(crate) struct Dmg {
    virtual_size: u64,
    chunks: Chunks,
}

impl Dmg {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let trailer = Trailer::read(storage)?;
        let mut chunks = Chunks::new(trailer.sectors, trailer.data_fork);
        match trailer.table {
            Table::Resources { offset, length } => resources::read(storage, offset, length, &mut chunks)?,
            Table::PropertyList { offset, length } => plist::read(storage, offset, length, &mut chunks)?,
        }
        chunks.sort()?;
        Ok(Self { virtual_size: trailer.virtual_size()?, chunks })
    }

    /// Below 2^63.
    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Each chunk is a step.
    pub(crate) fn max_extents(&self) -> u64 {
        self.chunks.count()
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let chunk = self.chunks.at(offset)?;
        let is_stored = |length| chunk.offset.checked_add(length).is_some_and(|end| end <= storage.len());
        let kind = match chunk.kind {
            Kind::Zero => ExtentKind::Zero { offset: None },
            Kind::Raw if chunk.length() == chunk.disk_len() && is_stored(chunk.length()) => {
                ExtentKind::Data { offset: chunk.offset + (offset - chunk.start_bytes()) }
            }
            Kind::Compressed(_) if chunk.length() > 0 && is_stored(chunk.length()) => {
                ExtentKind::Compressed { offset: chunk.offset, length: chunk.length() }
            }
            Kind::Raw | Kind::Compressed(_) => {
                return Err(corrupt(
                    "A chunk is not as long as its sectors, or lies beyond the end of the file",
                ));
            }
        };
        let end = chunk.end_bytes().min(self.virtual_size);
        Ok(Extent::own(offset, end - offset, kind))
    }

    /// What it takes to decode an extent that is compressed.
    pub(crate) fn stream(&self, extent: &Extent) -> Result<Option<Stream>, Error> {
        let chunk = self.chunks.at(extent.start)?;
        let Kind::Compressed(codec) = chunk.kind else { return Ok(None) };
        Ok(Some(Stream {
            file: extent.file,
            offset: chunk.offset,
            length: chunk.length(),
            codec,
            cluster_len: chunk.disk_len(),
            skip: extent.start - chunk.start_bytes(),
        }))
    }
}
