//! The files that a command writes: made or opened before the guest runs, finished when it is done.
//!
//! A file that did not exist has no name until it is complete and on the disk. One that did is changed where it is, as
//! `qemu-img` does it: links to it and what may be done with it stay, and nothing is changed before the guest writes.

mod new_file;
mod signals;

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{ErrorKind, ErrorRecord, ExtentMap, FileFacts, Need, options::HINT};
use thiserror::Error;

use self::new_file::{Directory, NewFile};
use crate::{
    devices::{Cache, DiskFile, Throttle},
    launch::Disk,
    report::{escape_name, reason},
    sandbox::{Beneath, Use},
    source::{self, Conflict, Format, Source, SourceError, SourceOptions, Usage},
};

/// Most links from a name to the file behind it, as the kernel counts them.
const MAX_LINKS: usize = 40;

/// Most files that an image may be split into beside the one that is named.
const MAX_PARTS: usize = 1024;

/// Why a file cannot be written, in `qemu-img`'s words. Those of `create` stand behind `FILE: `.
#[derive(Debug, Error)]
pub enum TargetError {
    /// `foo:bar`, but not `file:bar`.
    #[error("{0}")]
    Name(SourceError),
    /// The system refused to make or open it.
    #[error("Could not create '{name}': {}", reason(.error))]
    Create {
        /// The name, escaped.
        name: String,
        /// The system's error.
        error: io::Error,
    },
    /// Somebody uses it.
    #[error("{conflict}\n{HINT}Is another process using the image [{name}]?")]
    Locked {
        /// The name, escaped.
        name: String,
        /// Whose use rules ours out.
        conflict: Conflict,
    },
    /// Neither a regular file nor a block device: a FIFO, a character device.
    #[error("'{0}' is neither a regular file nor a block device")]
    Special(String),
    /// It could not be given its name, or not be brought to the disk.
    #[error("Could not finish '{name}': {}", reason(.error))]
    Finish {
        /// The name, escaped.
        name: String,
        /// The system's error.
        error: io::Error,
    },
}

impl TargetError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Special(_) => ErrorKind::Unsupported,
            Self::Create { .. } | Self::Locked { .. } | Self::Finish { .. } => ErrorKind::Io,
        }
    }

    /// What the guest is told, to be said when it comes to the file.
    pub fn record(&self) -> ErrorRecord {
        ErrorRecord::new(self.kind(), self.to_string())
    }
}

/// A file that is written.
#[derive(Debug)]
struct Written {
    /// The name, escaped.
    name: String,
    file: Arc<DiskFile>,
    how: How,
}

#[derive(Debug)]
enum How {
    /// It has no name yet.
    New(NewFile),
    /// It was there, and what was in it does not count.
    Overwritten,
    /// It was there, and the image in it is changed.
    Changed,
}

/// The files of one command.
#[derive(Debug, Default)]
pub struct Targets {
    written: Vec<Written>,
    /// Those that are no part of a machine yet.
    disks: Vec<Disk>,
    parts: Option<Parts>,
    cache: Cache,
    throttle: Option<Arc<Throttle>>,
    /// The first file that cannot be cached as it should be, escaped, and why.
    uncached: Option<(String, String)>,
}

/// What may be asked for beside the file that is named.
#[derive(Debug)]
struct Parts {
    directory: Directory,
    name: OsString,
    count: usize,
    capacity: u64,
}

/// How a file is opened for a new image.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// Serial of the disk it becomes.
    pub serial: &'a str,
    /// How long it may become, in bytes.
    pub capacity: u64,
}

impl Targets {
    /// No files yet; they will be cached as `cache` says, and written to with no more than `rate` bytes a second, unless that
    /// is 0.
    pub fn new(cache: Cache, rate: u64) -> Self {
        Self { cache, throttle: Throttle::new(rate).map(Arc::new), ..Self::default() }
    }

    /// Opens the file called `name` for a new image: makes it, or takes the one that is there, of which the guest sees the
    /// length and nothing else matters. A block device is as long as it is.
    pub fn create(&mut self, name: &OsStr, new: NewImage<'_>) -> Result<FileFacts, TargetError> {
        let path = match source::local_path(name) {
            Err(SourceError::Unnamed) => Ok(OsStr::new("")),
            other => other.map_err(TargetError::Name),
        }?;
        let shown = escape_name(path);
        let failed = |error| TargetError::Create { name: shown.clone(), error };
        match open_existing(path) {
            Ok(file) => self.overwrite(file, shown, new),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (directory, last) = resolve(Path::new(path)).map_err(failed)?;
                let directory = Directory::open(&directory).map_err(failed)?;
                let (file, place) = NewFile::create(&directory, &last).map_err(failed)?;
                Ok(self.add(DiskFile::writable(file, 0, new.capacity), new.serial, 0, shown, How::New(place)))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens an existing image to be changed.
    pub fn existing(
        &mut self,
        path: &OsStr,
        options: SourceOptions<'_>,
        capacity: u64,
    ) -> Result<FileFacts, SourceError> {
        let options = SourceOptions { write: true, cache: self.cache, ..options };
        let Source { file, facts, extents } = source::open(path, options)?;
        let is_device = file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        let file = match is_device {
            true => DiskFile::device(file, facts.length),
            false => DiskFile::writable(file, facts.length, capacity),
        };
        self.add(file, options.serial, facts.length, escape_name(path), How::Changed);
        if let (Some(file), ExtentMap::Disk { disk, count }) = (extents, &facts.extents) {
            self.disks.push(Disk::read_only(disk, file, count * source::RANGE));
        }
        Ok(facts)
    }

    /// Lets the guest ask for the files that the new image `name` is split into, each of which may be `capacity` bytes long.
    /// They lie in its directory, and are named as VMDK names them.
    pub fn allow_parts(&mut self, name: &OsStr, capacity: u64) -> Result<(), TargetError> {
        let path = source::local_path(name).map_err(TargetError::Name)?;
        let failed = |error| TargetError::Create { name: escape_name(path), error };
        // Beside the name that was given, whatever it links to.
        let (directory, name) = split(Path::new(path)).map_err(failed)?;
        let directory = Directory::open(&directory).map_err(failed)?;
        self.parts = Some(Parts { directory, name, count: 0, capacity });
        Ok(())
    }

    /// Bounds how long each of the files may become that are open now, in bytes.
    pub fn limit(&self, bytes: u64) {
        self.written.iter().for_each(|written| written.file.limit(bytes));
    }

    /// How the files are cached.
    pub fn cache(&self) -> Cache {
        self.cache
    }

    /// Why a file that was opened for a new image cannot be cached as it should be, if that is so. It is not, then.
    pub fn uncached(&self) -> Option<String> {
        self.uncached.as_ref().map(|(name, why)| format!("Could not open '{name}': {why}"))
    }

    /// Has whoever writes stop, at once.
    pub fn stop(&self) {
        self.throttle.iter().for_each(|throttle| throttle.end());
    }

    /// The disks that the files are, for the machine. Given once.
    pub fn take_disks(&mut self) -> Vec<Disk> {
        std::mem::take(&mut self.disks)
    }

    /// Whether the guest may ask for files.
    pub fn has_parts(&self) -> bool {
        self.parts.is_some()
    }

    /// Whether a file is to get its name when the guest is done.
    pub fn has_new(&self) -> bool {
        self.has_parts() || self.new_files().next().is_some()
    }

    /// What is still to be done in which directories.
    pub fn directories(&self) -> Vec<Beneath<'_>> {
        let new = self.new_files().map(|new| Beneath(new.directory().as_fd(), Use::Appear));
        let parts = self.parts.iter().map(|parts| Beneath(parts.directory.as_fd(), Use::Create));
        new.chain(parts).collect()
    }

    fn new_files(&self) -> impl Iterator<Item = &NewFile> {
        self.written.iter().filter_map(|written| match &written.how {
            How::New(new) => Some(new),
            How::Overwritten | How::Changed => None,
        })
    }

    /// Makes a file that the guest asks for; `serial` will be that of its disk.
    pub fn answer(&mut self, need: &Need, serial: &str) -> Result<(FileFacts, Disk), ErrorRecord> {
        let shown = escape_name(OsStr::new(&need.name));
        let denied =
            |why: &str| ErrorRecord::new(ErrorKind::ReferenceDenied, format!("extent file '{shown}' {why}"));
        let Some(parts) = &mut self.parts else { return Err(denied("is not part of the new image")) };
        if !is_part(parts.name.as_bytes(), need.name.as_bytes()) {
            return Err(denied("is not named as a part of the new image"));
        }
        if parts.count == MAX_PARTS {
            let message = format!("The image would be split into more than {MAX_PARTS} files");
            return Err(ErrorRecord::new(ErrorKind::Limit, message));
        }
        parts.count += 1;
        let (directory, name) = (parts.directory.clone(), OsStr::new(&need.name));
        let new = NewImage { serial, capacity: parts.capacity };
        let failed = |error| TargetError::Create { name: shown.clone(), error }.record();
        let facts = match directory.open_existing(name) {
            Ok(file) => self.overwrite(file, shown.clone(), new).map_err(|error| error.record()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (file, place) = NewFile::create(&directory, name).map_err(failed)?;
                let file = DiskFile::writable(file, 0, new.capacity);
                Ok(self.add(file, serial, 0, shown.clone(), How::New(place)))
            }
            Err(error) => Err(failed(error)),
        }?;
        let disk = self.disks.pop().ok_or_else(|| denied("was not made"))?;
        Ok((facts, disk))
    }

    /// Ends well: brings all files to the disk, and gives the new ones their names. If one cannot have its name, none has.
    pub fn commit(mut self) -> Result<(), TargetError> {
        let failed = |name: &str| {
            let name = name.to_owned();
            move |error| TargetError::Finish { name, error }
        };
        for written in &self.written {
            written.file.sync().map_err(failed(&written.name))?;
        }
        // The one that was named on the command line comes last: whoever sees it sees all.
        for index in (0..self.written.len()).rev() {
            let Written { name, file, how: How::New(new) } = &mut self.written[index] else { continue };
            let appeared = new.appear(file.as_fd()).and_then(|()| match self.cache.no_flush {
                true => Ok(()),
                false => new.directory().sync(),
            });
            if let Err(error) = appeared.map_err(failed(name)) {
                for written in &mut self.written {
                    if let How::New(new) = &mut written.how {
                        new.withdraw();
                    }
                }
                return Err(error);
            }
        }
        for written in &mut self.written {
            // There is nothing to be undone any more.
            written.how = How::Changed;
        }
        Ok(())
    }

    /// Makes signals that end the process take away the names of unfinished files first, and do what else there is `tidy`. To
    /// be called in the sandbox, while threads can still be started.
    pub fn mind_signals(&self, tidy: Option<fn()>) -> io::Result<()> {
        if tidy.is_none() && !self.new_files().any(NewFile::is_named) {
            return Ok(());
        }
        signals::tidy_before_the_end(self.new_files().filter_map(NewFile::temporary).collect(), tidy)
    }

    fn overwrite(
        &mut self,
        mut file: File,
        name: String,
        new: NewImage<'_>,
    ) -> Result<FileFacts, TargetError> {
        let failed = |error| TargetError::Create { name: name.clone(), error };
        let kind = file.metadata().map_err(failed)?.file_type();
        let NewImage { serial, capacity } = new;
        let lock = |file: &File| {
            source::lock(file, Format::Structured, Usage::Create)
                .map_err(|conflict| TargetError::Locked { name: name.clone(), conflict })
        };
        if kind.is_file() {
            lock(&file)?;
            let length = file.metadata().map_err(failed)?.len();
            let file = DiskFile::writable(file, length, capacity);
            Ok(self.add(file, serial, length, name, How::Overwritten))
        } else if kind.is_block_device() {
            lock(&file)?;
            let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
            Ok(self.add(DiskFile::device(file, length), serial, length, name, How::Changed))
        } else {
            Err(TargetError::Special(name))
        }
    }

    fn add(&mut self, file: DiskFile, serial: &str, length: u64, name: String, how: How) -> FileFacts {
        let cache = match self.cache.prepare(&file) {
            Ok(()) => self.cache,
            Err(error) => {
                self.uncached.get_or_insert_with(|| (name.clone(), reason(&error)));
                Cache { direct: false, ..self.cache }
            }
        };
        let file = Arc::new(file.cached(cache).throttled(self.throttle.clone()));
        self.disks.push(Disk::new(serial, file.clone()));
        self.written.push(Written { name, file, how });
        let extents = ExtentMap::Inline(if length == 0 { Vec::new() } else { vec![(0, length)] });
        FileFacts { disk: serial.to_owned(), length, allocated: 0, extents, named_dmg: false }
    }
}

/// What was begun and did not end well: an existing file that was written to is left empty, and has nothing in it that looks
/// like an image. New files are gone with their [`NewFile`].
impl Drop for Written {
    fn drop(&mut self) {
        if matches!(self.how, How::Overwritten) && self.file.was_changed() {
            // It may be that it cannot be changed any more; that is why we are here.
            let _ = self.file.set_length(0);
        }
    }
}

/// Opens a file that is there, without changing it.
fn open_existing(path: &OsStr) -> io::Result<File> {
    // A FIFO must not make us wait, nor a terminal become ours.
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The directory of a file that is not there, and its name in it, past the links that lead to it.
fn resolve(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let (directory, name) = split(&path)?;
        match std::fs::read_link(&path) {
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok((directory, name)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// The directory of a path, and the name in it.
fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = match path.file_name() {
        // What ends in a slash can be a directory only.
        Some(_) if path.as_os_str().as_bytes().ends_with(b"/") => Err(libc::EISDIR),
        Some(name) => Ok(name.to_owned()),
        None => Err(libc::ENOENT),
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    name.map(|name| (directory.to_owned(), name)).map_err(io::Error::from_raw_os_error)
}

/// Whether VMDK would call a part of the image `whole` so: `disk-flat.vmdk`, `disk-f001.vmdk` or `disk-s001.vmdk` for
/// `disk.vmdk`.
fn is_part(whole: &[u8], part: &[u8]) -> bool {
    let dot = whole.iter().rposition(|&byte| byte == b'.').unwrap_or(whole.len());
    let (stem, ending) = whole.split_at(dot);
    let middle = part.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
    match middle {
        Some(b"-flat") => true,
        Some([b'-', b'f' | b's', digits @ ..]) => {
            (3..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
