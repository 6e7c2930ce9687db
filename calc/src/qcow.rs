//! qcow images, version 1: header, L1 table, then L2 tables and clusters as they come to be.
//!
//! Source: `qemu-img` as measured; the layout is that of QEMU's `block/qcow.c`.

use crate::{Length, NewImage, blocks::Blocks};

/// Bytes of the header in front of the name of the backing file.
const HEADER: u64 = 48;
/// Bytes of the disk that an L2 table covers: 512 clusters of 4096 bytes, or 4096 clusters of 512.
const TABLE_COVERS: u64 = 2 << 20;
/// Most entries of an L1 table that `qemu-img` opens.
const MAX_L1_ENTRIES: u64 = (1 << 28) - 1;

/// The longest disk `qemu-img` opens an image of, in bytes: 512 TiB less 2 MiB.
pub const MAX_SIZE: u64 = MAX_L1_ENTRIES * TABLE_COVERS;

/// A qcow image that is being written.
///
/// ```
/// use calc::{Length, NewImage, qcow::Image};
/// let mut image = Image::new(Length::new(1 << 30).unwrap(), None).unwrap();
/// assert_eq!(image.length(), 48 + 4096); // 512 entries of 8 bytes
/// image.write(Length::new(5).unwrap(), Length::new(6).unwrap());
/// assert_eq!(image.length(), 8192 + 4096 + 4096);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    header: u64,
    cluster: u64,
    data: Blocks,
    tables: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors, over a backing file whose name takes that many
    /// bytes, if there is one: clusters are then of a sector, so that what is not written need not be copied. `None`
    /// above [`MAX_SIZE`].
    ///
    /// ```
    /// use calc::{Length, NewImage, qcow::{Image, MAX_SIZE}};
    /// assert!(Image::new(Length::new(MAX_SIZE + 1).unwrap(), None).is_none());
    /// let backed = Image::new(Length::new(1 << 20).unwrap(), Some(9)).unwrap();
    /// assert_eq!(backed.length(), 64 + 512);
    /// ```
    pub fn new(size: Length, backing_name: Option<u32>) -> Option<Self> {
        let disk = size.sectors();
        if disk.bytes() > MAX_SIZE {
            return None;
        }
        let header = (HEADER + u64::from(backing_name.unwrap_or(0))).next_multiple_of(8);
        let cluster = if backing_name.is_some() { 512 } else { 4096 };
        Some(Self { disk, header, cluster, data: Blocks::new(cluster), tables: Blocks::new(TABLE_COVERS) })
    }
}

impl NewImage for Image {
    fn disk(&self) -> Length {
        self.disk
    }

    fn empty(&self) -> Self {
        Self { data: self.data.empty(), tables: self.tables.empty(), ..*self }
    }

    fn write(&mut self, start: Length, end: Length) {
        self.data.write(start, end);
        self.tables.write(start, end);
    }

    fn length(&self) -> u64 {
        let l1 = (self.disk.bytes().div_ceil(TABLE_COVERS) * 8).next_multiple_of(512);
        let empty = self.header + l1;
        if self.data.count() == 0 {
            return empty;
        }
        let table = TABLE_COVERS / self.cluster * 8;
        empty.next_multiple_of(self.cluster) + self.tables.count() * table + self.data.bytes()
    }
}
