//! Checking an image: what is found, and what may be repaired. The counters and the lines told are `qemu-img`'s.

use core::fmt;

/// A release of QEMU, whose checks and words are followed. Ordered from old to new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first number of its version.
    pub major: u8,
    /// The second one.
    pub minor: u8,
}

/// What holds for a whole check.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whose checks and words are followed.
    pub release: Release,
    /// Bytes of memory that the check may take beside small buffers. With less than all it would like to have it reads
    /// tables more than once.
    pub memory: usize,
}

/// Takes a line about something that was found, without a newline. Names of an image in it may hold any characters.
pub type Tell<'a> = dyn FnMut(fmt::Arguments<'_>) + 'a;

/// What is to be repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: the image is only read.
    #[default]
    None,
    /// Clusters that are in use by nothing.
    Leaks,
    /// Whatever can be.
    All,
}

/// What was found, and what was repaired of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Errors by which data may be lost, now or by writing. Repaired ones do not count.
    pub corruptions: u64,
    /// Clusters that are in use by nothing: space is lost, and nothing else. Repaired ones do not count.
    pub leaks: u64,
    /// Failures of the check itself.
    pub check_errors: u64,
    /// Errors that were repaired.
    pub corruptions_fixed: u64,
    /// Clusters that were freed.
    pub leaks_fixed: u64,
    /// File offset in bytes where the image ends; 0 where the format's check does not tell.
    pub image_end_offset: u64,
    /// How the clusters of the disk are stored.
    pub clusters: Clusters,
}

/// How many clusters of the virtual disk are stored in which way; all 0 where the format's check does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clusters {
    /// Clusters of the disk.
    pub total: u64,
    /// Those that the file has a place for.
    pub allocated: u64,
    /// Those of them that do not lie behind the one before.
    pub fragmented: u64,
    /// Those of them that are compressed.
    pub compressed: u64,
}
