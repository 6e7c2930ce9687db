//! `-o help`: what the list of a format's options can have in it.

use std::ffi::OsStr;

use protocol::{Answer, Op, OptionsRequest};

use super::common::{self, Terms};
use crate::{
    launch,
    report::{self, Failure},
};

/// Prints the options of the format `target`, which only the guest knows.
pub fn print(target: &str, terms: Terms) -> Result<(), Failure> {
    let request = OptionsRequest { profile: terms.speaker.profile, target_format: target.to_owned() };
    let command = common::command(Op::Options, &request)?;
    let finished = terms.launch(command, OsStr::new(""), &mut launch::no_parts)?;
    let Answer::Options(answer) = &finished.answer else { return Err(common::another_operation()) };
    let printed = report::print(&report::options::human(answer));
    finished.leave_standing();
    printed
}
