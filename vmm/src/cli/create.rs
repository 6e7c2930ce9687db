//! `create`: a new image without data.

use std::{
    ffi::{OsStr, OsString},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, BelowNew, Chance, CreatePart, CreateRequest, Op, Part, QemuVersion, Reply,
    options::{asks_for_help, is_valid_list},
};

use super::{
    argv::{Exception, Item},
    common::{self, Memory, Seconds, Terms},
    image::{self, How, Image},
    line::{self, Own, Subcommand},
    option_help, secret,
};
use crate::{
    devices::Cache,
    error::Error,
    launch::{Command, Disk, IoMode},
    machine,
    records::StreamError,
    references::{self, References},
    report::{self, Failure, Speaker, escape, escape_name},
    source,
    target::{NewImage, TargetError, Targets},
};

/// The command's name.
pub const NAME: &str = "create";

/// Serial of the disk that the image is made on, and of the one with its data.
const TARGET: &str = "target";
const DATA: &str = "target.data";

/// How long a new file may become, in bytes: as long as any. What is made of it is not as long as its disk.
const CAPACITY: u64 = i64::MAX as u64 & !511;

/// Make a new image FILE without data, for a disk of SIZE bytes.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "create",
    help_triggers("-h", "--help"),
    usage = "[-f FMT] [-b BACKING_FILE [-F BACKING_FMT]] [-u] [-o OPTIONS] [-q]\n    [--object OBJDEF] [--allow-references DIR]\n    [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y] [--no-sandbox]\n    FILE [SIZE]",
    note = "SIZE is in bytes, or has a suffix: k, M, G, T, P or E (powers of 1024). Without it",
    note = "the disk is as large as that of BACKING_FILE.",
    note = "A FILE that is not there appears when it is complete. One that is there is overwritten.",
    note = "Options may stand behind FILE, be abbreviated, and be written --backing=NAME or",
    note = "-fqcow2. Of an option given twice the last counts, but for -o and --object.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Create {
    /// format of FILE (default: raw)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// options of the format, as in cluster_size=2M,preallocation=full; may be given several times; help lists them
    #[argh(option, short = 'o', arg_name = "OPTIONS")]
    options: Vec<String>,

    /// the image below: what is not written to FILE is read from there
    #[argh(option, short = 'b', arg_name = "BACKING_FILE")]
    backing: Vec<String>,

    /// format of BACKING_FILE
    #[argh(option, short = 'F', arg_name = "BACKING_FMT")]
    backing_format: Vec<String>,

    /// do not open BACKING_FILE
    #[argh(switch, short = 'u')]
    backing_unsafe: bool,

    /// print nothing but warnings and failures
    #[argh(switch, short = 'q')]
    quiet: bool,

    /// a secret that options or BACKING_FILE refer to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// open the files that BACKING_FILE names if they are beneath DIR; may be given several times (default: none)
    #[argh(option, arg_name = "DIR")]
    allow_references: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60)
    #[argh(option, arg_name = "SECONDS")]
    timeout: Vec<Seconds>,

    /// memory of the virtual machine, 16M to 3070M (default: 64M)
    #[argh(option, arg_name = "SIZE")]
    memory: Vec<Memory>,

    /// follow this release of qemu-img: 5.2, 7.2, 8.0, 10.0 or 11.1 (default: 11.1)
    #[argh(option, arg_name = "X.Y")]
    #[expect(dead_code, reason = "looked for before the line is read")]
    qemu_version: Vec<QemuVersion>,

    /// run without the sandbox around the virtual machine
    #[argh(switch)]
    no_sandbox: bool,
}

/// What the option table cannot say: when qemu-img learned a name.
const HISTORY: [Exception; 7] = [
    Exception::ShortAlias('B', "backing-format", QemuVersion::V11_1),
    Exception::LongSince("format", QemuVersion::V10_0),
    Exception::LongSince("options", QemuVersion::V10_0),
    Exception::LongSince("backing", QemuVersion::V10_0),
    Exception::LongSince("backing-format", QemuVersion::V10_0),
    Exception::LongSince("backing-unsafe", QemuVersion::V10_0),
    Exception::LongSince("quiet", QemuVersion::V10_0),
];

impl Subcommand for Create {
    const NAME: &'static str = NAME;

    fn exceptions(_: Speaker) -> Vec<Exception> {
        HISTORY.into()
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `create` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let Some(line) = line::read::<Create>(speaker, arguments, check)? else { return Ok(()) };
    let (options, terms) = (&line.options, line.terms);
    let (&name, rest) =
        line.operands.split_first().ok_or_else(|| line.wrong_operands("Expecting image file name"))?;
    let size = match *rest {
        [] => None,
        [text] => Some(common::bytes("image size", text, terms.speaker.profile)?),
        [_, more, ..] => {
            return Err(line.wrong_operands(format!("Unexpected argument: {}", escape_name(more))));
        }
    };
    if !terms.speaker.as_qemu_img && options.options.iter().any(|list| asks_for_help(list)) {
        return option_help::print(options.format(), terms);
    }
    options.create(name, size, &line.secrets, terms)
}

/// What qemu-img checks about an option when it comes to it, before the options behind it.
fn check(item: &Item, _: Speaker) -> Result<(), Failure> {
    match item.option {
        "options" if !is_valid_list(&item.value) => {
            Err(Failure::usage(format!("Invalid option list: {}", escape(&item.value))))
        }
        _ => Ok(()),
    }
}

impl Create {
    fn format(&self) -> &str {
        self.format.last().map_or("raw", String::as_str)
    }

    /// The `-o` lists as one.
    fn list(&self) -> Option<String> {
        (!self.options.is_empty()).then(|| self.options.join(","))
    }

    /// What the `-o` lists set `name` to.
    fn option(&self, name: &str) -> Option<String> {
        common::option_of(&self.list()?, name)
    }

    /// Whether what is in the data file is to stay, as far as it can be told here.
    fn keeps_data_file(&self) -> bool {
        self.option("keep_data_file").is_some_and(|value| !matches!(&*value, "off" | "no" | "false" | "n"))
    }

    fn create(
        &self,
        name: &OsStr,
        size: Option<u64>,
        secrets: &secret::Secrets,
        terms: Terms,
    ) -> Result<(), Failure> {
        let speaker = terms.speaker;
        source::local_path(name).or_else(|error| match error {
            source::SourceError::Unnamed => Ok(OsStr::new("")),
            error => Err(about(name, Failure::new(error.kind(), error.to_string()))),
        })?;
        let backing = self.backing.last().cloned().or_else(|| self.option("backing_file"));
        let format = self.backing_format.last().cloned().or_else(|| self.option("backing_fmt"));
        let asked = Asked {
            name: backing.as_deref().filter(|_| !self.backing_unsafe),
            format: format.as_deref(),
            allow_references: &self.allow_references,
            cache: Cache::default(),
            serial: image::SOURCE,
        };
        let Below { image: backing, mut disks, references, bytes } = Below::open(name, asked, &terms)?;
        let mut targets = Targets::default();
        let file = reply(targets.create(name, NewImage { serial: TARGET, capacity: CAPACITY }));
        let data_file = self.option("data_file").map(|data| match self.keeps_data_file() {
            true => existing(&data, speaker, &mut targets),
            false => reply(targets.create(OsStr::new(&data), NewImage { serial: DATA, capacity: CAPACITY })),
        });
        if self
            .option("subformat")
            .is_some_and(|layout| layout.contains("Flat") || layout.starts_with("twoGb"))
        {
            targets.allow_parts(name, CAPACITY).map_err(|error| refused(name, &error))?;
        }
        disks.extend(targets.take_disks());
        let mut keys = match &backing {
            BelowNew::Image(image) => image.keys(),
            BelowNew::Unopened | BelowNew::Refused(_) => Vec::new(),
        };
        let key = self.option("key-secret").or_else(|| self.option("encrypt.key-secret"));
        keys.extend(key.as_deref());
        let (secrets, cpu) = secrets.for_keys(&keys)?;
        let options = self.list();
        let chance = chance(options.as_deref())?;
        let request = CreateRequest {
            profile: speaker.profile,
            name: name.to_string_lossy().into_owned(),
            file,
            data_file,
            format: self.format().to_owned(),
            options,
            size,
            backing_file: self.backing.last().cloned(),
            backing_format: self.backing_format.last().cloned(),
            backing,
            secrets,
            chance,
        };
        let command = common::command(Op::Create, &request)?;
        let disks = IoMode::for_tables(bytes).for_all(disks);
        let command = Command { disks, cpu, references, targets, ..command };
        let finished = terms
            .launch(command, name, &mut |part, _| match part {
                Part::Create(CreatePart::Formatting(what)) if !self.quiet => {
                    report::say(&format!("Formatting '{}', {}\n", escape_name(name), escape(&what)))
                }
                Part::Create(CreatePart::Formatting(_)) => Ok(()),
                Part::Create(CreatePart::Warning(warning)) => {
                    report::complain(&format!("{}: warning: {}\n", speaker.name(), escape(&warning)));
                    Ok(())
                }
                _ => Err(Error::from(StreamError::Operation)),
            })
            .map_err(|failure| about(name, failure))?;
        let Answer::Create(_) = &finished.answer else { return Err(common::another_operation()) };
        finished.into_targets().commit().map_err(|error| refused(name, &error))
    }
}

/// The image below a new one, as the command line has it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Its name, beside the new image's; nothing if it is not to be opened.
    pub name: Option<&'a str>,
    /// Its format.
    pub format: Option<&'a str>,
    /// `--allow-references`
    pub allow_references: &'a [String],
    /// How it is cached.
    pub cache: Cache,
    /// Serial of the disk that it becomes.
    pub serial: &'a str,
}

/// The image below, opened.
pub struct Below {
    /// What the guest is told of it.
    pub image: BelowNew,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Who decides about what it names.
    pub references: References,
    /// How much disk space it takes.
    pub bytes: u64,
}

impl Below {
    /// Opens what is below the image `name`, if there is something that is to be opened. That it cannot be opened is for the
    /// guest to tell.
    pub fn open(name: &OsStr, asked: Asked<'_>, terms: &Terms) -> Result<Self, Failure> {
        let none = |image| Ok(Self { image, disks: Vec::new(), references: References::denied(), bytes: 0 });
        let Some(backing) = asked.name.filter(|backing| !backing.is_empty()) else {
            return none(BelowNew::Unopened);
        };
        let backing = references::beside(name, OsStr::new(backing));
        let Asked { format, allow_references, cache, .. } = asked;
        let how = How { format, allow_references, cache, ..How::on(terms) };
        match Image::open_as(asked.serial, &backing, how) {
            Ok(Image { source, disks, references, .. }) => {
                let bytes = source.file.allocated;
                Ok(Self { image: BelowNew::Image(Box::new(source)), disks, references, bytes })
            }
            Err(failure) => none(BelowNew::Refused(
                failure.into_record(&format!("Could not open '{}': ", escape_name(&backing))),
            )),
        }
    }
}

/// What the guest is told of a file.
pub fn reply(file: Result<protocol::FileFacts, TargetError>) -> Reply {
    match file {
        Ok(facts) => Reply::File(facts),
        Err(error) => Reply::Refused(error.record()),
    }
}

/// A data file that is there, and keeps what is in it.
fn existing(name: &str, speaker: Speaker, targets: &mut Targets) -> Reply {
    let failed = |error: &source::SourceError| {
        Reply::Refused(protocol::ErrorRecord::new(error.kind(), error.text(speaker.profile)))
    };
    let path = match source::local_path(OsStr::new(name)) {
        Ok(path) => path,
        Err(error) => return failed(&error),
    };
    let options = source::SourceOptions {
        serial: DATA,
        write: true,
        lock: Some(source::Format::Raw),
        cache: Cache::default(),
        extents: false,
        deadline: Instant::now(),
    };
    targets.existing(path, options, CAPACITY).map_or_else(|error| failed(&error), Reply::File)
}

fn refused(name: &OsStr, error: &TargetError) -> Failure {
    about(name, Failure::new(error.kind(), error.to_string()))
}

/// A failure to make `name`, as `create` tells it.
fn about(name: &OsStr, failure: Failure) -> Failure {
    failure.behind(&format!("{}: ", escape_name(name)))
}

/// What the host knows that no command line says. What a password is worth is timed where the `-o` list has one.
pub fn chance(options: Option<&str>) -> Result<Chance, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Failure::new(protocol::ErrorKind::Io, format!("Could not get random bytes: {error}"))
    })?;
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let ticks = match options.is_some_and(|list| list.contains("key-secret")) {
        true => machine::ticks(),
        false => 0,
    };
    Ok(Chance { seed, time, ticks })
}
