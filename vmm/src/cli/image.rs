//! Opening the image that a command line names or describes, with all the files that this takes.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::FileTypeExt,
    sync::Arc,
    time::Instant,
};

use protocol::{Backing, ErrorKind, ErrorRecord, ExtentMap, FileFacts, ImageSource, options::HINT};

use super::{
    common::{self, Terms},
    image_opts::{self, Below, Description},
};
use crate::{
    devices::{Cache, DiskFile},
    launch::Disk,
    references::{Opening, References},
    report::{Failure, Speaker, escape_name, reason},
    source::{self, Source, SourceError, SourceOptions},
};

/// Serial of the disk that holds the only image of a command, or the first one.
pub const SOURCE: &str = "source";

/// How an image is opened: what the options of a command say about it.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// How long the file of the image may become, if it is written to: from its length on. No other file is.
    pub room: Option<fn(u64) -> u64>,
    /// `-f`
    pub format: Option<&'a str>,
    /// `--image-opts`
    pub image_opts: bool,
    /// `-U`
    pub force_share: bool,
    /// `--allow-references`
    pub allow_references: &'a [String],
    /// How its files are cached.
    pub cache: Cache,
    /// Whether it matters where files have holes.
    pub extents: bool,
    /// When to give up.
    pub deadline: Instant,
    /// Who speaks.
    pub speaker: Speaker,
}

impl How<'_> {
    /// As a command on these `terms` opens an image of which no option says anything: to read it, its holes do not matter.
    pub fn on(terms: &Terms) -> Self {
        Self {
            room: None,
            format: None,
            image_opts: false,
            force_share: false,
            allow_references: &[],
            cache: Cache::default(),
            extents: false,
            deadline: terms.deadline(),
            speaker: terms.speaker,
        }
    }

    /// What of it cannot be together.
    fn check(&self, name: &OsStr) -> Result<(), Failure> {
        if self.image_opts && self.format.is_some() {
            return Err(Failure::usage("--image-opts and --format are mutually exclusive"));
        }
        if self.force_share && self.room.is_some() {
            let name = escape_name(name);
            let why = "force-share=on can only be used with read-only images";
            return Err(Failure::usage(format!("Could not open '{name}': {why}")));
        }
        Ok(())
    }
}

/// An image, ready for a machine.
#[derive(Debug)]
pub struct Image {
    /// What the guest is told of it.
    pub source: ImageSource,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Who decides about what it names.
    pub references: References,
    /// The files that were opened, the one that holds it first.
    pub files: Vec<Opened>,
    /// Its name: the path of its file, unless more than that was said of it.
    pub name: OsString,
}

/// A file of the command line.
#[derive(Debug)]
pub struct Opened {
    /// Serial of the disk that it becomes.
    pub serial: String,
    /// Its path.
    pub path: OsString,
    /// Its length and the disk space it takes, in bytes.
    pub size: (u64, u64),
    /// Whether it is a block device.
    pub is_device: bool,
}

impl Image {
    /// Opens the only image of a command, which `name` is the name or the description of.
    pub fn open(name: &OsStr, how: How<'_>) -> Result<Self, Failure> {
        Self::open_as(SOURCE, name, how)
    }

    /// As [`open`](Self::open), for one image of several: its disk has this serial, and those of other files that it is
    /// said to consist of have one that begins so.
    pub fn open_as(serial: &str, name: &OsStr, how: How<'_>) -> Result<Self, Failure> {
        how.check(name)?;
        let directories = common::reference_directories(how.allow_references)?;
        let How { cache, extents, deadline, .. } = how;
        let opening = Opening { lock: !how.force_share, cache, extents, deadline };
        let references = References::beneath(directories, opening);
        let mut files = Files { serial, name, how, disks: Vec::new(), opened: Vec::new(), references };
        let described = description(name, how).map_err(|why| files.failure(ErrorKind::Usage, &why))?;
        let (source, name) = match described {
            Some(description) => {
                let source = files.described(&description)?;
                let plain = description.is_plain();
                (source, if plain { OsString::from(description.path) } else { name.to_owned() })
            }
            None => {
                let path = source::local_path(name).map_err(|error| files.refused(&error))?;
                let named_dmg = source::is_named_dmg(name);
                let file = FileFacts { named_dmg, ..files.open(path, how.format)? };
                (ImageSource::new(file, how.format.map(str::to_owned)), path.to_owned())
            }
        };
        let Files { disks, references, opened: files, .. } = files;
        Ok(Self { source, disks, references, files, name })
    }

    /// What the guest says of the image, with the name it does not know.
    pub fn refusal(name: &OsStr, record: ErrorRecord) -> Failure {
        let message = match record.disk {
            Some(_) => format!("Could not open '{}': {}", escape_name(name), record.message),
            None => record.message,
        };
        Failure::new(record.kind, message).field(record.field)
    }
}

/// What the operand describes, if it is more than a name.
fn description(name: &OsStr, how: How<'_>) -> Result<Option<Description>, String> {
    let Some(text) = name.to_str() else {
        return if how.image_opts { Err("Options are not UTF-8".into()) } else { Ok(None) };
    };
    match () {
        () if how.image_opts => image_opts::parse_list(text, how.speaker).map(Some),
        () if image_opts::is_json(text) => image_opts::parse_json(text, how.format, how.speaker).map(Some),
        () => Ok(None),
    }
}

/// The files opened so far.
struct Files<'a> {
    serial: &'a str,
    name: &'a OsStr,
    how: How<'a>,
    disks: Vec<Disk>,
    opened: Vec<Opened>,
    references: References,
}

impl Files<'_> {
    fn described(&mut self, description: &Description) -> Result<ImageSource, Failure> {
        let Description { path, format, window, key_secret, encrypt_format, backing, data_file } =
            description;
        let file = self.open(OsStr::new(path), format.as_deref())?;
        let data_file = match data_file {
            Some(path) => Some(self.open(OsStr::new(path), Some("raw"))?),
            None => None,
        };
        let backing = match backing {
            None => None,
            Some(Below::Nothing) => Some(Backing::None),
            Some(Below::Image(image)) => Some(Backing::Image(Box::new(self.described(image)?))),
        };
        let (format, window) = (format.clone(), *window);
        let (key_secret, encrypt_format) = (key_secret.clone(), encrypt_format.clone());
        Ok(ImageSource { file, format, window, key_secret, encrypt_format, backing, data_file })
    }

    fn open(&mut self, path: &OsStr, format: Option<&str>) -> Result<FileFacts, Failure> {
        let serial = match self.disks.len() {
            0 => self.serial.to_owned(),
            count => format!("{}.{count}", self.serial),
        };
        let lock = match format {
            _ if self.how.force_share => None,
            Some("raw") => Some(source::Format::Raw),
            _ => Some(source::Format::Structured),
        };
        let How { cache, extents, deadline, .. } = self.how;
        let room = self.how.room.filter(|_| self.disks.is_empty());
        let options =
            SourceOptions { serial: &serial, write: room.is_some(), lock, cache, extents, deadline };
        let Source { file, facts, extents } =
            source::open(path, options).map_err(|error| self.refused(&error))?;
        self.references
            .know(&serial, path, &file)
            .map_err(|error| self.failure(ErrorKind::Io, &reason(&error)))?;
        let is_device = file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        let size = (facts.length, facts.allocated);
        self.opened.push(Opened { serial: serial.clone(), path: path.to_owned(), size, is_device });
        let file = match room {
            Some(room) => DiskFile::writable(file, facts.length, room(facts.length)),
            None => DiskFile::read_only(file, facts.length),
        };
        self.disks.push(Disk::new(serial, Arc::new(file.cached(cache))));
        if let (Some(file), ExtentMap::Disk { disk, count }) = (extents, &facts.extents) {
            let length = count * source::RANGE;
            self.disks.push(Disk::read_only(disk, file, length));
        }
        Ok(facts)
    }

    fn failure(&self, kind: ErrorKind, why: &str) -> Failure {
        Failure::new(kind, format!("Could not open '{}': {why}", escape_name(self.name)))
    }

    fn refused(&self, error: &SourceError) -> Failure {
        let hint = match error {
            SourceError::Locked(_) => {
                format!("\n{HINT}Is another process using the image [{}]?", escape_name(self.name))
            }
            _ => String::new(),
        };
        self.failure(error.kind(), &(error.text(self.how.speaker.profile) + &hint))
    }
}
