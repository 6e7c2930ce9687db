//! What a disk and its extents are called.

/// `createType`: how a disk is kept in files. Section "The Header" of the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateType {
    /// One sparse file with its descriptor inside.
    MonolithicSparse,
    /// One sparse file of compressed grains.
    StreamOptimized,
    /// A descriptor and one flat file.
    MonolithicFlat,
    /// A descriptor and a flat file on VMFS.
    Vmfs,
    /// A descriptor and a `COWD` file.
    VmfsSparse,
    /// A descriptor and a `SESPARSE` file.
    SeSparse,
    /// A descriptor and sparse files of up to 2 GiB of the disk each.
    TwoGbMaxExtentSparse,
    /// A descriptor and flat files of up to 2 GiB each.
    TwoGbMaxExtentFlat,
}

impl CreateType {
    /// Those that a descriptor in a file of its own may say.
    const OF_DESCRIPTORS: [Self; 6] = [
        Self::MonolithicFlat,
        Self::Vmfs,
        Self::VmfsSparse,
        Self::SeSparse,
        Self::TwoGbMaxExtentSparse,
        Self::TwoGbMaxExtentFlat,
    ];

    /// The type as it stands in a descriptor.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MonolithicSparse => "monolithicSparse",
            Self::StreamOptimized => "streamOptimized",
            Self::MonolithicFlat => "monolithicFlat",
            Self::Vmfs => "vmfs",
            Self::VmfsSparse => "vmfsSparse",
            Self::SeSparse => "seSparse",
            Self::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            Self::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
        }
    }

    pub(super) fn of_descriptor(name: &[u8]) -> Option<Self> {
        Self::OF_DESCRIPTORS.into_iter().find(|create_type| create_type.name().as_bytes() == name)
    }
}

/// The type of an extent. Section "The Extent Descriptions".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentType {
    /// Bytes of the disk as they are.
    Flat,
    /// The same on VMFS, from the start of the file.
    Vmfs,
    /// A sparse file.
    Sparse,
    /// A sparse file on VMFS; any kind of sparse file will do for both names.
    VmfsSparse,
    /// A `SESPARSE` file.
    SeSparse,
    /// No file at all: zeros.
    Zero,
}

impl ExtentType {
    const ALL: [Self; 6] =
        [Self::Flat, Self::Vmfs, Self::Sparse, Self::VmfsSparse, Self::SeSparse, Self::Zero];

    /// The type as it stands in a descriptor.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Vmfs => "VMFS",
            Self::Sparse => "SPARSE",
            Self::VmfsSparse => "VMFSSPARSE",
            Self::SeSparse => "SESPARSE",
            Self::Zero => "ZERO",
        }
    }

    pub(super) fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
    }
}
