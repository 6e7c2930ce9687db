//! An image to be opened, and the files it names: what the command line says of it, what the guest asks for.

use alloc::{boxed::Box, string::String};

use serde::{Deserialize, Serialize};

use crate::{ErrorRecord, FileFacts};

/// Most images of a chain, from that on the command line to the last one below it.
pub const MAX_CHAIN: usize = 64;

/// An image, as the command line describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// The file that holds it.
    pub file: FileFacts,
    /// Name of its format; probed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The part of the file that a raw image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Id of the secret that decrypts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<String>,
    /// What `encrypt.format` says of its encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypt_format: Option<String>,
    /// The image below it; when absent the image names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<Backing>,
    /// The file with its data; when absent the image names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_file: Option<FileFacts>,
}

impl ImageSource {
    /// The image in `file`, of which nothing else is said.
    pub fn new(file: FileFacts, format: Option<String>) -> Self {
        Self {
            file,
            format,
            window: None,
            key_secret: None,
            encrypt_format: None,
            backing: None,
            data_file: None,
        }
    }
}

/// A part of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; to the end of the file when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What the command line says of the image below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Backing {
    /// There is none, whatever the image says.
    None,
    /// It is this one, whatever the image says.
    Image(Box<ImageSource>),
}

/// A file that an image names. The host decides by its policy whether the guest gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The name, as it stands in the image.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Serial of the disk whose image has the name in it.
    pub of: String,
    /// The format that is said of it, if any: it decides with whom the file can be shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// What a file is to the image that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The image below: a backing file, a parent disk.
    Backing,
    /// The file with the data.
    DataFile,
    /// A part of the disk.
    Extent,
    /// A part of the disk of a new image, to be made or made empty.
    NewExtent,
}

impl Role {
    /// The role in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::DataFile => "external data file",
            Self::Extent | Self::NewExtent => "extent file",
        }
    }
}

/// The host's answer to a [`Need`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Reply {
    /// The file is there, as a disk.
    File(FileFacts),
    /// It is not, and why.
    Refused(ErrorRecord),
}
