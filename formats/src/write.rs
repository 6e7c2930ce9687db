//! Images that are written to: new ones, and existing ones that are open for writing.
//!
//! A [`Writer`] decides *where* bytes of the disk go, and keeps the tables; the bytes themselves are stored by its caller, who
//! can have many of them on their way while the next are being looked at.

use alloc::vec::Vec;

use crate::{Codec, Error, FileIndex, StorageMut};

/// Where bytes of the disk are stored: one after the other in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: FileIndex,
    /// Offset in it in bytes.
    pub offset: u64,
    /// How many bytes from there on, at least 1.
    pub length: u64,
}

/// An image that is open for writing.
///
/// Ranges of the disk begin at a multiple of the [`unit`](Self::unit), and end at one or at the end of the disk. Space is
/// taken in the order of the calls, so that writes in ascending order give the file that `qemu-img convert` gives, and of
/// its length.
pub trait Writer {
    /// The files that the image lies in.
    type Storage: StorageMut;

    /// Size of the disk in bytes.
    fn virtual_size(&self) -> u64;

    /// Bytes that are given a place at once: a cluster, grain or block; a sector where there is no such thing. A power of two.
    fn unit(&self) -> u64;

    /// Gives the `length` bytes of the disk at `offset` a place, or as many of them as go to one, and says where. They count as
    /// data from now on; the caller stores all of them there before [`finish`](Self::finish), or, at the end of a disk that
    /// is not whole units, as many as there are.
    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error>;

    /// How units are compressed, if they can be.
    fn codec(&self) -> Option<Codec> {
        None
    }

    /// As [`allocate`](Self::allocate), for the unit at `offset` in compressed form. `stream` is made what is to be stored there,
    /// which may have more around the stream than it came with. `None` if the unit is to be stored as it is: `stream` is not
    /// shorter, or the format cannot hold it.
    fn allocate_compressed(&mut self, offset: u64, stream: &mut Vec<u8>) -> Result<Option<Place>, Error>;

    /// Makes `length` bytes of the disk at `offset` read as zeros, whatever was there and whatever lies below.
    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error>;

    /// Whether [`encode`](Self::encode) does anything: then zeros, too, are stored as something else.
    fn encrypts(&self) -> bool {
        false
    }

    /// Turns bytes of the disk at `offset`, whole sectors, into what is stored at `place`: encrypts them, where the image is
    /// encrypted.
    fn encode(&self, _offset: u64, _place: &Place, _bytes: &mut [u8]) {}

    /// A file, to store what was given a place in it.
    fn file(&mut self, file: FileIndex) -> Option<&mut Self::Storage>;

    /// Writes what is left of the tables, behind the data on the disk, and waits until all of it is there.
    fn finish(&mut self) -> Result<(), Error>;
}
