//! Parallels images: a header with the block allocation table (BAT), in whole clusters, then clusters as they come to
//! be.
//!
//! Source: QEMU's `docs/interop/parallels.rst` for the layout; the choices are those measured from `qemu-img`.

use crate::{Length, NewImage, blocks::Blocks};

/// Bytes of the header in front of the BAT.
const HEADER: u64 = 64;
/// Most entries of a BAT that `qemu-img` opens.
const MAX_ENTRIES: u64 = (1 << 29) - 1;

/// Size of a cluster in bytes: whole sectors, below 2 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSize(u64);

impl ClusterSize {
    /// 1 MiB.
    pub const DEFAULT: Self = Self(1 << 20);

    /// `bytes` rounded up to a sector; `None` from 2 GiB on.
    ///
    /// ```
    /// use calc::parallels::ClusterSize;
    /// assert_eq!(ClusterSize::new(1 << 20), Some(ClusterSize::DEFAULT));
    /// assert!(ClusterSize::new(1).is_some() && ClusterSize::new((2 << 30) - 1).is_none());
    /// ```
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes > (2 << 30) - 512 { None } else { Some(Self(bytes.next_multiple_of(512))) }
    }
}

/// Where the first cluster of data is: a difference for cluster sizes that are no power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first multiple of the cluster size behind the BAT.
    Whole,
    /// As [`Start::Whole`], or where masking puts the end of the BAT if that is farther: from 10.0 on `qemu-img` rounds up
    /// as if the cluster size were a power of two, finds its own header wrong, and repairs it.
    Masked,
}

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Clusters of 0 bytes, or 2^32 clusters and more.
    TooLong,
    /// `qemu-img` makes an image with so many clusters and does not open it.
    TableTooLarge,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "Image size is too large for this cluster size",
            Self::TableTooLarge => "Catalog too large",
        })
    }
}

impl core::error::Error for Refusal {}

/// A Parallels image that is being written.
///
/// ```
/// use calc::{Length, NewImage, parallels::{ClusterSize, Image, Start}};
/// let mut image = Image::new(Length::new(1 << 30).unwrap(), ClusterSize::DEFAULT, Start::Masked)?;
/// assert_eq!(image.length(), 1 << 20);
/// image.write(Length::new(5).unwrap(), Length::new(6).unwrap());
/// assert_eq!(image.length(), 2 << 20);
/// # Ok::<(), calc::parallels::Refusal>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    cluster: ClusterSize,
    start: Start,
    data: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors.
    ///
    /// ```
    /// use calc::{Length, parallels::{ClusterSize, Image, Refusal, Start}};
    /// let of = |size, cluster| {
    ///     Image::new(Length::new(size).unwrap(), ClusterSize::new(cluster).unwrap(), Start::Whole).map(|_| ())
    /// };
    /// assert_eq!(of(1, 0), Err(Refusal::TooLong));
    /// assert_eq!(of(1 << 49, 1 << 20), Err(Refusal::TableTooLarge));
    /// ```
    pub fn new(size: Length, cluster: ClusterSize, start: Start) -> Result<Self, Refusal> {
        let disk = size.sectors();
        if disk.bytes() >= cluster.0 << 32 {
            return Err(Refusal::TooLong);
        }
        if disk.bytes().div_ceil(cluster.0) > MAX_ENTRIES {
            return Err(Refusal::TableTooLarge);
        }
        Ok(Self { disk, cluster, start, data: Blocks::new(cluster.0) })
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
        let cluster = self.cluster.0;
        let table = HEADER + 4 * self.disk.bytes().div_ceil(cluster);
        let whole = table.next_multiple_of(cluster);
        let start = match self.start {
            Start::Whole => whole,
            Start::Masked => whole.max((table.next_multiple_of(512) + cluster - 512) & !(cluster - 512)),
        };
        start + self.data.bytes()
    }
}
