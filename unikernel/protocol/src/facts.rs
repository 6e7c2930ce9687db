//! What the host knows about a file without reading its content.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// Most extents that travel inside the payload; a longer map is a disk of its own.
pub const MAX_INLINE_EXTENTS: usize = 1024;

/// A file given to the guest as a disk, and facts about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Serial of the virtio-blk disk that holds the file's bytes.
    pub disk: String,
    /// Length of the file in bytes; the disk is this long rounded up to 512.
    pub length: u64,
    /// Disk space the file takes, in bytes (`st_blocks * 512`).
    pub allocated: u64,
    /// Where the file has data; everything else in it is a hole.
    pub extents: ExtentMap,
    /// Whether its name ends in `.dmg`: all that counts of a name when the format is probed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub named_dmg: bool,
}

/// The data extents of a file, as byte ranges `[start, end)`: ascending, not empty, not touching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ExtentMap {
    /// The ranges themselves, at most [`MAX_INLINE_EXTENTS`].
    Inline(Vec<(u64, u64)>),
    /// The ranges stand on a disk of their own, 16 bytes each: start and end, little-endian.
    Disk {
        /// Serial of that disk.
        disk: String,
        /// Number of ranges on it.
        count: u64,
    },
}
