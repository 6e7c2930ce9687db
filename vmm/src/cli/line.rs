//! Reading the command line behind a subcommand's name: what all of them do alike.

use std::{
    ffi::{OsStr, OsString},
    time::Instant,
};

use argh::{ArgsInfo, FromArgs};
use protocol::QemuVersion;

use super::{
    argv::{ArgvError, Exception, Item, Reader, Table},
    common::{self, Memory, Seconds, Terms},
    secret::Secrets,
};
use crate::report::{self, Failure, Speaker, escape};

/// What all commands' option tables have in common: the options qemu-img does not know.
const OWN: [Exception; 5] = [
    Exception::Own("allow-references"),
    Exception::Own("timeout"),
    Exception::Own("memory"),
    Exception::Own("qemu-version"),
    Exception::Own("no-sandbox"),
];

/// A subcommand: its options, of which argh knows the names and the help.
pub trait Subcommand: FromArgs + ArgsInfo {
    /// Its name.
    const NAME: &'static str;

    /// Whether getopt itself complains about its options in all releases. Before 10.0 other commands had words of their
    /// own for that.
    const GETOPT_SPEAKS: bool = false;

    /// What the option table cannot say, of the options that not all commands have.
    fn exceptions(_: Speaker) -> Vec<Exception> {
        Vec::new()
    }

    /// The exit code where an `--object` is wrong.
    fn bad_object(_: QemuVersion) -> u8 {
        1
    }

    /// What its own options say of the terms on which it runs.
    fn own(&self) -> Own<'_>;
}

/// The options of instar's that say on which terms a command runs, as they were given.
pub struct Own<'a> {
    /// `--timeout`
    pub timeout: &'a [Seconds],
    /// `--memory`
    pub memory: &'a [Memory],
    /// `--no-sandbox`
    pub no_sandbox: bool,
}

/// A command line that was read.
pub struct Line<'a, T> {
    /// The options.
    pub options: T,
    /// What stood beside them.
    pub operands: Vec<&'a OsStr>,
    /// What `--object` gave.
    pub secrets: Secrets,
    /// On which terms the command runs.
    pub terms: Terms,
}

impl<T: Subcommand> Line<'_, T> {
    /// A complaint about the operands, which points to help: before 10.0 to the program's.
    pub fn wrong_operands(&self, message: impl AsRef<str>) -> Failure {
        let old = self.terms.speaker.profile < QemuVersion::V10_0;
        Failure::usage(message).try_help(if old { "" } else { T::NAME })
    }

    /// The only operand.
    pub fn only_name(&self) -> Result<&OsStr, Failure> {
        match *self.operands {
            [name] => Ok(name),
            _ => Err(self.wrong_operands("Expecting one image file name")),
        }
    }
}

/// Reads `arguments` and tells `speaker` the profile that they ask for. `check` is what `qemu-img` checks about an option
/// when it comes to it, before the options behind it. Nothing comes of a line that asks for help, which is printed.
pub fn read<'a, T: Subcommand>(
    speaker: &mut Speaker,
    arguments: &'a [OsString],
    mut check: impl FnMut(&Item, Speaker) -> Result<(), Failure>,
) -> Result<Option<Line<'a, T>>, Failure> {
    let started = Instant::now();
    if let Some(profile) = profile_of::<T>(*speaker, arguments)? {
        speaker.profile = profile;
    }
    let speaker = *speaker;
    let table = table_of::<T>(speaker);
    let mut reader = Reader::new(&table, arguments);
    let mut secrets = Secrets::default();
    for item in reader.by_ref() {
        let item = item.map_err(|error| grammar::<T>(&error, speaker.profile))?;
        match item.option {
            "help" => {
                report::print(&super::help::<T>(speaker, Some(T::NAME)))?;
                return Ok(None);
            }
            "object" => secrets
                .add(&item.value, speaker.profile)
                .map_err(|failure| failure.exits_with(T::bad_object(speaker.profile)))?,
            _ => check(&item, speaker)?,
        }
    }
    let options = T::from_args(&[speaker.name(), T::NAME], &reader.canonical())
        .map_err(|exit| Failure::usage(escape(exit.output.trim_end())))?;
    let Own { timeout, memory, no_sandbox } = options.own();
    let timeout = common::value(timeout, "INSTAR_TIMEOUT", common::DEFAULT_TIMEOUT)?;
    let memory = common::value(memory, "INSTAR_MEMORY", common::DEFAULT_MEMORY)?;
    let terms = Terms { speaker, started, timeout, memory, no_sandbox };
    Ok(Some(Line { options, operands: reader.operands().to_vec(), secrets, terms }))
}

fn table_of<T: Subcommand>(speaker: Speaker) -> Table {
    let exceptions: Vec<_> = OWN.into_iter().chain(T::exceptions(speaker)).collect();
    Table::of::<T>(&exceptions, speaker.profile)
}

/// The profile a command line asks for. It decides how the line is read, so it is looked for first, in the newest
/// version's grammar and past all errors.
fn profile_of<T: Subcommand>(
    speaker: Speaker,
    arguments: &[OsString],
) -> Result<Option<QemuVersion>, Failure> {
    let table = table_of::<T>(Speaker { profile: QemuVersion::default(), ..speaker });
    let asked = Reader::new(&table, arguments).flatten().filter(|item| item.option == "qemu-version").last();
    asked.map_or(Ok(None), |item| {
        item.value.parse().map(Some).map_err(|why: &str| {
            Failure::usage(format!("Invalid --qemu-version '{}': {why}", escape(&item.value)))
        })
    })
}

/// The complaint about what is no option.
fn grammar<T: Subcommand>(error: &ArgvError, profile: QemuVersion) -> Failure {
    if T::GETOPT_SPEAKS || profile >= QemuVersion::V10_0 {
        return Failure::grammar(T::NAME, error.to_string());
    }
    Failure::usage(escape(&match error {
        ArgvError::Unrecognized(given)
        | ArgvError::Ambiguous { given, .. }
        | ArgvError::ValueOfSwitch { given, .. } => format!("unrecognized option '{given}'"),
        ArgvError::Invalid(letter) => format!("unrecognized option '-{letter}'"),
        ArgvError::LongLacksValue(name) => format!("missing argument for option '--{name}'"),
        ArgvError::ShortLacksValue(letter) => format!("missing argument for option '-{letter}'"),
        ArgvError::Encoding(_) => error.to_string(),
    }))
    .try_help("")
}
