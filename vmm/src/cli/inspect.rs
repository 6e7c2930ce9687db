//! `inspect`: whether an image that nobody should trust is safe to use. Not one of qemu-img's commands.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
    str::FromStr,
};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, Code, ErrorKind, ImageSource, InspectPart, InspectRequest, Op, Part, QemuVersion, Weight,
};

use super::{
    common::{self, Memory, Seconds, Terms},
    image::{How, Image},
    line::{self, Own, Subcommand},
    output::Output,
};
use crate::{
    launch::{Command, IoMode},
    records::StreamError,
    references::References,
    report::{self, Failure, Speaker, escape, inspect::Inspection},
    verdict::{MAX_VIRTUAL_SIZE, Policy},
};

/// The command's name.
pub const NAME: &str = "inspect";

/// Exit code for an image that is refused.
const REFUSED: u8 = 1;
/// Exit code where there is no verdict.
const FAILED: u8 = 2;

/// Say whether the image FILE, which nobody should trust, is safe to use.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "inspect",
    help_triggers("-h", "--help"),
    usage = "[-f FMT] [--require-format FMT[,FMT...]] [--max-virtual-size SIZE]\n    [--max-file-size SIZE] [--allow-encrypted] [--allow CODE[,CODE...]] [-U]\n    [--output human|json] [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y]\n    [--no-sandbox] FILE",
    note = "Nothing that FILE names is opened. The verdict is safe or refuse; the codes of reasons are",
    note = "stable and stand in docs/inspect.md, with what lifts each.",
    note = "The exit code is 0 if FILE is safe, 1 if it is refused, and 2 if there is no verdict."
)]
pub struct Inspect {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// refuse all formats but these; may be given several times (default: any)
    #[argh(option, arg_name = "FMT[,FMT...]")]
    require_format: Vec<String>,

    /// refuse longer disks (default: 64T)
    #[argh(option, arg_name = "SIZE")]
    max_virtual_size: Vec<Size>,

    /// refuse longer files (default: any length)
    #[argh(option, arg_name = "SIZE")]
    max_file_size: Vec<Size>,

    /// take encrypted images: --allow encrypted
    #[argh(switch)]
    allow_encrypted: bool,

    /// note what has one of these codes instead of refusing for it, as in backing-file,data-file; may be given several times
    #[argh(option, arg_name = "CODE[,CODE...]")]
    allow: Vec<String>,

    /// read FILE even while another process writes to it
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// human or json (default: human)
    #[argh(option, arg_name = "human|json")]
    output: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60)
    #[argh(option, arg_name = "SECONDS")]
    timeout: Vec<Seconds>,

    /// memory of the virtual machine, 16M to 3070M (default: 64M)
    #[argh(option, arg_name = "SIZE")]
    memory: Vec<Memory>,

    /// speak in the words of this release of qemu-img: 5.2, 7.2, 8.0, 10.0 or 11.1 (default: 11.1)
    #[argh(option, arg_name = "X.Y")]
    #[expect(dead_code, reason = "looked for before the line is read")]
    qemu_version: Vec<QemuVersion>,

    /// run without the sandbox around the virtual machine
    #[argh(switch)]
    no_sandbox: bool,
}

/// A number of bytes, with qemu-img's suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(u64);

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match protocol::size::parse(text, QemuVersion::default()) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err("expected a size, as in 10G"),
        }
    }
}

impl Subcommand for Inspect {
    const NAME: &'static str = NAME;

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `inspect` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    inspect(speaker, arguments).map_err(|failure| failure.exits_with(FAILED))
}

fn inspect(speaker: &mut Speaker, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let line = line::read::<Inspect>(speaker, arguments, |item, speaker| match item.option {
        "output" => Output::check(&item.value, NAME, speaker.profile),
        _ => Ok(()),
    })?;
    let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
    let policy = line.options.policy()?;
    let inspection = line.options.look(line.only_name()?, line.terms, &policy)?;
    Ok(if inspection.verdict.is_safe() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

impl Inspect {
    fn policy(&self) -> Result<Policy, Failure> {
        let words = |lists: &[String]| -> Vec<String> {
            lists.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect()
        };
        let mut allowed = words(&self.allow).iter().map(|name| code(name)).collect::<Result<Vec<_>, _>>()?;
        if self.allow_encrypted {
            allowed.push(Code::Encrypted);
        }
        Ok(Policy {
            formats: words(&self.require_format),
            max_virtual_size: self.max_virtual_size.last().map_or(MAX_VIRTUAL_SIZE, |size| size.0),
            max_file_size: self.max_file_size.last().map(|size| size.0),
            allowed,
        })
    }

    /// Opens the image, asks the guest about it and prints the verdict.
    fn look(&self, name: &OsStr, terms: Terms, policy: &Policy) -> Result<Inspection, Failure> {
        let how = How {
            format: self.format.last().map(String::as_str),
            force_share: self.force_share,
            extents: true,
            ..How::on(&terms)
        };
        let Image { source, disks, files, name: shown, .. } = Image::open(name, how)?;
        if !is_plain(&source) {
            let message = "A file can be inspected, not what a description makes of it";
            return Err(Failure::usage(message));
        }
        let length = source.file.length;
        let io = IoMode::for_reading(files.iter().map(|file| file.size.1).sum());
        let request = InspectRequest { profile: terms.speaker.profile, source: Box::new(source) };
        let command = Command { disks: io.for_all(disks), ..common::command(Op::Inspect, &request)? };
        let mut references = Vec::new();
        let mut consume = |part, _: &References| match part {
            Part::Inspect(InspectPart::References(more)) => {
                references.extend(more);
                Ok(())
            }
            _ => Err(StreamError::Operation.into()),
        };
        let finished = terms.launch(command, name, &mut consume)?;
        let Answer::Inspect(answer) = &finished.answer else { return Err(common::another_operation()) };
        let verdict = policy.judge(answer, length);
        if answer.image.is_none() && verdict.is_safe() {
            let message = "The guest did not open the image and does not say why";
            return Err(Failure::new(ErrorKind::GuestFault, message));
        }
        let inspection = Inspection { name: shown, length, answer: (**answer).clone(), references, verdict };
        let printed = report::print(&match Output::of(&self.output) {
            Output::Json => inspection.json(),
            Output::Human => inspection.human(),
        });
        finished.leave_standing();
        printed.map(|()| inspection)
    }
}

/// The code of this name, if it can be allowed.
fn code(name: &str) -> Result<Code, Failure> {
    match Code::from_name(name).map(|code| (code, code.weight())) {
        Some((code, Weight::Allowable)) => Ok(code),
        Some(_) => Err(Failure::usage(format!("'{name}' cannot be allowed"))),
        None => Err(Failure::usage(format!("Unknown code '{}' (--allow)", escape(name)))),
    }
}

/// Whether nothing is said of an image but its file and its format.
fn is_plain(source: &ImageSource) -> bool {
    *source == ImageSource::new(source.file.clone(), source.format.clone())
}
