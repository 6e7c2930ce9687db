//! The `compare` operation.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ErrorKind, ImageSource, Pace, Progress, QemuVersion, Secret};

/// Which disks to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareRequest {
    /// Whose wording error messages follow, and what is allocated to whom.
    pub profile: QemuVersion,
    /// The first image.
    pub first: Box<ImageSource>,
    /// The second one. Absent if the host could not open it: then all there is to tell is whether the first one opens,
    /// which would be the failure that comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Box<ImageSource>>,
    /// Keys of encrypted images.
    pub secrets: Vec<Secret>,
    /// Whether lengths and what is allocated must be the same, too.
    #[serde(default)]
    pub strict: bool,
    /// How often to tell how far it is.
    #[serde(default)]
    pub progress: Pace,
}

/// What is told while the disks are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ComparePart {
    /// How far it has come. The first is told once both images are open.
    Progress(Progress),
    /// The disks are the same as far as both go, and one goes on.
    LengthsDiffer,
}

/// What a comparison has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum CompareAnswer {
    /// Nothing differs, but for lengths perhaps: then what is longer ends in zeros.
    Identical,
    /// The content differs.
    Content {
        /// Where on the disk the first such sector begins, in bytes.
        offset: u64,
    },
    /// What is allocated differs.
    Allocation {
        /// From where on, in bytes.
        offset: u64,
    },
    /// The lengths differ, and must not.
    Lengths,
    /// It is not known what is allocated: the tables of an image are broken.
    Unmapped(CompareFault),
    /// The content of an image cannot be read.
    Unread {
        /// Where the bytes begin that were asked for, in bytes.
        offset: u64,
        /// Why not.
        fault: CompareFault,
    },
}

/// What is wrong with one of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareFault {
    /// Whether it is the second one.
    pub second: bool,
    /// The class of the failure.
    pub kind: ErrorKind,
    /// The reason in a few words.
    pub why: String,
    /// The field or structure to blame.
    pub field: String,
}
