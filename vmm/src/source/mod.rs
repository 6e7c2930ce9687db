//! Opens the image a command reads, the way qemu-img opens it, and collects what the host may know about it: length,
//! disk space, holes. The bytes in it are never looked at.

mod extents;
mod lock;

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    time::Instant,
};

use protocol::{ErrorKind, ExtentMap, FileFacts, QemuVersion};
use thiserror::Error;

pub use extents::{MAX_EXTENTS, RANGE};
pub use lock::{Conflict, Format, Usage, take as lock};

use crate::{
    devices::Cache,
    report::{escape_name, reason},
};

/// How to open a file.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions<'a> {
    /// Serial of the disk it becomes; its extents become `SERIAL.extents`.
    pub serial: &'a str,
    /// Whether it is opened for writing, too.
    pub write: bool,
    /// What is known of its format, which decides whom it can be shared with; absent with `--force-share`.
    pub lock: Option<Format>,
    /// How it is cached.
    pub cache: Cache,
    /// Whether its holes matter; if not, all of it counts as data.
    pub extents: bool,
    /// When to give up looking for holes.
    pub deadline: Instant,
}

/// A file, and what is known of it.
#[derive(Debug)]
pub struct Source {
    /// The file, open for reading, and for writing if that was asked for.
    pub file: File,
    /// Facts for the guest.
    pub facts: FileFacts,
    /// The file behind [`ExtentMap::Disk`].
    pub extents: Option<File>,
}

/// Why a file was not opened; what is printed behind `Could not open 'FILE': `.
#[derive(Debug, Error)]
pub enum SourceError {
    /// `foo:bar`, but not `file:bar`: qemu-img takes what is in front of the colon for a protocol.
    #[error("Unknown protocol '{0}'")]
    Protocol(String),
    /// No name at all.
    #[error("The 'file' block driver requires a file name")]
    Unnamed,
    /// A directory.
    #[error("'file' driver requires '{0}' to be a regular file")]
    Directory(String),
    /// Neither a regular file nor a block device: a FIFO, a character device.
    #[error("'{0}' is neither a regular file nor a block device")]
    Special(String),
    /// The system refused to open it.
    #[error("Could not open '{name}': {}", reason(.error))]
    Open {
        /// The name, escaped.
        name: String,
        /// The system's error.
        error: io::Error,
    },
    /// Its length or its facts could not be had.
    #[error("Could not get image size: {}", reason(.0))]
    Length(#[source] io::Error),
    /// Somebody uses it in a way that does not go together with reading it.
    #[error(transparent)]
    Locked(#[from] Conflict),
    /// More data extents than a map may have.
    #[error("More than {MAX_EXTENTS} data extents in a sparse file")]
    TooManyExtents,
    /// The deadline passed while looking for holes.
    #[error("Timed out while looking for holes")]
    Timeout,
    /// The map of its holes could not be stored.
    #[error("Could not store the map of its holes: {}", reason(.0))]
    Map(#[source] io::Error),
}

impl SourceError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Protocol(_) | Self::Special(_) => ErrorKind::Unsupported,
            Self::TooManyExtents => ErrorKind::Limit,
            Self::Timeout => ErrorKind::Timeout,
            Self::Unnamed
            | Self::Directory(_)
            | Self::Open { .. }
            | Self::Length(_)
            | Self::Locked(_)
            | Self::Map(_) => ErrorKind::Io,
        }
    }

    /// The text in a version's words.
    pub fn text(&self, profile: QemuVersion) -> String {
        match self {
            Self::Directory(_) if profile == QemuVersion::V5_2 => {
                "A regular file was expected by the 'file' driver, but something else was given".into()
            }
            other => other.to_string(),
        }
    }
}

/// Opens the file at `path`.
pub fn open(path: &OsStr, options: SourceOptions<'_>) -> Result<Source, SourceError> {
    let file = OpenOptions::new()
        .read(true)
        .write(options.write)
        // A FIFO must not make us wait for a writer. std adds O_CLOEXEC.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| SourceError::Open { name: escape_name(path), error })?;
    describe(file, path, options)
}

/// Collects what may be known of `file`, which is at `path`.
pub fn describe(mut file: File, path: &OsStr, options: SourceOptions<'_>) -> Result<Source, SourceError> {
    let metadata = file.metadata().map_err(SourceError::Length)?;
    let kind = metadata.file_type();
    let length = if kind.is_file() {
        metadata.len()
    } else if kind.is_block_device() {
        file.seek(SeekFrom::End(0)).map_err(SourceError::Length)?
    } else if kind.is_dir() {
        return Err(SourceError::Directory(escape_name(path)));
    } else {
        return Err(SourceError::Special(escape_name(path)));
    };
    options.cache.prepare(&file).map_err(|error| SourceError::Open { name: escape_name(path), error })?;
    if let Some(format) = options.lock {
        let usage = if options.write { Usage::Write } else { Usage::Read };
        lock(&file, format, usage)?;
    }
    let (map, extents) = if options.extents {
        extents::scan(&mut file, length, options.serial, options.deadline)?
    } else {
        (ExtentMap::Inline(extents::all(length)), None)
    };
    let facts = FileFacts {
        disk: options.serial.to_owned(),
        length,
        allocated: metadata.blocks() * 512,
        extents: map,
        named_dmg: is_named_dmg(path),
    };
    Ok(Source { file, facts, extents })
}

/// Whether qemu-img takes the name for that of an Apple disk image: there is something in front of the ending, which may
/// be the `file:` of a name as it was given.
pub fn is_named_dmg(name: &OsStr) -> bool {
    const ENDING: &[u8] = b".dmg";
    let name = name.as_bytes();
    name.len() > ENDING.len() && name.ends_with(ENDING)
}

/// The local file a name stands for, by qemu-img's rule: a colon in front of any slash ends a protocol's name.
pub fn local_path(name: &OsStr) -> Result<&OsStr, SourceError> {
    let bytes = name.as_bytes();
    let path = match bytes.iter().position(|byte| matches!(byte, b':' | b'/')) {
        Some(end) if bytes[end] == b':' => match bytes.strip_prefix(b"file:") {
            Some(path) => OsStr::from_bytes(path),
            None => return Err(SourceError::Protocol(escape_name(OsStr::from_bytes(&bytes[..end])))),
        },
        _ => name,
    };
    if path.is_empty() { Err(SourceError::Unnamed) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str) -> Result<String, String> {
        local_path(OsStr::new(name))
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_colon_in_front_of_a_slash_ends_a_protocol() {
        for (name, path) in
            [("a", "a"), ("./a:b", "./a:b"), ("/a:b", "/a:b"), ("file:a:b", "a:b"), ("file:/a", "/a")]
        {
            assert_eq!(local(name), Ok(path.into()));
        }
        for (name, protocol) in
            [("foo:bar", "foo"), (":x", ""), ("json:{}", "json"), ("nbd://h/", "nbd"), ("a b:c", "a b")]
        {
            assert_eq!(local(name), Err(format!("Unknown protocol '{protocol}'")));
        }
        for name in ["", "file:"] {
            assert_eq!(local(name), Err("The 'file' block driver requires a file name".into()));
        }
    }
}
