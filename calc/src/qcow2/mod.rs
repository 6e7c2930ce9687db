//! qcow2 images: header, L1 and L2 tables, refcounts, bitmaps, all in whole clusters.
//!
//! Source: the qcow2 specification (`docs/interop/qcow2.rst` of QEMU) for what an image must hold; where it leaves a
//! choice, the choice is the one measured from `qemu-img`.

mod bitmaps;
mod data;
mod exact;
mod metadata;

pub use bitmaps::{BitmapSpace, Granularity, TooManyBitmaps};
pub use data::DataClusters;
pub use exact::{Layout, Preallocation, Writer};

/// Longest L1 table that `qemu-img` makes, in bytes (`QCOW_MAX_L1_SIZE`).
const MAX_L1_BYTES: u64 = 32 << 20;

/// Size of a cluster in bytes: a power of two from 512 to 2 MiB (specification: `cluster_bits` from 9; the upper
/// bound is `qemu-img`'s).
///
/// ```
/// use calc::qcow2::ClusterSize;
/// assert!(ClusterSize::new(4096).is_some());
/// assert!(ClusterSize::new(256).is_none() && ClusterSize::new(5000).is_none() && ClusterSize::new(4 << 20).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterSize {
    bits: u32,
}

impl ClusterSize {
    /// 64 KiB.
    pub const DEFAULT: Self = Self { bits: 16 };

    /// `bytes` as a cluster size; `None` for what is not a power of two from 512 to 2 MiB.
    ///
    /// ```
    /// assert_eq!(calc::qcow2::ClusterSize::new(65536), Some(calc::qcow2::ClusterSize::DEFAULT));
    /// ```
    pub const fn new(bytes: u64) -> Option<Self> {
        let bits = bytes.trailing_zeros();
        if bytes.is_power_of_two() && bits >= 9 && bits <= 21 { Some(Self { bits }) } else { None }
    }

    /// The size in bytes.
    ///
    /// ```
    /// assert_eq!(calc::qcow2::ClusterSize::DEFAULT.bytes(), 65536);
    /// ```
    pub const fn bytes(self) -> u64 {
        1 << self.bits
    }

    /// The size as a power of two: 9 to 21.
    ///
    /// ```
    /// assert_eq!(calc::qcow2::ClusterSize::DEFAULT.bits(), 16);
    /// ```
    pub const fn bits(self) -> u32 {
        self.bits
    }
}

/// Width of a refcount in bits: a power of two from 1 to 64 (specification: `refcount_order` up to 6).
///
/// ```
/// use calc::qcow2::RefcountBits;
/// assert!(RefcountBits::new(1).is_some() && RefcountBits::new(64).is_some());
/// assert!(RefcountBits::new(0).is_none() && RefcountBits::new(3).is_none() && RefcountBits::new(128).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefcountBits {
    order: u32,
}

impl RefcountBits {
    /// 16 bits, the only width of version 2.
    pub const DEFAULT: Self = Self { order: 4 };

    /// `bits` as a refcount width; `None` for what is not a power of two from 1 to 64.
    ///
    /// ```
    /// assert_eq!(calc::qcow2::RefcountBits::new(16), Some(calc::qcow2::RefcountBits::DEFAULT));
    /// ```
    pub const fn new(bits: u64) -> Option<Self> {
        let order = bits.trailing_zeros();
        if bits.is_power_of_two() && order <= 6 { Some(Self { order }) } else { None }
    }

    /// The width in bits.
    ///
    /// ```
    /// assert_eq!(calc::qcow2::RefcountBits::DEFAULT.bits(), 16);
    /// ```
    pub const fn bits(self) -> u64 {
        1 << self.order
    }
}

/// Kind of the L2 entries (specification: incompatible feature bit 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum L2Entries {
    /// 8 bytes a cluster.
    #[default]
    Standard,
    /// 16 bytes a cluster, with a bitmap of 32 subclusters.
    Extended,
}

impl L2Entries {
    /// Bytes of one entry.
    ///
    /// ```
    /// assert_eq!(calc::qcow2::L2Entries::Extended.bytes(), 16);
    /// ```
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Standard => 8,
            Self::Extended => 16,
        }
    }
}

/// What decides the size of an image's metadata: cluster size, kind of L2 entries, refcount width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    cluster_size: ClusterSize,
    l2_entries: L2Entries,
    refcount_bits: RefcountBits,
}

impl Geometry {
    /// Smallest cluster with extended L2 entries: 16 KiB, so that a subcluster is a sector or more (specification:
    /// `cluster_bits` of at least 14 with feature bit 4).
    pub const MIN_EXTENDED: ClusterSize = ClusterSize { bits: 14 };

    /// A geometry; `None` for extended L2 entries with clusters below [`MIN_EXTENDED`](Self::MIN_EXTENDED).
    ///
    /// ```
    /// use calc::qcow2::{ClusterSize, Geometry, L2Entries, RefcountBits};
    /// let small = ClusterSize::new(8192).unwrap();
    /// assert!(Geometry::new(small, L2Entries::Standard, RefcountBits::DEFAULT).is_some());
    /// assert!(Geometry::new(small, L2Entries::Extended, RefcountBits::DEFAULT).is_none());
    /// ```
    pub const fn new(
        cluster_size: ClusterSize,
        l2_entries: L2Entries,
        refcount_bits: RefcountBits,
    ) -> Option<Self> {
        match l2_entries {
            L2Entries::Extended if cluster_size.bits < Self::MIN_EXTENDED.bits => None,
            _ => Some(Self { cluster_size, l2_entries, refcount_bits }),
        }
    }

    /// The geometry with another refcount width.
    ///
    /// ```
    /// use calc::{Length, qcow2::{Geometry, RefcountBits}};
    /// let wide = Geometry::default().with_refcount_bits(RefcountBits::new(64).unwrap());
    /// // 2 GiB are 32768 clusters: one refcount block holds the counts of 32768, or of 8192.
    /// assert_eq!(wide.metadata(Length::new(2 << 30).unwrap()), 12 * 65536);
    /// ```
    pub const fn with_refcount_bits(self, refcount_bits: RefcountBits) -> Self {
        Self { refcount_bits, ..self }
    }

    /// The size of a cluster.
    ///
    /// ```
    /// use calc::qcow2::{ClusterSize, Geometry};
    /// assert_eq!(Geometry::default().cluster_size(), ClusterSize::DEFAULT);
    /// ```
    pub const fn cluster_size(self) -> ClusterSize {
        self.cluster_size
    }
}

impl Default for Geometry {
    /// What `qemu-img create -f qcow2` makes: clusters of 64 KiB, standard L2 entries, 16-bit refcounts.
    fn default() -> Self {
        Self {
            cluster_size: ClusterSize::DEFAULT,
            l2_entries: L2Entries::Standard,
            refcount_bits: RefcountBits::DEFAULT,
        }
    }
}
