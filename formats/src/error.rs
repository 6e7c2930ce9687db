//! Why an image was not read: a stable kind for callers, the field to blame, and `qemu-img`'s words where it has some.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::{FileIndex, StorageError};

/// The class of a failure. Stable: callers match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The storage failed.
    Io,
    /// The file is not an image of the format it was opened as, or its header contradicts the specification.
    InvalidFormat,
    /// A valid image that uses something not supported.
    Unsupported,
    /// The header is valid, but tables behind it are not.
    Corrupt,
    /// A bound on work or memory was met.
    Limit,
    /// The key to an encrypted image is missing, unusable or wrong.
    Key,
    /// It takes a file that the image names and that was not handed in.
    ReferenceDenied,
}

/// A typed failure to open or read an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// Name of the field or structure at fault, as the format's specification spells it (`l1_size`, `L2 table`).
    pub field: &'static str,
    /// What is wrong with it, in `qemu-img`'s words where `qemu-img` finds the same fault.
    pub message: String,
    /// What to do about it, where `qemu-img` says so. Nothing in it comes from an image.
    pub hint: Option<Cow<'static, str>>,
    /// The file at fault.
    pub file: FileIndex,
}

impl Error {
    /// A failure of `kind` to be blamed on `field` of the image's own file.
    pub fn new(kind: ErrorKind, field: &'static str, message: impl Into<String>) -> Self {
        Self { kind, field, message: message.into(), hint: None, file: FileIndex::OWN }
    }

    /// The same failure, with a hint what to do.
    pub(crate) fn hint(self, hint: Option<impl Into<Cow<'static, str>>>) -> Self {
        Self { hint: hint.map(Into::into), ..self }
    }

    /// The same failure, of another file.
    pub(crate) fn in_file(self, file: FileIndex) -> Self {
        Self { file, ..self }
    }
}

impl From<StorageError> for Error {
    fn from(StorageError: StorageError) -> Self {
        Self::new(ErrorKind::Io, "storage", "Input/output error")
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {}
