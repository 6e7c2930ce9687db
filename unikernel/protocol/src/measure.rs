//! The `measure` operation.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ImageSource, QemuVersion, Secret};

/// What to measure, for which target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureRequest {
    /// Whose wording error messages follow.
    pub profile: QemuVersion,
    /// Name of the target's format (`-O`).
    pub target_format: String,
    /// The `-o` lists as given, joined with `,`; absent when there was none.
    pub options: Option<String>,
    /// The secrets given with `--object secret`.
    pub secrets: Vec<Secret>,
    /// Whether targets are answered that `qemu-img` does not measure: not when its answers are wanted and no others.
    #[serde(default)]
    pub beyond: bool,
    /// `--exact`: tell the length that the file will really have, where `convert -S` leaves out zeros from this many
    /// bytes on; 0 writes all. Absent to tell what `measure` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<u64>,
    /// Whether `convert -c` would write it; only with `exact`.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub compress: bool,
    /// What is measured.
    pub subject: MeasureSubject,
}

/// A size out of nothing, or an existing image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum MeasureSubject {
    /// An empty image of this many bytes (`--size`), below 2^63.
    Size(u64),
    /// An existing image.
    Image {
        /// Where it is.
        source: Box<ImageSource>,
        /// Internal snapshot to measure (`-l`), as given.
        snapshot: Option<String>,
    },
}

/// The sizes `measure` prints, in bytes. The sums can pass 2^63 (they are printed like that), never 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MeasureAnswer {
    /// Length of the new image, holding the data there is.
    pub required: u64,
    /// Length of the new image once all of it is written.
    pub fully_allocated: u64,
    /// What persistent bitmaps take on top; absent where target or source has no notion of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmaps: Option<u64>,
}
