//! Images that are written to: new ones and existing ones.
//!
//! Tables are changed in memory and written many at once; a table is on the disk only when what it refers to is. The header
//! of a new image is the last thing that is written of it: until then the file is no image.

mod bitmaps;
mod compressed;
mod create;
mod encrypted;
mod head;
mod map;
mod new_bitmap;
mod open;
mod pages;
mod space;
mod zero;

use alloc::vec::Vec;

pub use create::{Create, Preallocation, create};
pub use encrypted::Encryption;
pub use open::open;

use crate::write::{NewBitmap, Place, Ranges};
use crate::{Codec, Error, ErrorKind, FileIndex, StorageMut};
use bitmaps::Tracked;
use encrypted::Cipher;
use head::HeaderCluster;
use space::Space;

/// Bytes of L2 tables that `qemu-img` keeps in memory whole; what has more of them is written in parts.
const L2_CACHE: u64 = 32 << 20;
/// Bytes of such a part.
const L2_SLICE: u64 = 4096;

/// What decides how the tables of an image are written.
#[derive(Clone, Copy, Debug)]
struct Shape {
    cluster_bits: u32,
    /// Bytes of an L2 entry: 8, or 16 if it tells subclusters apart.
    entry_len: u64,
    /// Length of the disk in bytes.
    size: u64,
    /// L2 entries that are handled together: a power of two.
    slice: u64,
    /// Whether an entry can say that a cluster reads as zeros.
    has_zero_clusters: bool,
    /// Whether what is unallocated is another image's.
    has_backing: bool,
    /// Whether data is in another file.
    data_file: bool,
    /// Whether that file is a raw image of the same disk.
    data_file_raw: bool,
    codec: Option<Codec>,
}

impl Shape {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn is_extended(&self) -> bool {
        self.entry_len != 8
    }

    /// Smallest part of a cluster that can be there or not, in bytes.
    fn subcluster(&self) -> u64 {
        if self.is_extended() { self.cluster() / 32 } else { self.cluster() }
    }

    /// L2 entries that `qemu-img` handles together.
    fn slice_for(&self) -> u64 {
        let tables = (self.size.div_ceil(self.cluster()) * self.entry_len).next_multiple_of(self.cluster());
        let slice = if tables > L2_CACHE { self.cluster().min(L2_SLICE) } else { self.cluster() };
        slice / self.entry_len
    }

    /// log2 of the entries of an L2 table.
    fn l2_bits(&self) -> u32 {
        self.cluster_bits - self.entry_len.trailing_zeros()
    }
}

/// A qcow2 image that is open for writing.
///
/// Where entries tell subclusters apart, ranges may also be whole subclusters, a 32nd of a cluster each, of clusters that are neither
/// compressed nor shared with a snapshot.
#[derive(Debug)]
pub struct Writer<S> {
    storage: S,
    data_file: Option<S>,
    shape: Shape,
    space: Space,
    /// File offset of the L1 table in bytes.
    l1_offset: u64,
    /// Entries of it.
    l1_entries: u64,
    /// L1 index and file offset of the L2 table that was used last.
    table: Option<(u64, u64)>,
    /// The file is at least this long in the end, in bytes.
    end: u64,
    /// From here on the disk reads as zeros, as nothing was ever written there.
    untouched: u64,
    /// The header, if it is still to be written.
    head: Option<HeaderCluster>,
    /// Bitmaps that are in use as long as the image is written to.
    bitmaps: Vec<Tracked>,
    /// The number of new bitmaps, and their directory.
    directory: (u32, Vec<u8>),
    /// What the data is encrypted with.
    cipher: Option<Cipher>,
}

impl<S: StorageMut> Writer<S> {
    /// Ends the file with a whole sector, as `qemu-img convert -c` does.
    pub fn align_end(&mut self) {
        self.end = self.end.max(self.storage.len()).next_multiple_of(512);
    }

    /// The file, and the data file if there is one.
    pub fn into_storage(self) -> (S, Option<S>) {
        (self.storage, self.data_file)
    }

    /// What was written ends at `end` or further on.
    fn touch(&mut self, offset: u64, end: u64) -> Result<(), Error> {
        self.untouched = self.untouched.max(end);
        self.mark_written(&(offset..end))
    }

    /// That `length` bytes at `offset` are on the disk, and whole units but at its end; where they end.
    fn check_range(&self, offset: u64, length: u64) -> Result<u64, Error> {
        let unit = self.shape.subcluster();
        let end = offset.checked_add(length).filter(|&end| end <= self.shape.size && length > 0);
        end.filter(|&end| offset.is_multiple_of(unit) && (end.is_multiple_of(unit) || end == self.shape.size))
            .ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, "range", "Range is not whole clusters of the disk")
            })
    }
}

impl<S: StorageMut> crate::write::Writer for Writer<S> {
    type Storage = S;

    fn virtual_size(&self) -> u64 {
        self.shape.size
    }

    fn unit(&self) -> u64 {
        self.shape.cluster()
    }

    fn granularity(&self) -> u64 {
        self.shape.subcluster()
    }

    fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        let end = self.check_range(offset, length)?.min(self.request_end(offset));
        let place = self.place(offset, end, map::As::Data)?;
        self.touch(offset, offset + place.length)?;
        Ok(place)
    }

    fn codec(&self) -> Option<Codec> {
        self.shape.codec
    }

    fn allocate_compressed(&mut self, offset: u64, stream: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        self.check_range(offset, 1.max(self.shape.cluster().min(self.shape.size.saturating_sub(offset))))?;
        let place = self.place_compressed(offset, stream.len() as u64)?;
        if place.is_some() {
            self.touch(offset, self.shape.size.min(offset + self.shape.cluster()))?;
        }
        Ok(place)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        let end = self.check_range(offset, length)?.min(self.untouched);
        if offset < end {
            self.make_zero(offset, end)?;
            self.mark_written(&(offset..end))?;
        }
        Ok(())
    }

    fn encrypts(&self) -> bool {
        self.cipher.is_some()
    }

    fn encode(&self, offset: u64, place: &Place, bytes: &mut [u8]) {
        if let Some(cipher) = &self.cipher {
            cipher.encrypt(offset, place, bytes);
        }
    }

    fn add_bitmap(&mut self, bitmap: &NewBitmap<'_>, ranges: Ranges<'_>) -> Result<(), Error> {
        self.put_bitmap(bitmap, ranges)
    }

    fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        match file {
            FileIndex::OWN => Some(&mut self.storage),
            FileIndex::DATA_FILE => self.data_file.as_mut(),
            _ => None,
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        if let Some(data_file) = &mut self.data_file {
            data_file.flush().map_err(|error| Error::from(error).in_file(FileIndex::DATA_FILE))?;
        }
        self.write_directory()?;
        if self.storage.len() < self.end {
            self.storage.set_length(self.end)?;
        }
        if self.space.pages.durable {
            self.storage.flush()?;
        }
        self.space.settle(&mut self.storage)?;
        self.space.pages.write_back(&mut self.storage)?;
        self.storage.flush()?;
        self.release_bitmaps()?;
        if let Some(mut head) = self.head.take() {
            let (offset, clusters) = self.space.table();
            head.fields.refcount_table_offset.set(offset);
            head.fields.refcount_table_clusters.set(clusters);
            let bytes = head.bytes(self.shape.cluster())?;
            self.storage.write_at(0, &bytes)?;
        }
        self.storage.flush()?;
        Ok(())
    }
}
