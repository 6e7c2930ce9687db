//! `-o help`: what the list of a format's options can have in it.

use protocol::{Answer, Op, OptionsRequest};

use super::common;
use crate::{
    error::Error,
    launch::{Command, Cpu, DeviceStart, IoMode, Limits},
    records::StreamError,
    references::References,
    report::{self, Failure, Speaker},
};

/// Prints the options of the format `target`, which only the guest knows.
pub fn print(target: &str, limits: &Limits, no_sandbox: bool, speaker: Speaker) -> Result<(), Failure> {
    let request = OptionsRequest { profile: speaker.profile, target_format: target.to_owned() };
    let payload = serde_json::to_vec(&request)
        .map_err(|error| Failure::usage(format!("Could not encode the command: {error}")))?;
    let (io, start) = (IoMode::Inline, DeviceStart::HandedOver);
    let (cpu, references) = (Cpu::Baseline, References::denied());
    let command = Command { op: Op::Options, payload, disks: Vec::new(), io, start, cpu, references };
    let finished = common::launch(command, limits, no_sandbox, speaker).map_err(|error| match error {
        Error::Guest(record) => Failure::new(record.kind, record.message).field(record.field),
        error => error.into(),
    })?;
    let Answer::Options(answer) = &finished.answer else {
        return Err(Error::Stream(StreamError::Operation).into());
    };
    let printed = report::print(&report::options::human(answer));
    finished.leave_standing();
    printed
}
