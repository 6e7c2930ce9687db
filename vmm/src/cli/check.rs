//! `check`: whether the metadata of an image is consistent.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, CheckFindings, CheckPart, CheckRequest, ErrorKind, Op, Part, QemuVersion, RepairMode,
};

use super::{
    argv::Exception,
    common::{self, Memory, Seconds, Terms},
    image::{How, Image},
    line::{self, Own, Subcommand},
    output::Output,
};
use crate::{
    devices::Cache,
    error::Error,
    launch::{Command, IoMode},
    records::StreamError,
    report::{self, Failure, Speaker, escape},
};

/// The command's name.
pub const NAME: &str = "check";

/// Exit codes: errors were found; only leaks were; the format has no check.
const CORRUPT: u8 = 2;
const LEAKY: u8 = 3;
const NO_CHECK: u8 = 63;

/// Check whether the metadata of the image FILE is consistent.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "check",
    help_triggers("-h", "--help"),
    usage = "[-f FMT | --image-opts] [-r leaks|all] [-T CACHE] [-U] [-q]\n    [--output human|json] [--object OBJDEF] [--allow-references DIR]\n    [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y] [--no-sandbox]\n    FILE",
    note = "Images below FILE are not looked at, and no key is needed.",
    note = "Options may stand behind FILE, be abbreviated, and be written --output=json or",
    note = "-fqcow2. Of an option given twice the last counts.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0 if there are no errors, 2 if there are, 3 if all there is are clusters",
    note = "in use by nothing, 63 if the format has no check, and 1 after any failure."
)]
pub struct Check {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// FILE is a list of options instead of a name, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// repair clusters in use by nothing, or whatever can be; FILE is written to
    #[argh(option, short = 'r', arg_name = "leaks|all")]
    #[expect(dead_code, reason = "looked at while the line is read")]
    repair: Vec<String>,

    /// how FILE is cached: none (not at all), writeback, writethrough, directsync or unsafe (nobody waits for the disk)
    #[argh(option, short = 'T', arg_name = "CACHE")]
    cache: Vec<String>,

    /// read FILE even while another process writes to it
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// print nothing but failures
    #[argh(switch, short = 'q')]
    quiet: bool,

    /// human or json (default: human)
    #[argh(option, arg_name = "human|json")]
    output: Vec<String>,

    /// a secret that FILE refers to: secret,id=ID,file=NAME (or data=TEXT); no key is needed; may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// open the files with the parts of FILE's disk if they are beneath DIR; may be given several times (default: none)
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
const HISTORY: [Exception; 2] =
    [Exception::LongSince("cache", QemuVersion::V10_0), Exception::LongSince("quiet", QemuVersion::V10_0)];

impl Subcommand for Check {
    const NAME: &'static str = NAME;

    fn exceptions(_: Speaker) -> Vec<Exception> {
        HISTORY.into()
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `check` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let mut repair = RepairMode::None;
    let line = line::read::<Check>(speaker, arguments, |item, speaker| {
        match item.option {
            "output" => Output::check(&item.value, NAME, speaker.profile)?,
            "repair" => repair = repair_mode(&item.value, speaker.profile)?,
            _ => {}
        }
        Ok(())
    })?;
    let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
    let name = line.only_name()?;
    let cache = common::cache(&line.options.cache, "source cache").map_err(Failure::usage)?;
    line.options.check(name, (repair, cache), line.terms)
}

/// What `--repair` says.
fn repair_mode(text: &str, profile: QemuVersion) -> Result<RepairMode, Failure> {
    let mode = match text {
        "leaks" => return Ok(RepairMode::Leaks),
        "all" => return Ok(RepairMode::All),
        other => escape(other),
    };
    let (message, help) = match profile {
        QemuVersion::V5_2 | QemuVersion::V7_2 | QemuVersion::V8_0 => {
            (format!("Unknown option value for -r (expecting 'leaks' or 'all'): {mode}"), "")
        }
        QemuVersion::V10_0 => (format!("--repair (-r) expects 'leaks' or 'all' not '{mode}'"), NAME),
        QemuVersion::V11_1 => (format!("--repair (-r) expects 'leaks' or 'all', not '{mode}'"), NAME),
    };
    Err(Failure::usage(message).try_help(help))
}

impl Check {
    /// Opens the image, has the guest check it and prints what was found.
    fn check(
        &self,
        name: &OsStr,
        (repair, cache): (RepairMode, Cache),
        terms: Terms,
    ) -> Result<ExitCode, Failure> {
        let speaker = terms.speaker;
        let how = How {
            room: (repair != RepairMode::None).then_some(room),
            format: self.format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            cache,
            ..How::on(&terms)
        };
        let Image { source, disks, references, .. } = Image::open(name, how)?;
        let io = IoMode::for_reading(source.file.allocated / METADATA_SHARE);
        let request = CheckRequest {
            profile: speaker.profile,
            source: Box::new(source),
            repair,
            beyond: !speaker.as_qemu_img,
        };
        // What is found is handed on as it comes, and may be as much as the image has clusters.
        let max_answer = u64::MAX;
        let disks = io.for_all(disks);
        let command = Command { disks, references, max_answer, ..common::command(Op::Check, &request)? };
        let output = Output::of(&self.output);
        let human = output == Output::Human && !self.quiet;
        let finished = terms.launch(command, name, &mut |part, _| match part {
            Part::Check(CheckPart::Lines(lines)) => {
                report::complain(&report::check::lines(&lines));
                Ok(())
            }
            Part::Check(CheckPart::NamedLines(lines)) => {
                report::complain(&report::check::named_lines(&lines, speaker));
                Ok(())
            }
            Part::Check(CheckPart::Repaired(repaired)) if human => {
                report::say(&report::check::repaired(repaired))
            }
            Part::Check(CheckPart::Repaired(_)) => Ok(()),
            _ => Err(Error::from(StreamError::Operation)),
        })?;
        let Answer::Check(answer) = &finished.answer else { return Err(common::another_operation()) };
        let Some(findings) = answer.findings else {
            let failure = Failure::new(ErrorKind::Unsupported, "This image format does not support checks");
            report::complain(&failure.render(speaker));
            finished.leave_standing();
            return Ok(ExitCode::from(NO_CHECK));
        };
        if !self.quiet {
            report::print(&match output {
                Output::Json => report::check::json(name, &answer.format, &findings),
                Output::Human => report::check::human(&findings),
            })?;
        }
        finished.leave_standing();
        exit_code(&findings)
    }
}

/// How long a file of `length` bytes may become by being repaired: new refcounts are a 64th of it at most.
fn room(length: u64) -> u64 {
    const LEAST: u64 = 64 << 20;
    length.saturating_add(length / 32).saturating_add(LEAST)
}

/// Of the bytes that a file stores, one in so many is metadata that a check reads, more or less.
const METADATA_SHARE: u64 = 1024;

fn exit_code(findings: &CheckFindings) -> Result<ExitCode, Failure> {
    match findings {
        CheckFindings { check_errors: 1.., .. } => Err(Failure::new(ErrorKind::Corrupt, "Check failed")),
        CheckFindings { corruptions: 1.., .. } => Ok(ExitCode::from(CORRUPT)),
        CheckFindings { leaks: 1.., .. } => Ok(ExitCode::from(LEAKY)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
