//! VHDX images: header section of 1 MiB, log, block allocation table (BAT), metadata, payload blocks.
//!
//! Source: MS-VHDX, sections 2.2 to 2.6; the choices are those measured from `qemu-img`.

use crate::{Length, NewImage, blocks::Blocks};

const MIB: u64 = 1 << 20;
/// Bytes of the metadata region and of what is kept free behind it.
const METADATA: u64 = 5 * MIB;
/// Bytes of the disk that a sector bitmap block stands for: 2^23 sectors of 512 bytes.
const CHUNK: u64 = 512 << 23;

/// The longest disk, in bytes: 64 TiB (MS-VHDX, "Virtual Disk Size").
pub const MAX_SIZE: u64 = 64 << 40;

/// Size of a payload block in bytes: a power of two from 1 MiB to 256 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize(u64);

impl BlockSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// `bytes` as `qemu-img` takes it: rounded up to a MiB and down to 256 MiB; `None` for what is then no power of
    /// two, 0 included.
    ///
    /// ```
    /// use calc::vhdx::BlockSize;
    /// assert_eq!(BlockSize::new(1), BlockSize::new(1 << 20));
    /// assert_eq!(BlockSize::new(u64::MAX), BlockSize::new(256 << 20));
    /// assert!(BlockSize::new(0).is_none() && BlockSize::new(3 << 20).is_none());
    /// ```
    pub const fn new(bytes: u64) -> Option<Self> {
        let most = 256 * MIB;
        let bytes = if bytes > most { most } else { bytes.next_multiple_of(MIB) };
        if bytes.is_power_of_two() { Some(Self(bytes)) } else { None }
    }

    /// The size that a disk of `size` bytes gets when nobody says.
    ///
    /// ```
    /// use calc::{Length, vhdx::BlockSize};
    /// assert_eq!(Some(BlockSize::for_disk(Length::new(1 << 30).unwrap())), BlockSize::new(8 << 20));
    /// assert_eq!(Some(BlockSize::for_disk(Length::new(1 << 40).unwrap())), BlockSize::new(32 << 20));
    /// ```
    pub const fn for_disk(size: Length) -> Self {
        Self(match size.sectors().bytes() {
            bytes if bytes > 32 << 40 => 64 * MIB,
            bytes if bytes > 100 << 30 => 32 * MIB,
            bytes if bytes > 1 << 30 => 16 * MIB,
            _ => 8 * MIB,
        })
    }
}

/// Size of the log in bytes: whole MiB, below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSize(u64);

impl LogSize {
    /// 1 MiB.
    pub const DEFAULT: Self = Self(MIB);

    /// `bytes` rounded up to a MiB; `None` for 0, and for 4 GiB and more.
    ///
    /// ```
    /// use calc::vhdx::LogSize;
    /// assert_eq!(LogSize::new(1), Some(LogSize::DEFAULT));
    /// assert!(LogSize::new(0).is_none() && LogSize::new((4 << 30) - 1).is_none());
    /// ```
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes == 0 || bytes > (4 << 30) - MIB { None } else { Some(Self(bytes.next_multiple_of(MIB))) }
    }
}

/// Where payload blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At the end of the file, when they are written.
    Dynamic,
    /// There from the start, and in the BAT.
    Fixed,
    /// There from the start; but the BAT calls them zero (`block_state_zero`, the default), so that a block that is
    /// written gets a place at the end of the file all the same.
    FixedZero,
}

/// A VHDX image that is being written.
///
/// ```
/// use calc::{Length, NewImage, vhdx::{BlockSize, Image, Kind, LogSize}};
/// let disk = Length::new(1 << 30).unwrap();
/// let mut image = Image::new(disk, BlockSize::for_disk(disk), LogSize::DEFAULT, Kind::Dynamic).unwrap();
/// assert_eq!(image.length(), 8 << 20);
/// image.write(Length::new(5).unwrap(), Length::new(6).unwrap());
/// assert_eq!(image.length(), 16 << 20);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    block_size: BlockSize,
    log: LogSize,
    kind: Kind,
    data: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors; `None` above [`MAX_SIZE`].
    ///
    /// ```
    /// use calc::{Length, vhdx::{BlockSize, Image, Kind, LogSize, MAX_SIZE}};
    /// let long = Length::new(MAX_SIZE + 1).unwrap();
    /// assert!(Image::new(long, BlockSize::for_disk(long), LogSize::DEFAULT, Kind::Fixed).is_none());
    /// ```
    pub const fn new(size: Length, block_size: BlockSize, log: LogSize, kind: Kind) -> Option<Self> {
        let disk = size.sectors();
        if disk.bytes() > MAX_SIZE {
            return None;
        }
        Some(Self { disk, block_size, log, kind, data: Blocks::new(block_size.0) })
    }

    /// Whether the last block is all there, as far as `qemu-img` looks: a fixed image ends where the disk does, which may be
    /// inside its last block, and `qemu-img` opens such an image only if its BAT is that of one chunk.
    ///
    /// ```
    /// use calc::{Length, vhdx::{BlockSize, Image, Kind, LogSize}};
    /// let of = |size, kind| {
    ///     let size = Length::new(size).unwrap();
    ///     Image::new(size, BlockSize::new(8 << 20).unwrap(), LogSize::DEFAULT, kind).unwrap().has_last_block()
    /// };
    /// assert!(of((4 << 30) + 512, Kind::FixedZero) && of(5 << 30, Kind::Fixed) && of(512, Kind::Fixed));
    /// assert!(!of((4 << 30) + 512, Kind::Fixed));
    /// ```
    pub const fn has_last_block(&self) -> bool {
        let bytes = self.disk.bytes();
        !matches!(self.kind, Kind::Fixed) || bytes <= CHUNK || bytes.is_multiple_of(self.block_size.0)
    }

    /// Bytes of the BAT: an entry of 8 bytes a block, and one a chunk but for the last, in whole MiB. At most 2 GiB.
    ///
    /// For a disk of 0 bytes `qemu-img` has the number of entries less one wrap at 2^32.
    ///
    /// ```
    /// use calc::{Length, vhdx::{BlockSize, Image, Kind, LogSize}};
    /// let of = |size, block| {
    ///     let block = BlockSize::new(block).unwrap();
    ///     Image::new(Length::new(size).unwrap(), block, LogSize::DEFAULT, Kind::Dynamic).unwrap().bat()
    /// };
    /// assert_eq!((of(1 << 30, 8 << 20), of(64 << 40, 64 << 20)), (1 << 20, 9 << 20));
    /// assert_eq!(of(0, 256 << 20), 2 << 30);
    /// ```
    pub const fn bat(&self) -> u64 {
        let blocks = self.disk.bytes().div_ceil(self.block_size.0);
        let chunk = CHUNK / self.block_size.0;
        let others = match blocks.checked_sub(1) {
            Some(before_the_last) => before_the_last / chunk,
            None => (u32::MAX as u64) / chunk,
        };
        ((blocks + others) * 8).next_multiple_of(MIB)
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
        let start = MIB + self.log.0 + self.bat() + METADATA;
        let disk = self.disk.bytes();
        match (self.kind, self.data.bytes()) {
            (Kind::Dynamic, data) => start + data,
            (Kind::Fixed, _) | (Kind::FixedZero, 0) => start + disk,
            (Kind::FixedZero, data) => (start + disk).next_multiple_of(MIB) + data,
        }
    }
}
