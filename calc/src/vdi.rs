//! VDI images: a header of one sector, a map of blocks of 1 MiB, and the blocks.
//!
//! Source: VirtualBox' `VDICore.h` for the layout; the choices are those measured from `qemu-img`.

use crate::{Length, NewImage, blocks::Blocks};

/// Bytes of a block.
const BLOCK: u64 = 1 << 20;

/// Most blocks of a disk: so many that the map still takes less than 2 GiB.
const MAX_BLOCKS: u64 = 0x1fff_ff80;

/// The longest disk `qemu-img` makes an image for, in bytes: 0x1fffff8000000, 512 TiB less 128 MiB.
pub const MAX_SIZE: u64 = MAX_BLOCKS * BLOCK;

/// Whether blocks come to be when they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They do.
    Dynamic,
    /// All of them are there from the start.
    Static,
}

/// A VDI image that is being written.
///
/// ```
/// use calc::{Length, NewImage, vdi::{Image, Kind}};
/// let mut image = Image::new(Length::new(1 << 30).unwrap(), Kind::Dynamic).unwrap();
/// assert_eq!(image.length(), 512 + 4096);
/// image.write(Length::new(5).unwrap(), Length::new(6).unwrap());
/// assert_eq!(image.length(), 512 + 4096 + (1 << 20));
/// assert_eq!(image.fully_allocated(), 512 + 4096 + (1 << 30));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    kind: Kind,
    data: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors; `None` above [`MAX_SIZE`].
    ///
    /// ```
    /// use calc::{Length, vdi::{Image, Kind, MAX_SIZE}};
    /// assert!(Image::new(Length::new(MAX_SIZE).unwrap(), Kind::Static).is_some());
    /// assert!(Image::new(Length::new(MAX_SIZE + 1).unwrap(), Kind::Static).is_none());
    /// ```
    pub const fn new(size: Length, kind: Kind) -> Option<Self> {
        let disk = size.sectors();
        if disk.bytes() > MAX_SIZE {
            return None;
        }
        Some(Self { disk, kind, data: Blocks::new(BLOCK) })
    }
}

impl NewImage for Image {
    fn disk(&self) -> Length {
        self.disk
    }

    fn empty(&self) -> Self {
        Self { data: self.data.empty(), ..*self }
    }

    fn write(&mut self, start: Length, end: Length) {
        self.data.write(start, end);
    }

    fn length(&self) -> u64 {
        let blocks = self.disk.bytes().div_ceil(BLOCK);
        let map = (blocks * 4).next_multiple_of(512);
        let data = match self.kind {
            Kind::Dynamic => self.data.bytes(),
            Kind::Static => blocks * BLOCK,
        };
        512 + map + data
    }
}
