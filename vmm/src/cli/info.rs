//! `info`: what an image says of itself.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, mem,
};

use argh::{ArgsInfo, FromArgs};
use jiff::tz::TimeZone;
use protocol::{Answer, ErrorKind, ImageInfo, InfoPart, InfoRequest, Op, Part, QemuVersion};

use super::{
    argv::Exception,
    common::{self, Memory, Seconds, Terms},
    image::{How, Image, Opened},
    line::{self, Own, Subcommand},
    output::Output,
};
use crate::{
    devices::Cache,
    launch::{Command, Finished},
    records::StreamError,
    report::{
        self, Failure, Speaker,
        info::{File, Shape},
    },
};

/// The command's name.
pub const NAME: &str = "info";

/// Display information about the image FILE.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "info",
    help_triggers("-h", "--help"),
    usage = "[-f FMT | --image-opts] [--backing-chain] [-U] [--limits] [-t CACHE]\n    [--output human|json] [--object OBJDEF] [--allow-references DIR]\n    [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y] [--no-sandbox]\n    FILE",
    note = "What FILE names is reported and not opened, but with --backing-chain beneath the",
    note = "directories of --allow-references.",
    note = "Options may stand behind FILE, be abbreviated, and be written --output=json or",
    note = "-fqcow2. Of an option given twice the last counts.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Info {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// FILE is a list of options instead of a name, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// describe the images below FILE, too; -b for the profile 10.0
    #[argh(switch, short = 'b')]
    backing_chain: bool,

    /// how FILE is cached: none (not at all), writeback, writethrough, directsync or unsafe; for profiles from 11.1
    #[argh(option, short = 't', arg_name = "CACHE")]
    cache: Vec<String>,

    /// read FILE even while another process writes to it
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// show what QEMU's block layer asks of requests; for profiles from 11.1
    #[argh(switch)]
    limits: bool,

    /// human or json (default: human)
    #[argh(option, arg_name = "human|json")]
    output: Vec<String>,

    /// a secret that FILE refers to: secret,id=ID,file=NAME (or data=TEXT); no key is needed; may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// with --backing-chain, open the files that images name if they are beneath DIR; may be given several times (default: none)
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
const HISTORY: [Exception; 5] = [
    Exception::LongSince("cache", QemuVersion::V11_1),
    Exception::ShortSince('t', QemuVersion::V11_1),
    Exception::LongSince("limits", QemuVersion::V11_1),
    Exception::ShortSince('b', QemuVersion::V10_0),
    Exception::ShortUntil('b', QemuVersion::V11_1),
];

impl Subcommand for Info {
    const NAME: &'static str = NAME;

    fn exceptions(_: Speaker) -> Vec<Exception> {
        HISTORY.into()
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `info` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let line = line::read::<Info>(speaker, arguments, |item, speaker| match item.option {
        "output" => Output::check(&item.value, NAME, speaker.profile),
        _ => Ok(()),
    })?;
    let Some(line) = line else { return Ok(()) };
    let name = line.only_name()?;
    let cache = common::cache(&line.options.cache, "cache").map_err(Failure::usage)?;
    line.options.show(name, cache, line.terms)
}

impl Info {
    /// Opens the image, asks the guest about it and prints the answer.
    fn show(&self, name: &OsStr, cache: Cache, terms: Terms) -> Result<(), Failure> {
        let speaker = terms.speaker;
        let how = How {
            format: self.format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            cache,
            ..How::on(&terms)
        };
        let Image { source, disks, references, files, name: shown } = Image::open(name, how)?;
        let request = InfoRequest {
            profile: speaker.profile,
            source: Box::new(source),
            backing_chain: self.backing_chain,
        };
        let output = Output::of(&self.output);
        // Once the sandbox is up, nobody can ask what time it is here.
        let zone = match output {
            Output::Human => local_zone(),
            Output::Json => TimeZone::UTC,
        };
        let command = Command { disks, references, ..common::command(Op::Info, &request)? };
        let mut parts = Vec::new();
        let finished = terms.launch(command, name, &mut |part, _| {
            let Part::Info(part) = part else { return Err(StreamError::Operation.into()) };
            parts.push(part);
            Ok(())
        })?;
        let mut images = images(&finished, parts, &files)?;
        if let Some(first) = images.first_mut() {
            first.name = shown;
        }
        let shape = Shape { profile: speaker.profile, limits: self.limits };
        let printed = report::print(&match output {
            Output::Json => report::info::json(&images, self.backing_chain, shape),
            Output::Human => report::info::human(&images, shape, &zone),
        });
        finished.leave_standing();
        printed
    }
}

/// The time zone of this machine. Where nobody chose another one that is a file; jiff looks through all zones there are for
/// its name first, which takes longer than the rest of a short command.
fn local_zone() -> TimeZone {
    let chosen = env::var_os("TZ").is_some();
    let file = if chosen { None } else { fs::read("/etc/localtime").ok() };
    file.and_then(|zone| TimeZone::tzif("local", &zone).ok()).unwrap_or_else(TimeZone::system)
}

/// The images of an answer; `opened` are the files of the command line.
fn images(
    finished: &Finished,
    parts: Vec<InfoPart>,
    opened: &[Opened],
) -> Result<Vec<report::info::Image>, Failure> {
    let Answer::Info(last) = &finished.answer else { return Err(common::another_operation()) };
    let last = InfoPart::Image(last.clone());
    let (mut snapshots, mut bitmaps, mut extents) = (Vec::new(), Vec::new(), Vec::new());
    let mut images = Vec::new();
    for part in parts.into_iter().chain([last]) {
        match part {
            InfoPart::Snapshots(more) => snapshots.extend(more),
            InfoPart::Bitmaps(more) => bitmaps.extend(more),
            InfoPart::Extents(more) => extents.extend(more),
            InfoPart::Image(info) => {
                let file = file(finished, &info, opened)?;
                images.push(report::info::Image {
                    name: file.name.clone(),
                    file,
                    info: *info,
                    snapshots: mem::take(&mut snapshots),
                    bitmaps: mem::take(&mut bitmaps),
                    extents: mem::take(&mut extents),
                });
            }
        }
    }
    Ok(images)
}

/// The file that an image is in.
fn file(finished: &Finished, info: &ImageInfo, opened: &[Opened]) -> Result<File, Failure> {
    if let Some(Opened { path, size, is_device, .. }) = opened.iter().find(|file| file.serial == info.disk) {
        let driver = if *is_device { "host_device" } else { "file" };
        return Ok(File { name: path.clone(), driver, length: size.0, allocated: size.1 });
    }
    let references = &finished.references;
    match (references.name(&info.disk), references.size(&info.disk)) {
        (Some(name), Some((length, allocated))) => {
            Ok(File { name: name.to_owned(), driver: "file", length, allocated })
        }
        _ => Err(Failure::new(ErrorKind::GuestFault, "The guest tells of a disk that there is none of")),
    }
}
