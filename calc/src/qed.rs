//! QED images: header cluster, L1 table, then L2 tables and clusters as they come to be.
//!
//! Source: QEMU's `docs/interop/qed_spec.txt` for the layout; the choices are those measured from `qemu-img`.

use crate::{Length, NewImage, blocks::Blocks};

/// Size of a cluster in bytes: a power of two from 4 KiB to 64 MiB (specification: `cluster_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSize(u64);

impl ClusterSize {
    /// 64 KiB.
    pub const DEFAULT: Self = Self(65536);

    /// `bytes` as a cluster size; `None` for what is not a power of two from 4 KiB to 64 MiB.
    ///
    /// ```
    /// use calc::qed::ClusterSize;
    /// assert_eq!(ClusterSize::new(65536), Some(ClusterSize::DEFAULT));
    /// assert!(ClusterSize::new(2048).is_none() && ClusterSize::new(5000).is_none());
    /// ```
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 4 << 10 && bytes <= 64 << 20 {
            Some(Self(bytes))
        } else {
            None
        }
    }
}

/// Clusters of an L1 or L2 table: a power of two from 1 to 16 (specification: `table_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u64);

impl TableSize {
    /// 4 clusters.
    pub const DEFAULT: Self = Self(4);

    /// `clusters` as a table size; `None` for what is not a power of two from 1 to 16.
    ///
    /// ```
    /// use calc::qed::TableSize;
    /// assert!(TableSize::new(16).is_some() && TableSize::new(3).is_none() && TableSize::new(0).is_none());
    /// ```
    pub const fn new(clusters: u64) -> Option<Self> {
        if clusters.is_power_of_two() && clusters <= 16 { Some(Self(clusters)) } else { None }
    }
}

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The disk is longer than the tables can map: than these bytes. `qemu-img` has the product wrap at 2^64, so that
    /// it is 0 for the largest clusters.
    TooLong(u64),
    /// The L1 table is one cluster: `qemu-img` makes such an image and does not open it.
    SmallTable,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong(most) => write!(
                f,
                "QED image size must be a non-zero multiple of cluster size and less than {most} bytes"
            ),
            Self::SmallTable => f.write_str("QED table offset is invalid"),
        }
    }
}

impl core::error::Error for Refusal {}

/// A QED image that is being written.
///
/// ```
/// use calc::{Length, NewImage, qed::{ClusterSize, Image, TableSize}};
/// let disk = Length::new(1 << 30).unwrap();
/// let mut image = Image::new(disk, ClusterSize::DEFAULT, TableSize::DEFAULT)?;
/// assert_eq!(image.length(), (1 + 4) * 65536);
/// image.write(Length::new(5).unwrap(), Length::new(6).unwrap());
/// assert_eq!(image.length(), (1 + 4 + 4 + 1) * 65536);
/// # Ok::<(), calc::qed::Refusal>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    cluster: ClusterSize,
    table: TableSize,
    data: Blocks,
    tables: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors.
    ///
    /// ```
    /// use calc::{Length, qed::{ClusterSize, Image, Refusal, TableSize}};
    /// let disk = Length::new((64 << 40) + 1).unwrap();
    /// let refusal = Image::new(disk, ClusterSize::DEFAULT, TableSize::DEFAULT).unwrap_err();
    /// assert_eq!(refusal, Refusal::TooLong(64 << 40));
    /// ```
    pub fn new(size: Length, cluster: ClusterSize, table: TableSize) -> Result<Self, Refusal> {
        let disk = size.sectors();
        let entries = table.0 * cluster.0 / 8;
        let most = (entries * cluster.0).wrapping_mul(entries);
        if disk.bytes() > most {
            return Err(Refusal::TooLong(most));
        }
        if table.0 == 1 {
            return Err(Refusal::SmallTable);
        }
        let (data, tables) = (Blocks::new(cluster.0), Blocks::new(entries * cluster.0));
        Ok(Self { disk, cluster, table, data, tables })
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
        let clusters = 1 + self.table.0 + self.tables.count() * self.table.0 + self.data.count();
        clusters * self.cluster.0
    }
}
