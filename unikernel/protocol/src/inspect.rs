//! The `inspect` operation: what is to be said of an image that nobody should trust.
//!
//! The guest tells what it found; whether that is safe is for the host to say, by what the caller allows. References
//! come in [parts](InspectPart) before the answer.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ErrorKind, ImageSource, QemuVersion, Role, Text};

/// Most findings of an answer: so many fit into a record.
pub const MAX_FINDINGS: usize = 32;

/// Which image to look over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectRequest {
    /// Whose wording messages follow.
    pub profile: QemuVersion,
    /// Where the image is.
    pub source: Box<ImageSource>,
}

/// What was found before the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum InspectPart {
    /// Files that the image names, in its order. None of them was opened.
    References(Vec<ReferenceInfo>),
}

/// A file that an image names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceInfo {
    /// What it is for.
    pub role: Role,
    /// Its name, as it stands in the image; absent if the image takes a file without naming it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Its format, if the image says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Text>,
}

/// What there is to be said of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InspectAnswer {
    /// The format that it was opened as.
    pub format: String,
    /// Signatures in the file.
    pub signatures: Vec<SignatureInfo>,
    /// What the image is, if it could be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<InspectedImage>,
    /// All that is odd about it, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignatureInfo {
    /// Name of what it is a sign of.
    pub name: String,
    /// Where it is, in bytes from the start.
    pub offset: u64,
}

/// An image that could be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InspectedImage {
    /// Length of the disk in bytes, below 2^63.
    pub virtual_size: u64,
    /// Bytes of a cluster, a block or a grain; absent where the format has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// How its data is encrypted, if it is: `aes` or `luks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Names of features of the format that it uses.
    pub features: Vec<String>,
    /// Number of internal snapshots.
    pub snapshots: u64,
    /// Number of dirty bitmaps.
    pub bitmaps: u64,
    /// Signatures at the start of the disk, where that is not the start of the file; empty where it cannot be read.
    pub content: Vec<SignatureInfo>,
    /// Where the bytes of the disk are; absent where that takes another file, or where its tables do not hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<MappingInfo>,
}

/// Where the bytes of a disk are, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MappingInfo {
    /// Stored as they are.
    pub data: u64,
    /// Stored compressed.
    pub compressed: u64,
    /// Zeros.
    pub zero: u64,
    /// Nowhere: zeros, or what a file below has.
    pub unallocated: u64,
}

/// Something odd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// The field or structure, as the format's specification spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is odd about it, in one line.
    pub message: String,
}

/// What a finding does to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It is told.
    Note,
    /// The image is refused, unless the caller allows this.
    Allowable,
    /// The image is refused, unless it keeps to another limit.
    Limit,
    /// The image is refused.
    Refusal,
}

/// A finding's stable name, with its weight and meaning: [`Code::ALL`] is the table of docs/inspect.md.
macro_rules! codes {
    ($($name:ident, $text:literal, $weight:ident, $about:literal;)*) => {
        /// What is odd about an image. The names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $about] #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it does to the verdict.
            pub fn weight(self) -> Weight {
                match self { $(Self::$name => Weight::$weight,)* }
            }

            /// What it means, in one sentence.
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }
        }
    };
}

codes! {
    InvalidFormat, "invalid-format", Refusal,
        "A header is not one of this format, or contradicts itself.";
    Unsupported, "unsupported", Refusal,
        "It takes something that is not supported, such as a version or a feature to come.";
    Corrupt, "corrupt", Refusal,
        "Tables behind a sound header cannot be what they say.";
    OverLimit, "over-limit", Refusal,
        "A number in a header is over a limit of the format, or of work and memory.";
    PastTheEnd, "past-the-end", Refusal,
        "Data or a table begins past the end of the file: the image was cut off, or never was whole.";
    Overlap, "overlap", Refusal,
        "Two parts of the image lie in the same place of its file.";
    MarkedCorrupt, "marked-corrupt", Allowable,
        "The image was marked as corrupt by who wrote to it last.";
    FooterDiffers, "footer-differs", Refusal,
        "The footer of a VHD is of another disk than its copy: it depends on the reader which one there is.";
    DescriptorDiffers, "descriptor-differs", Refusal,
        "The descriptor inside of a sparse VMDK is of another disk than its header.";
    AmbiguousFormat, "ambiguous-format", Allowable,
        "The file has the signatures of several formats: it depends on the reader what is on the disk.";
    ImageInside, "image-inside", Allowable,
        "The disk begins as an image does: once it is raw, its format must not be probed.";
    NotADisk, "not-a-disk", Allowable,
        "A raw image is a packed file, an archive or a program; what is inside was not looked at.";
    BackingFile, "backing-file", Allowable,
        "It takes a backing file, or the parent of a differencing disk.";
    DataFile, "data-file", Allowable,
        "It names an external data file, or takes one.";
    ExtentFile, "extent-file", Allowable,
        "It takes other files for parts of its disk.";
    DetachedData, "detached-data", Allowable,
        "An encrypted image has a header and no data: that is elsewhere.";
    Encrypted, "encrypted", Allowable,
        "The data is encrypted: what is on the disk was not looked at.";
    KeyDerivation, "key-derivation", Refusal,
        "To try a password takes more than 2^25 iterations: it keeps its reader busy.";
    FormatNotAllowed, "format-not-allowed", Limit,
        "The format is none of those that the caller takes.";
    VirtualSize, "virtual-size", Limit,
        "The disk is longer than the caller takes.";
    FileSize, "file-size", Limit,
        "The file is longer than the caller takes.";
    Dirty, "dirty", Note,
        "It was not closed properly. What is on the disk can be read; who writes to it must repair it first.";
    LogReplayed, "log-replayed", Note,
        "Changes in the log of a VHDX are not in its tables yet; they were taken into account.";
    FixedVhd, "fixed-vhd", Note,
        "A raw disk ends in the footer of a fixed VHD. It is one to who names that format, and 512 bytes shorter then.";
    FooterMissing, "footer-missing", Note,
        "A VHD has lost the footer at its end, or it has a wrong checksum; its copy at the start was used.";
    UnknownFeatures, "unknown-features", Note,
        "It has features that are not known, and by its own word need not be.";
    StaleBitmaps, "stale-bitmaps", Note,
        "It has bitmaps that its data went on without.";
    Snapshots, "snapshots", Note,
        "It has internal snapshots. Their tables were looked at, not what these lead to.";
    EncryptedContent, "encrypted-content", Note,
        "What is on the disk is encrypted, by who used it.";
    NotAllDecoded, "not-all-decoded", Note,
        "It has more compressed data than was decoded.";
    NotAllCompared, "not-all-compared", Note,
        "It is in more pieces than were compared with each other for overlaps.";
}

impl Code {
    /// The code of a failure to read an image; none of a failure that is not the image's.
    pub fn of_error(kind: ErrorKind) -> Option<Self> {
        match kind {
            ErrorKind::InvalidFormat => Some(Self::InvalidFormat),
            ErrorKind::Unsupported => Some(Self::Unsupported),
            ErrorKind::Corrupt => Some(Self::Corrupt),
            ErrorKind::Limit => Some(Self::OverLimit),
            ErrorKind::Io
            | ErrorKind::ReferenceDenied
            | ErrorKind::GuestFault
            | ErrorKind::Timeout
            | ErrorKind::Usage => None,
        }
    }

    /// The code of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_that_the_wire_has_too() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
            assert_eq!(serde_json::to_string(code).unwrap(), alloc::format!("\"{}\"", code.name()));
            assert!(code.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
        assert_eq!(Code::from_name("Overlap"), None);
    }
}
