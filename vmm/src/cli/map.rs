//! `map`: where the bytes of a disk come from.

use std::{
    ffi::{OsStr, OsString},
    io,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, ErrorKind, ErrorRecord, MapKind, MapPart, MapReader, MapRequest, Op, Part, QemuVersion,
    RecordError,
};

use super::{
    argv::Exception,
    common::{self, Memory, Seconds, Terms},
    image::{How, Image, Opened},
    line::{self, Own, Subcommand},
    output::Output,
    secret,
};
use crate::{
    error::Error,
    launch::{Command, IoMode},
    records::{MAX_ANSWER, StreamError},
    references::References,
    report::{
        Failure, Speaker, Stdout,
        map::{Listing, Shape, Words},
    },
};

/// The command's name.
pub const NAME: &str = "map";

/// Most extents that are listed when nobody says: some gigabytes of text.
const DEFAULT_MAX_EXTENTS: u64 = 64 << 20;

/// Most bytes of an extent in the guest's answer: three numbers of up to 13 digits, and its share of what stands
/// around them.
const EXTENT_LENGTH: u64 = 64;

/// What `qemu-img` says where there are no offsets to list.
const NO_OFFSET: &str = "File contains external, encrypted or compressed clusters.";

/// List where the bytes of the disk in FILE come from, its whole backing chain considered.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "map",
    help_triggers("-h", "--help"),
    usage = "[-f FMT | --image-opts] [-s OFFSET] [-l LENGTH] [--output human|json] [-U]\n    [--object OBJDEF] [--allow-references DIR] [--max-extents NUMBER]\n    [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y] [--no-sandbox]\n    FILE",
    note = "Options may stand behind FILE, be abbreviated, and be written --output=json or",
    note = "-fqcow2. Of an option given twice the last counts, but for --object.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Map {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// FILE is a list of options instead of a name, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// begin at this byte of the disk, with suffixes k, M, G, T, P or E (powers of 1024) (default: 0)
    #[argh(option, short = 's', arg_name = "OFFSET")]
    start_offset: Vec<String>,

    /// list no more than this many bytes of the disk (default: to its end)
    #[argh(option, short = 'l', arg_name = "LENGTH")]
    max_length: Vec<String>,

    /// human or json (default: human)
    #[argh(option, arg_name = "human|json")]
    output: Vec<String>,

    /// read FILE even while another process writes to it
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// a secret that FILE refers to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// open the files that FILE names (backing files, data files, extents) if they are beneath DIR; may be given several times (default: none)
    #[argh(option, arg_name = "DIR")]
    allow_references: Vec<String>,

    /// fail where there are more extents than this (default: 67108864)
    #[argh(option, arg_name = "NUMBER")]
    max_extents: Vec<u64>,

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

impl Subcommand for Map {
    const NAME: &'static str = NAME;

    fn exceptions(_: Speaker) -> Vec<Exception> {
        vec![Exception::Own("max-extents")]
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `map` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let line = line::read::<Map>(speaker, arguments, |item, Speaker { profile, .. }| match item.option {
        "output" if profile >= QemuVersion::V10_0 => Output::check(&item.value, NAME, profile),
        "start-offset" => common::bytes("start offset", &item.value, profile).map(drop),
        "max-length" => common::bytes("max length", &item.value, profile).map(drop),
        _ => Ok(()),
    })?;
    let Some(line) = line else { return Ok(()) };
    let name = line.only_name()?;
    if let Some(output) = line.options.output.last() {
        Output::check(output, NAME, line.terms.speaker.profile)?;
    }
    line.options.list(name, line.terms, &line.secrets)
}

impl Map {
    /// Opens the image, asks the guest about it and prints what it tells as it comes.
    fn list(&self, name: &OsStr, terms: Terms, secrets: &secret::Secrets) -> Result<(), Failure> {
        let how = How {
            format: self.format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            extents: true,
            ..How::on(&terms)
        };
        let Image { source, disks, references, files, .. } = Image::open(name, how)?;
        let profile = terms.speaker.profile;
        let (start, end) = self.range(profile)?;
        let io = IoMode::for_tables(source.file.allocated);
        let (secrets, cpu) = secrets.for_keys(&source.keys())?;
        let request = MapRequest { profile, source: Box::new(source), secrets, start, end };
        let max_extents = self.max_extents.last().copied().unwrap_or(DEFAULT_MAX_EXTENTS);
        let max_answer = max_extents.saturating_mul(EXTENT_LENGTH).saturating_add(MAX_ANSWER);
        let command = common::command(Op::Map, &request)?;
        let command = Command { disks: io.for_all(disks), cpu, references, max_answer, ..command };

        let shape = match Output::of(&self.output) {
            Output::Human => Shape::Human,
            Output::Json => Shape::Json(profile),
        };
        let out = Stdout::until(terms.deadline()).map_err(Error::Output)?;
        let mut walk = Walk {
            listing: Listing::new(out, shape),
            shape,
            files: &files,
            position: start,
            end,
            length: None,
            extents: 0,
            max_extents,
        };
        let finished = terms.launch(command, name, &mut |part, references| walk.take(part, references));
        let finished = match finished {
            Ok(finished) => finished,
            Err(failure) => {
                // That it cannot be printed either is no news.
                let _ = walk.listing.close();
                return Err(failure);
            }
        };
        let Answer::Map(answer) = &finished.answer else { return Err(common::another_operation()) };
        let printed = match answer.extents == walk.extents && walk.is_whole() {
            true => walk.listing.end(start).map_err(|error| output_error(error).into()),
            false => Err(nonsense("the map is not whole").into()),
        };
        finished.leave_standing();
        printed
    }

    /// Where to begin, and where to end at most. The sum of both numbers is a signed one of 64 bits to `qemu-img`: what
    /// does not fit is before the disk.
    fn range(&self, profile: QemuVersion) -> Result<(u64, Option<u64>), Failure> {
        let last =
            |what, given: &[String]| given.last().map(|text| common::bytes(what, text, profile)).transpose();
        let start = last("start offset", &self.start_offset)?.unwrap_or(0);
        let end = last("max length", &self.max_length)?.map(|length| match start.checked_add(length) {
            Some(end) if end <= i64::MAX as u64 => end,
            _ => 0,
        });
        Ok((start, end))
    }
}

/// The guest's answer so far, which may be anything.
struct Walk<'a> {
    listing: Listing<Stdout>,
    shape: Shape,
    /// The files of the command line.
    files: &'a [Opened],
    /// Where the next extent begins.
    position: u64,
    /// Where the last one ends, if it is not at the end of the disk.
    end: Option<u64>,
    /// Length of the disk, once it is known.
    length: Option<u64>,
    extents: u64,
    max_extents: u64,
}

impl Walk<'_> {
    fn take(&mut self, part: Part, references: &References) -> Result<(), Error> {
        match (part, self.length) {
            (Part::Map(MapPart::Disk { length }), None) => {
                self.length = Some(length);
                self.listing.begin().map_err(output_error)
            }
            (Part::Map(MapPart::Extents { kinds, runs }), Some(length)) => {
                let end = self.end.map_or(length, |end| end.min(length));
                self.extents(&kinds, &runs, end, references)
            }
            (Part::Map(_), _) => Err(nonsense("extents without a disk, or a second disk")),
            _ => Err(StreamError::Operation.into()),
        }
    }

    fn extents(
        &mut self,
        kinds: &[MapKind],
        runs: &str,
        end: u64,
        references: &References,
    ) -> Result<(), Error> {
        let mut words = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let name = match &kind.file {
                None => None,
                Some(serial) => Some(self.name(serial, references)?),
            };
            words.push(Words::new(self.shape, kind, name));
        }
        for run in MapReader::new(kinds, runs) {
            let run = run.map_err(|_| nonsense("not a list of extents"))?;
            let next = self.position.checked_add(run.length).filter(|&next| run.length > 0 && next <= end);
            let next = next.ok_or_else(|| nonsense("an extent beyond the end"))?;
            if run.offset > i64::MAX as u64 {
                return Err(nonsense("an offset beyond the end of any file"));
            }
            if self.extents == self.max_extents {
                let message = format!("There are more than {} extents (see --max-extents)", self.max_extents);
                return Err(Error::Guest(ErrorRecord::new(ErrorKind::Limit, message)));
            }
            let kind = &kinds[run.kind];
            if self.shape == Shape::Human && kind.data && kind.file.is_none() {
                return Err(Error::Guest(ErrorRecord::new(ErrorKind::Unsupported, NO_OFFSET)));
            }
            self.listing.extent(self.position, run, &words[run.kind]).map_err(output_error)?;
            self.position = next;
            self.extents += 1;
        }
        Ok(())
    }

    /// The name of the file on a disk.
    fn name<'a>(&'a self, serial: &str, references: &'a References) -> Result<&'a OsStr, Error> {
        let opened = self.files.iter().find(|file| file.serial == serial);
        let name = opened.map(|file| file.path.as_os_str()).or_else(|| references.name(serial));
        name.ok_or_else(|| nonsense("a disk that there is none of"))
    }

    /// Whether all of what was asked for was told.
    fn is_whole(&self) -> bool {
        let Some(length) = self.length else { return false };
        self.position >= self.end.map_or(length, |end| end.min(length))
    }
}

/// What the guest told cannot be.
fn nonsense(what: &str) -> Error {
    StreamError::from(RecordError::Schema(format!("map: {what}"))).into()
}

fn output_error(error: io::Error) -> Error {
    match error.kind() {
        // The time that was given is known where this is told.
        io::ErrorKind::TimedOut => Error::Timeout(Duration::ZERO),
        _ => Error::Output(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_tells_the_limit() {
        let speaker = Speaker { as_qemu_img: false, profile: QemuVersion::default() };
        let help = super::super::help::<Map>(speaker, Some(NAME));
        assert!(help.starts_with("Usage: instar map "), "{help}");
        let plain = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(plain.contains(&format!("(default: {DEFAULT_MAX_EXTENTS})")), "{help}");
    }
}
