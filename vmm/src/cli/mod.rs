//! The command line: who was called (`instar` or `qemu-img`), which command, with which options.
//!
//! A subcommand is a file here: its argh struct, the checks that need no image, and the command it makes of them.
//! What is said about formats and their options is the guest's to check; nothing here knows one.

mod argv;
mod check;
mod common;
mod compare;
mod convert;
mod create;
mod dd;
mod image;
mod image_opts;
mod info;
mod inspect;
mod line;
mod map;
mod measure;
mod option_help;
mod output;
mod secret;
mod snapshot;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use argh::{ArgsInfo, EarlyExit, FromArgs};
use protocol::QemuVersion;

use crate::report::{self, Failure, Speaker, escape_name};

#[derive(FromArgs, ArgsInfo)]
#[argh(
    description = "Measures untrusted disk images as qemu-img does. No byte of an image is interpreted by\nthis process: each command runs in a virtual machine of its own, which can reach\nnothing but the files named.",
    name = "instar",
    help_triggers("-h", "--help"),
    usage = "[-V] COMMAND [OPTIONS]",
    note = "COMMAND --help tells about one command.",
    note = "Called under the name qemu-img, by a link, the program speaks under that name and",
    note = "prints nothing of its own."
)]
struct Program {
    /// print the version and the qemu-img release whose behaviour is followed
    #[argh(switch, short = 'V')]
    #[expect(dead_code, reason = "read through the option table")]
    version: bool,

    #[argh(subcommand)]
    #[expect(dead_code, reason = "read through the option table")]
    command: Subcommand,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
#[expect(dead_code, reason = "the list of commands for help; each reads its own command line")]
enum Subcommand {
    Check(check::Check),
    Compare(compare::Compare),
    Convert(convert::Convert),
    Create(create::Create),
    Dd(dd::Dd),
    Info(info::Info),
    Inspect(inspect::Inspect),
    Map(map::Map),
    Measure(measure::Measure),
}

/// The program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let called = arguments.next().unwrap_or_default();
    let as_qemu_img = Path::new(&called).file_name().is_some_and(|name| name == "qemu-img");
    let mut speaker = Speaker { as_qemu_img, profile: QemuVersion::default() };
    match run(&mut speaker, &arguments.collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(failure) => {
            report::complain(&failure.render(speaker));
            failure.exit_code()
        }
    }
}

/// Reads what stands in front of the command and hands it the rest; answers the exit code.
fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    if let Some(profile) = common::profile_of_environment()? {
        speaker.profile = profile;
    }
    let table = argv::Table::of::<Program>(&[], speaker.profile);
    let mut reader = argv::Reader::new(&table, arguments).stop_at_operand();
    if let Some(item) = reader.next() {
        let item = item.map_err(|error| Failure::grammar("", error.to_string()))?;
        return done(report::print(&match item.option {
            "version" => version(*speaker),
            _ => help::<Program>(*speaker, None),
        }));
    }
    let Some(&command) = reader.operands().first() else {
        return Err(Failure::usage("Not enough arguments").try_help(""));
    };
    // `--` ends the options: what stands behind the command then was read as operands, too.
    let behind = if reader.rest().is_empty() { reader.operands().len() - 1 } else { reader.rest().len() };
    let rest = &arguments[arguments.len() - behind..];
    match command.to_str() {
        Some(check::NAME) => check::run(speaker, rest),
        Some(compare::NAME) => compare::run(speaker, rest),
        Some(create::NAME) => done(create::run(speaker, rest)),
        Some(dd::NAME) => done(dd::run(speaker, rest)),
        Some(convert::NAME) => done(convert::run(speaker, rest)),
        Some(info::NAME) => done(info::run(speaker, rest)),
        // qemu-img has no such command.
        Some(inspect::NAME) if !speaker.as_qemu_img => inspect::run(speaker, rest),
        Some(map::NAME) => done(map::run(speaker, rest)),
        Some(measure::NAME) => done(measure::run(speaker, rest)),
        Some("help") if !speaker.as_qemu_img => done(report::print(&help::<Program>(*speaker, None))),
        _ => Err(Failure::usage(format!("Command not found: {}", escape_name(command))).try_help("")),
    }
}

/// The exit code of a command that succeeds or fails and has no third way.
fn done(result: Result<(), Failure>) -> Result<ExitCode, Failure> {
    result.map(|()| ExitCode::SUCCESS)
}

fn version(speaker: Speaker) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let followed = speaker.profile.name();
    if speaker.as_qemu_img {
        format!("qemu-img version {followed}.0 (instar {own})\n")
    } else {
        format!("instar {own} (follows qemu-img {followed})\n")
    }
}

/// The help text of the program or one of its commands.
fn help<T: FromArgs>(speaker: Speaker, command: Option<&str>) -> String {
    let path: Vec<&str> = std::iter::once(speaker.name()).chain(command).collect();
    match T::from_args(&path, &["--help"]) {
        Err(EarlyExit { output, .. }) => output,
        Ok(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_in_the_help_exists() {
        let mut speaker = Speaker { as_qemu_img: false, profile: QemuVersion::default() };
        for command in Program::get_subcommands() {
            let arguments = [OsString::from(command.name), OsString::from("--no-such-option")];
            let failure = run(&mut speaker, &arguments).unwrap_err();
            assert!(failure.render(speaker).contains("unrecognized option"), "{}", command.name);
        }
    }
}
