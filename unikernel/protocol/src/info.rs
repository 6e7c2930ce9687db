//! The `info` operation.
//!
//! The guest tells what an image says of itself; what only the host knows (names and lengths of files, disk space) the
//! host adds. Long lists come in [parts](InfoPart) in front of the image that they belong to.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ImageSource, QemuVersion, Text};

/// Which image to describe, and how far to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfoRequest {
    /// Whose wording error messages follow.
    pub profile: QemuVersion,
    /// Where the image is.
    pub source: Box<ImageSource>,
    /// Whether the images below it are described, too; they are [asked for](crate::Need).
    pub backing_chain: bool,
}

/// What was found before the terminal record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum InfoPart {
    /// Internal snapshots of the image that comes next, in the order of their table.
    Snapshots(Vec<SnapshotInfo>),
    /// Dirty bitmaps of the image that comes next, in the order of their directory.
    Bitmaps(Vec<BitmapInfo>),
    /// Extents of the VMDK image that comes next, in the order of the disk.
    Extents(Vec<ExtentInfo>),
    /// An image that is not the last of its chain.
    Image(Box<ImageInfo>),
}

/// An image. As the answer it is the last of its chain, which is the only one unless more were wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageInfo {
    /// Serial of the disk that holds it.
    pub disk: String,
    /// Name of its format.
    pub format: String,
    /// Length of the disk in bytes, below 2^63.
    pub virtual_size: u64,
    /// Bytes of a cluster, a block or a grain; absent where the format has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Whether it was not closed properly; absent where the format cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
    /// Whether its data is encrypted.
    pub encrypted: bool,
    /// The image below, as this one names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<BackingInfo>,
    /// What only its format has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specific: Option<SpecificInfo>,
    /// What QEMU's block layer must heed when it works with it.
    pub limits: BlockLimits,
}

/// The image below, named and not opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackingInfo {
    /// Its name, as it stands in the image; not empty.
    pub name: Text,
    /// Its format, if the image says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Text>,
}

/// Alignments and limits of requests in bytes; absent where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BlockLimits {
    /// Of every request.
    pub request_alignment: u32,
    /// Of a request to zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_zeroes_alignment: Option<u64>,
    /// Of a request to discard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard_alignment: Option<u64>,
    /// Longest request to zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_write_zeroes: Option<u64>,
}

/// What only one format has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum SpecificInfo {
    /// qcow2, version 2 or 3.
    Qcow2(Qcow2Info),
    /// VMDK.
    Vmdk(VmdkInfo),
    /// LUKS.
    Luks(LuksInfo),
}

/// What only qcow2 has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Qcow2Info {
    /// Name of the way clusters are compressed.
    pub compression_type: String,
    /// Bits of a reference count.
    pub refcount_bits: u32,
    /// How the data is encrypted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<EncryptInfo>,
    /// What version 3 added; absent in version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v3: Option<Qcow2V3Info>,
}

/// What only version 3 of qcow2 has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Qcow2V3Info {
    /// Whether reference counts may be written late.
    pub lazy_refcounts: bool,
    /// Whether it was marked as corrupt.
    pub corrupt: bool,
    /// Whether clusters have subclusters.
    pub extended_l2: bool,
    /// Name of the file with the data, as it stands in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_file: Option<Text>,
    /// Whether that file is a raw image of the disk; absent where the data is in the image itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_file_raw: Option<bool>,
}

/// How the data of a qcow2 image is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum EncryptInfo {
    /// With a key from a password.
    Aes,
    /// With a LUKS header inside the image.
    Luks(LuksInfo),
}

/// What a LUKS header says without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LuksInfo {
    /// Cipher and bits of its key, as in `aes-256`.
    pub cipher_alg: String,
    /// Mode of the cipher, as in `xts`.
    pub cipher_mode: String,
    /// How initialisation vectors are made, as in `plain64`.
    pub ivgen_alg: String,
    /// Hash for them, if they take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ivgen_hash_alg: Option<String>,
    /// Hash for key derivation, as in `sha256`.
    pub hash_alg: String,
    /// Identifier as it stands in the header.
    pub uuid: Text,
    /// Where the data begins, in bytes from the start of the header.
    pub payload_offset: u64,
    /// Iterations for the master key's digest.
    pub master_key_iters: u32,
    /// The key slots.
    pub slots: Vec<LuksSlot>,
}

/// A key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LuksSlot {
    /// Where its key material begins, in bytes from the start of the header.
    pub key_offset: u64,
    /// Iterations and stripes, if it holds a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<(u32, u32)>,
}

/// What only VMDK has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmdkInfo {
    /// How the disk is kept in files, if the image says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_type: Option<String>,
    /// Content id.
    pub cid: u32,
    /// Content id of the parent.
    pub parent_cid: u32,
}

/// An extent of a VMDK image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExtentInfo {
    /// Name of its file, as it stands in the image; absent where that is the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Its type, if a descriptor says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Bytes of the disk.
    pub virtual_size: u64,
    /// Bytes of a grain, if it is sparse and its header was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Whether its grains are compressed.
    pub compressed: bool,
}

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SnapshotInfo {
    /// Its id.
    pub id: Text,
    /// Its name.
    pub name: Text,
    /// Bytes of the machine's state.
    pub vm_state_size: u64,
    /// When it was made: seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of that second, as they stand in the image.
    pub date_nsec: u32,
    /// For how long the machine had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// How many instructions it had executed, if that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icount: Option<u64>,
}

/// A dirty bitmap stored in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BitmapInfo {
    /// Its name.
    pub name: Text,
    /// Bytes of the disk that a bit stands for.
    pub granularity: u64,
    /// Whether it was not saved properly.
    pub in_use: bool,
    /// Whether it is kept up to date.
    pub auto: bool,
}
