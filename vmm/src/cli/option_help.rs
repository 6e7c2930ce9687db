//! `-o help`: what the list of a format's options can have in it.

use std::ffi::OsStr;

use protocol::{Answer, Op, OptionsRequest};

use super::common::{self, Terms};
use crate::{
    launch::{Command, Cpu, DeviceStart, IoMode},
    references::References,
    report::{self, Failure},
};

/// Prints the options of the format `target`, which only the guest knows.
pub fn print(target: &str, terms: Terms) -> Result<(), Failure> {
    let request = OptionsRequest { profile: terms.speaker.profile, target_format: target.to_owned() };
    let payload = serde_json::to_vec(&request)
        .map_err(|error| Failure::usage(format!("Could not encode the command: {error}")))?;
    let (io, start) = (IoMode::Inline, DeviceStart::HandedOver);
    let (cpu, references) = (Cpu::Baseline, References::denied());
    let command = Command { op: Op::Options, payload, disks: Vec::new(), io, start, cpu, references };
    let finished = terms.launch(command, OsStr::new(""))?;
    let Answer::Options(answer) = &finished.answer else { return Err(common::another_operation()) };
    let printed = report::print(&report::options::human(answer));
    finished.leave_standing();
    printed
}
