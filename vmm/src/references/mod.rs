//! The files that images name: whether a guest gets them. Nobody does unless the caller named directories; then regular
//! files beneath those, and nothing that a link leads out of them.
//!
//! The names come out of images and are as hostile as those. They are resolved by the kernel (`openat2`), which does not
//! leave the directory, and are never interpreted beyond that.

mod directory;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

pub use directory::Directory;
use protocol::{ErrorKind, ErrorRecord, ExtentMap, FileFacts, MAX_CHAIN, Need, Role, handover::slot_serial};

use crate::{
    devices::{Cache, DiskFile},
    launch::Disk,
    report::{escape, escape_name, reason},
    source::{self, Format, Source, SourceOptions},
};

/// Most disks that referenced files may become: a VMDK image of as many extents as may be, chains beside it.
pub const MAX_SLOTS: usize = 1280;

/// How referenced files are opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Whether they are locked as `qemu-img` locks them; not with `--force-share`.
    pub lock: bool,
    /// How they are cached.
    pub cache: Cache,
    /// Whether their holes matter.
    pub extents: bool,
    /// When to give up.
    pub deadline: Instant,
}

/// The policy, and the files it knows: those of the command line and those it granted.
#[derive(Debug)]
pub struct References {
    directories: Vec<Directory>,
    opening: Opening,
    files: BTreeMap<String, Known>,
    slots: usize,
}

/// A file that may name others.
#[derive(Debug)]
struct Known {
    /// Its name, as `qemu-img` would show it.
    name: OsString,
    /// Where relative names in it begin: absolute, no link in it.
    directory: PathBuf,
    /// Its length, and the disk space it takes, in bytes.
    size: (u64, u64),
    /// Device and inode.
    identity: (u64, u64),
    /// Serial of the disk whose image named it.
    above: Option<String>,
}

/// A file the guest gets.
#[derive(Debug)]
pub struct Grant {
    /// What it is told of it.
    pub facts: FileFacts,
    /// The disks, to be put into the next slots in this order.
    pub disks: Vec<Disk>,
}

impl References {
    /// The policy of nobody who gets anything.
    pub fn denied() -> Self {
        Self::beneath(
            Vec::new(),
            Opening { lock: true, cache: Cache::default(), extents: false, deadline: Instant::now() },
        )
    }

    /// The policy that allows what is beneath `directories`.
    pub fn beneath(directories: Vec<Directory>, opening: Opening) -> Self {
        Self { directories, opening, files: BTreeMap::new(), slots: 0 }
    }

    /// The directories beneath which files will be opened; none if nothing will.
    pub fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// How the files are cached that will be opened.
    pub fn cache(&self) -> Cache {
        self.opening.cache
    }

    /// Slots that a machine needs for what may be granted.
    pub fn slots(&self) -> usize {
        if self.directories.is_empty() { 0 } else { MAX_SLOTS }
    }

    /// Tells of a file that the command line named; `serial` is its disk's. For names that are to be resolved later
    /// this is where they begin, while the process may still look around.
    pub fn know(&mut self, serial: &str, path: &OsStr, file: &File) -> std::io::Result<()> {
        if self.directories.is_empty() {
            return Ok(());
        }
        let directory = match Path::new(path).parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let metadata = file.metadata()?;
        let known = Known {
            name: path.to_owned(),
            directory: directory.canonicalize()?,
            size: (metadata.len(), metadata.blocks() * 512),
            identity: (metadata.dev(), metadata.ino()),
            above: None,
        };
        self.files.insert(serial.to_owned(), known);
        Ok(())
    }

    /// Takes over the files that `other`, of the same directories, was told of.
    pub fn join(&mut self, other: Self) {
        self.files.extend(other.files);
    }

    /// The name of the file behind a disk, if it has one that the user knows.
    pub fn name(&self, serial: &str) -> Option<&OsStr> {
        self.files.get(serial).map(|known| known.name.as_os_str())
    }

    /// Length of the file behind a disk and the disk space it takes, in bytes.
    pub fn size(&self, serial: &str) -> Option<(u64, u64)> {
        self.files.get(serial).map(|known| known.size)
    }

    /// A failure to open a file that was granted, with its name, which the guest does not know.
    pub fn named(&self, record: ErrorRecord) -> ErrorRecord {
        let granted = record.disk.as_deref().and_then(|disk| self.files.get(disk));
        match granted.filter(|known| known.above.is_some()) {
            None => record,
            Some(known) => {
                let message = format!("Could not open '{}': {}", escape_name(&known.name), record.message);
                ErrorRecord { message, disk: None, ..record }
            }
        }
    }

    /// Decides about a file, and opens it.
    pub fn answer(&mut self, need: &Need) -> Result<Grant, ErrorRecord> {
        let role = need.role.name();
        let name = escape(&need.name);
        if self.directories.is_empty() {
            let message = format!(
                "{role} '{name}' is a reference to another file and was not followed (see --allow-references)"
            );
            return Err(ErrorRecord::new(ErrorKind::ReferenceDenied, message));
        }
        let denied =
            |why: &str| ErrorRecord::new(ErrorKind::ReferenceDenied, format!("{role} '{name}' {why}"));
        let Some(of) = self.files.get(&need.of) else {
            return Err(denied("is wanted by an image that is not known"));
        };
        let local = source::local_path(OsStr::new(&need.name))
            .map_err(|error| ErrorRecord::new(error.kind(), error.to_string()))?;
        let shown = beside(&of.name, local);
        let path = directory::normalised(&of.directory.join(local));
        let (directory, rest) = directory::containing(&self.directories, &path)
            .ok_or_else(|| denied("is outside of the directories of --allow-references"))?;
        let file = directory.open_beneath(rest).map_err(|error| match error {
            directory::OpenError::Leaves => denied("leads out of the directories of --allow-references"),
            directory::OpenError::System(error) => ErrorRecord::new(
                ErrorKind::Io,
                format!("Could not open '{}': {}", escape_name(&shown), reason(&error)),
            ),
        })?;
        let known = Known {
            directory: directory.real().join(rest).parent().unwrap_or(Path::new("/")).to_path_buf(),
            size: (0, 0),
            identity: identity(&file, &shown).map_err(|why| denied(&why))?,
            name: shown,
            above: Some(need.of.clone()),
        };
        self.check_chain(need, &known)?;
        self.grant(need, known, file)
    }

    /// An image is not below itself, and a chain has an end.
    fn check_chain(&self, need: &Need, known: &Known) -> Result<(), ErrorRecord> {
        let (role, name) = (need.role.name(), escape(&need.name));
        let mut above = known.above.as_deref();
        let mut depth = 1;
        while let Some(image) = above.and_then(|serial| self.files.get(serial)) {
            if image.identity == known.identity {
                let message = format!("{role} '{name}' is an image that itself leads to it");
                return Err(ErrorRecord::new(ErrorKind::Corrupt, message));
            }
            if depth == MAX_CHAIN {
                let message = format!("{role} '{name}' would make a chain of more than {MAX_CHAIN} files");
                return Err(ErrorRecord::new(ErrorKind::Limit, message));
            }
            depth += 1;
            above = image.above.as_deref();
        }
        Ok(())
    }

    /// Serial of the disk in the next slot, for a file that is nobody else's business.
    pub fn take_slot(&mut self) -> Result<String, ErrorRecord> {
        if self.slots == MAX_SLOTS {
            return Err(too_many());
        }
        self.slots += 1;
        Ok(slot_serial(self.slots - 1))
    }

    fn grant(&mut self, need: &Need, mut known: Known, file: File) -> Result<Grant, ErrorRecord> {
        let lock = match (self.opening.lock, need.role, need.format.as_deref()) {
            (false, _, _) => None,
            // What holds no tables may be written to while it is read.
            (true, Role::DataFile | Role::Extent | Role::NewExtent, _) | (true, _, Some("raw")) => {
                Some(Format::Raw)
            }
            (true, Role::Backing, _) => Some(Format::Structured),
        };
        let serial = slot_serial(self.slots);
        let Opening { cache, extents, deadline, .. } = self.opening;
        let options = SourceOptions { serial: &serial, write: false, lock, cache, extents, deadline };
        let Source { file, mut facts, extents } = source::describe(file, &known.name, options)
            .map_err(|error| ErrorRecord::new(error.kind(), error.to_string()))?;
        let read = DiskFile::read_only(file, facts.length).cached(cache);
        let mut disks = vec![Disk::new(&serial, Arc::new(read))];
        if let (Some(file), ExtentMap::Disk { disk: name, count }) = (extents, &mut facts.extents) {
            *name = slot_serial(self.slots + 1);
            disks.push(Disk::read_only(name.as_str(), file, *count * source::RANGE));
        }
        if self.slots + disks.len() > MAX_SLOTS {
            return Err(too_many());
        }
        self.slots += disks.len();
        known.size = (facts.length, facts.allocated);
        self.files.insert(serial, known);
        Ok(Grant { facts, disks })
    }
}

fn too_many() -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Limit, format!("The image leads to more than {MAX_SLOTS} files"))
}

/// Device and inode of a regular file.
fn identity(file: &File, name: &OsStr) -> Result<(u64, u64), String> {
    let metadata = file.metadata().map_err(|error| format!("cannot be looked at: {}", reason(&error)))?;
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok((metadata.dev(), metadata.ino()));
    }
    let what = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_block_device() => "a block device",
        () => "a special file",
    };
    Err(format!("is {what}, and not a regular file: '{}'", escape_name(name)))
}

/// The name `qemu-img` gives a file that is called `name` in the image `of`: relative names are beside the image.
pub fn beside(of: &OsStr, name: &OsStr) -> OsString {
    let directory = match of.as_bytes().iter().rposition(|&byte| byte == b'/') {
        Some(slash) if !name.as_bytes().starts_with(b"/") => &of.as_bytes()[..=slash],
        _ => &[],
    };
    let mut shown = OsStr::from_bytes(directory).to_owned();
    shown.push(name);
    shown
}

#[cfg(test)]
mod tests;
