//! The `create` operation, and what every operation needs that makes an image.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ErrorRecord, ImageSource, QemuVersion, Reply, Secret};

/// Which image to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Whose defaults are taken, and whose words messages are in.
    pub profile: QemuVersion,
    /// The file's name as it was given; what is not UTF-8 in it is replaced.
    pub name: String,
    /// The file, empty or with something in it that does not count; or why there is none, to be told when it comes to that.
    pub file: Reply,
    /// The file with the data, if the options name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_file: Option<Reply>,
    /// Name of its format (`-f`).
    pub format: String,
    /// The `-o` lists as given, joined with `,`; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// Size of the disk in bytes, below 2^63; absent when it is not an argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Name of the image below (`-b`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// Name of that one's format (`-F`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_format: Option<String>,
    /// The image below, if there is one.
    pub backing: BelowNew,
    /// The secrets given with `--object secret`.
    pub secrets: Vec<Secret>,
    /// Whatever is not determined by all that.
    pub chance: Chance,
}

/// The image below a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum BelowNew {
    /// There is none, or it is not to be opened (`-u`).
    Unopened,
    /// It is this one.
    Image(Box<ImageSource>),
    /// It could not be opened, to be told when it comes to that.
    Refused(ErrorRecord),
}

/// What makes two images of the same options differ.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// Random bytes: ids, salts and keys come of them.
    pub seed: [u8; 32],
    /// Seconds since 1970-01-01 00:00 UTC.
    pub time: u64,
    /// Ticks of the time-stamp counter in a millisecond, to time what a password is worth; 0 if nothing is timed, and a password is
    /// worth the least that there is.
    pub ticks: u64,
}

/// Never the seed itself: keys come of it.
impl core::fmt::Debug for Chance {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chance").field("time", &self.time).finish_non_exhaustive()
    }
}

/// What is told before the image is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum CreatePart {
    /// What it is going to be: format and options, as `qemu-img create` prints them behind the name.
    Formatting(String),
    /// A warning of `qemu-img`'s.
    Warning(String),
}

/// The image is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CreateAnswer {
    /// Size of the disk in bytes.
    pub size: u64,
}
