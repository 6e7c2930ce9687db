//! The `convert` operation.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{FileFacts, ImageSource, QemuVersion, Secret};

/// What to convert, into what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertRequest {
    /// Whose wording error messages follow.
    pub profile: QemuVersion,
    /// The images, one behind the other.
    pub sources: Vec<ImageSource>,
    /// Internal snapshot to convert (`-l`), as given; of one source only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The secrets given with `--object secret`.
    pub secrets: Vec<Secret>,
    /// The image that is written.
    pub target: ConvertTarget,
    /// Zeros that are left out inside of data, from this many bytes on; 0 writes all (`-S`).
    pub sparse: u64,
    /// Whether units are compressed (`-c`).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub compress: bool,
    /// Whether what the top of the source leaves to the images below is left to those below the target (`-B`).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub backing: bool,
    /// Whether to tell how far it is.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub progress: bool,
}

/// The image that a conversion writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ConvertTarget {
    /// One that is made.
    New {
        /// The file that it is made in, empty.
        file: FileFacts,
        /// Name of its format.
        format: String,
        /// The `-o` lists as given, joined with `,`; absent when there was none.
        options: Option<String>,
    },
    /// One that is there (`-n`).
    Existing {
        /// Where it is.
        image: Box<ImageSource>,
        /// Whether it is known to be all zeros (`--target-is-zero`).
        zero: bool,
    },
}

/// A piece of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ConvertPart {
    /// How far it is.
    Progress {
        /// Bytes of the disk that are behind.
        done: u64,
        /// Bytes of the disk.
        total: u64,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConvertAnswer {
    /// Bytes of the disk.
    pub size: u64,
}
