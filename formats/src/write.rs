//! Images that are written to: new ones, and existing ones that are open for writing.
//!
//! A [`Writer`] decides *where* bytes of the disk go, and keeps the tables; the bytes themselves are stored by its caller, who
//! can have many of them on their way while the next are being looked at.

use alloc::vec::Vec;
use core::ops::Range;

use crate::{Codec, Error, ErrorKind, FileIndex, StorageError, StorageMut};

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

/// A persistent bitmap that a new image gets.
#[derive(Clone, Copy, Debug)]
pub struct NewBitmap<'a> {
    /// Its name, 1 to 1023 bytes, which no other bitmap of the image has.
    pub name: &'a [u8],
    /// log2 of the virtual bytes that one bit stands for, 9 to 31.
    pub granularity_bits: u8,
    /// Whether it is to be kept up to date automatically.
    pub auto: bool,
}

/// Hands parts of a disk, in bytes, to the function that it is called with.
pub type Ranges<'a> = &'a mut dyn FnMut(&mut dyn FnMut(Range<u64>)) -> Result<(), Error>;

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

    /// Bytes that are given a place at once: a cluster or grain; a sector where there is no such thing, or what is not written of
    /// it reads as zeros. A power of two.
    fn unit(&self) -> u64;

    /// Smallest part of the disk that can be given a place on its own, or made zeros, in bytes, where the rest of its unit is left
    /// to the image below: a subcluster, where there is such a thing. A power of two.
    fn granularity(&self) -> u64 {
        self.unit()
    }

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

    /// Gives the image, when all data is written, a persistent bitmap that has bits set for these ranges of the disk. For new images
    /// alone, and only where the format has bitmaps: `unsupported` elsewhere.
    fn add_bitmap(&mut self, _bitmap: &NewBitmap<'_>, _ranges: Ranges<'_>) -> Result<(), Error> {
        let message = "Cannot store dirty bitmaps in this image";
        Err(Error::new(ErrorKind::Unsupported, "bitmap directory", message))
    }

    /// A file, to store what was given a place in it.
    fn file(&mut self, file: FileIndex) -> Option<&mut Self::Storage>;

    /// Writes what is left of the tables, behind the data on the disk, and waits until all of it is there.
    fn finish(&mut self) -> Result<(), Error>;
}

/// The part of a disk of `size` bytes that `length` bytes from `offset` on are: the number of its first block and how many
/// blocks it is, blocks being `block_len` bytes. What is no such part is refused.
pub(crate) fn blocks_of(offset: u64, length: u64, block_len: u64, size: u64) -> Result<(u64, u64), Error> {
    let end = offset.checked_add(length).filter(|&end| length > 0 && end <= size);
    match end {
        Some(end) if offset.is_multiple_of(block_len) => {
            let first = offset / block_len;
            Ok((first, end.div_ceil(block_len) - first))
        }
        _ => Err(Error::new(ErrorKind::Limit, "offset", "Write outside of the disk or of whole blocks")),
    }
}

/// Clears what the file has already of the `length` bytes at `offset`, where a new block is going to be; what it does not have
/// yet is zeros when it has.
pub(crate) fn clear_old<S: StorageMut>(
    storage: &mut S,
    offset: u64,
    length: u64,
) -> Result<(), StorageError> {
    match storage.len().saturating_sub(offset).min(length) {
        0 => Ok(()),
        old => storage.write_zeros(offset, old),
    }
}

/// Blocks of the disk that follow each other in the file.
pub(crate) struct Run {
    /// File offset in bytes.
    pub(crate) offset: u64,
    /// Number of blocks, at least 1.
    pub(crate) blocks: u64,
}

/// The blocks of an image, as its table has them.
pub(crate) trait Blocks {
    /// Bytes from the place of a block to that of the next one of a run.
    fn stride(&self) -> u64;

    /// Where the block is in the file, in bytes, if it has a place to be written to.
    fn place(&mut self, block: u64) -> Result<Option<u64>, Error>;

    /// Where the next block that has no place will get one; `None` if it cannot go on where the last one ended.
    fn next_free(&self) -> Option<u64>;

    /// Gives the block, which has no place, one.
    fn take(&mut self, block: u64) -> Result<u64, Error>;

    /// Overwrites `length` bytes of the file from `offset` on with zeros.
    fn clear(&mut self, offset: u64, length: u64) -> Result<(), Error>;

    /// Overwrites with zeros what is stored of `length` bytes of the disk from `offset` on, blocks being `block_len` bytes.
    fn clear_stored(&mut self, mut offset: u64, length: u64, block_len: u64) -> Result<(), Error> {
        let end = offset + length;
        while offset < end {
            let (block, within) = (offset / block_len, offset % block_len);
            let part = (block_len - within).min(end - offset);
            if let Some(place) = self.place(block)? {
                self.clear(place + within, part)?;
            }
            offset += part;
        }
        Ok(())
    }

    /// Gives `length` bytes of the disk from `offset` on, or as many as go to one, a place in the image's own file, blocks being
    /// as long as a [`stride`](Self::stride). What else is in a block that is new reads as zeros.
    fn allocate_in_blocks(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        let block_len = self.stride();
        let (block, within) = (offset / block_len, offset % block_len);
        let run = self.take_run(block, (within + length).div_ceil(block_len))?;
        let length = length.min(run.blocks * block_len - within);
        Ok(Place { file: FileIndex::OWN, offset: run.offset + within, length })
    }

    /// Gives the blocks from `first` on, at most `count` and at least one, places that follow each other.
    fn take_run(&mut self, first: u64, count: u64) -> Result<Run, Error> {
        let offset = match self.place(first)? {
            Some(offset) => offset,
            None => self.take(first)?,
        };
        let mut blocks = 1;
        while blocks < count {
            let next = blocks.checked_mul(self.stride()).and_then(|length| offset.checked_add(length));
            match self.place(first + blocks)? {
                Some(place) if Some(place) == next => {}
                // What takes another place than was free, as a table took that one, is the start of the next run.
                None if next.is_some() && self.next_free() == next => {
                    if Some(self.take(first + blocks)?) != next {
                        break;
                    }
                }
                _ => break,
            }
            blocks += 1;
        }
        Ok(Run { offset, blocks })
    }
}
