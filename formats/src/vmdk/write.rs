//! Images that are written.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::stream::Stream;
use super::tables::Tables;
use crate::write::{Place, Writer};
use crate::{Codec, Error, FileIndex, StorageMut};

/// A VMDK image that is open for writing.
#[derive(Debug)]
pub enum Target<S> {
    /// One whose tables are in front of its grains, or that has none.
    Tables(Box<Tables<S>>),
    /// One whose tables come behind their grains.
    Stream(Stream<S>),
}

/// Opens an image for writing. `files` are those behind [`Image::references`](crate::Image::references), in that order;
/// `cid` will be the content id of what is written.
///
/// # Errors
///
/// What is no VMDK image or is broken; compressed grains, grains that are no power of two or do not begin where the disk's
/// do, and kinds of files that QEMU does not write to; files that are missing; failures of the storage.
pub fn open<S: StorageMut>(storage: S, files: Vec<S>, cid: u32) -> Result<Target<S>, Error> {
    Tables::open(storage, files, cid).map(|tables| Target::Tables(Box::new(tables)))
}

impl<S: StorageMut> Writer for Target<S> {
    type Storage = S;

    fn virtual_size(&self) -> u64 {
        match self {
            Self::Tables(tables) => tables.virtual_size(),
            Self::Stream(stream) => stream.virtual_size(),
        }
    }

    fn unit(&self) -> u64 {
        match self {
            Self::Tables(tables) => tables.unit(),
            Self::Stream(stream) => stream.unit(),
        }
    }

    /// Where grains are compressed none has a place without being compressed.
    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        match self {
            Self::Tables(tables) => tables.allocate(offset, length),
            Self::Stream(_) => Err(super::tables::compressed_only()),
        }
    }

    fn codec(&self) -> Option<Codec> {
        match self {
            Self::Tables(tables) => tables.codec(),
            Self::Stream(_) => Some(Codec::Zlib),
        }
    }

    /// A stream that is longer than the grain is stored all the same: such grains are compressed or not at all.
    fn allocate_compressed(&mut self, offset: u64, stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        match self {
            Self::Tables(tables) => tables.allocate_compressed(offset, stream),
            Self::Stream(target) => target.allocate_compressed(offset, stream).map(Some),
        }
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        match self {
            Self::Tables(tables) => tables.zero(offset, length),
            Self::Stream(stream) => stream.zero(offset, length),
        }
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        match self {
            Self::Tables(tables) => tables.file(file),
            Self::Stream(stream) => (file == FileIndex::OWN).then(|| stream.storage()),
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        match self {
            Self::Tables(tables) => tables.finish(),
            Self::Stream(stream) => stream.finish(),
        }
    }
}
