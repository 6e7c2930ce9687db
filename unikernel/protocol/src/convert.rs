//! The `convert` operation.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{BelowNew, Chance, ErrorRecord, ImageSource, Pace, Progress, QemuVersion, Reply, Secret};

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
    /// What the host has against the command, to be told once the target is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ErrorRecord>,
    /// Zeros that are left out inside of data, from this many bytes on; 0 writes all (`-S`).
    pub sparse: u64,
    /// The part of the source that is copied, for `dd`; all of it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<DiskPart>,
    /// What the length of the disk is rounded up to, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub align: Option<u64>,
    /// Whether units are compressed (`-c`).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub compress: bool,
    /// Whether what the top of the source leaves to the images below is left to those below the target (`-B`).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub backing: bool,
    /// Whether sectors that cannot be read are taken for zeros (`--salvage`).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub salvage: bool,
    /// Whether persistent bitmaps are copied, too (`--bitmaps`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmaps: Option<Bitmaps>,
    /// How often to tell how far it is, if at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Pace>,
}

/// A part of a disk, in bytes from its start, as far as the disk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPart {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// Which bitmaps are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Bitmaps {
    /// All; one that is inconsistent is an error.
    All,
    /// Those that are consistent (`--skip-broken-bitmaps`).
    Consistent,
}

/// The image that a conversion writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ConvertTarget {
    /// One that is made.
    New(Box<NewTarget>),
    /// One that is there (`-n`).
    Existing {
        /// Where it is.
        image: Box<ImageSource>,
        /// Whether it is known to be all zeros (`--target-is-zero`).
        zero: bool,
        /// Where new ids in it come from.
        chance: Chance,
    },
    /// One that the host could not open, and why: that is the failure, unless there is one before it.
    Refused(ErrorRecord),
}

/// An image that is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTarget {
    /// The file's name as it was given; what is not UTF-8 in it is replaced.
    pub name: String,
    /// The file, empty or with something in it that does not count; or why there is none, to be told when it comes to that.
    pub file: Reply,
    /// The file with the data, if the options name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_file: Option<Reply>,
    /// Name of its format (`-O`).
    pub format: String,
    /// The `-o` lists as given, joined with `,`; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// Name of the image below (`-B`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// Name of that one's format (`-F`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_format: Option<String>,
    /// The image below, if there is one.
    pub backing: BelowNew,
    /// Whether a streamOptimized VMDK has its tables behind the grains, with markers and a footer, as VMware's own importers
    /// read it; else they are in front, as `qemu-img` has them.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub strict_stream: bool,
    /// Whatever is not determined by all that.
    pub chance: Chance,
}

/// A piece of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ConvertPart {
    /// How far it is.
    Progress(Progress),
    /// A warning of `qemu-img`'s.
    Warning(String),
    /// A warning of `qemu-img`'s that something cannot be read, which `-q` leaves out.
    Unreadable(String),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConvertAnswer {
    /// Bytes of the disk.
    pub size: u64,
    /// Whether the part that was asked for begins behind the end of the source.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub beyond: bool,
}
