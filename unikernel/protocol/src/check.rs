//! The `check` operation.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ImageSource, QemuVersion};

/// Which image to check, and what to repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// Whose checks are made, and whose words they are told in.
    pub profile: QemuVersion,
    /// The image. What is below it is not looked at.
    pub source: Box<ImageSource>,
    /// What to repair; the image's disk is writable if that is anything.
    #[serde(default)]
    pub repair: RepairMode,
    /// Whether formats are checked for which `qemu-img` has no check.
    #[serde(default)]
    pub beyond: bool,
}

/// What is to be repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairMode {
    /// Nothing.
    #[default]
    None,
    /// Clusters that are in use by nothing.
    Leaks,
    /// Whatever can be.
    All,
}

/// What is told while the check goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum CheckPart {
    /// Lines about what was found, without their newlines.
    Lines(Vec<String>),
    /// The same, to stand behind the program's name: so QEMU tells what it finds in VHDX images.
    NamedLines(Vec<String>),
    /// Something was repaired; the image is checked once more, and that is what the answer is about.
    Repaired(Repaired),
}

/// How much was repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repaired {
    /// Clusters that were freed.
    pub leaks: u64,
    /// Errors that were repaired.
    pub corruptions: u64,
}

/// What the check has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CheckAnswer {
    /// Name of the format.
    pub format: String,
    /// What was found; absent if there is no check for the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<CheckFindings>,
}

/// What was found, and how the clusters of the disk are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CheckFindings {
    /// Errors by which data may be lost.
    pub corruptions: u64,
    /// Clusters that are in use by nothing.
    pub leaks: u64,
    /// Failures of the check itself.
    pub check_errors: u64,
    /// What was repaired before.
    pub repaired: Repaired,
    /// File offset in bytes where the image ends, if that is known; else 0.
    pub image_end_offset: u64,
    /// Clusters of the disk, if the format has such; else 0, as the following are.
    pub total_clusters: u64,
    /// Those that the file has a place for.
    pub allocated_clusters: u64,
    /// Those of them that do not lie behind the one before.
    pub fragmented_clusters: u64,
    /// Those of them that are compressed.
    pub compressed_clusters: u64,
}
