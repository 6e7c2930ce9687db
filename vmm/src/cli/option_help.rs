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
    print_for(target, false, terms)
}

/// As [`print`], as if for a file that has a name.
pub fn print_for(target: &str, named: bool, terms: Terms) -> Result<(), Failure> {
    let request = OptionsRequest { profile: terms.speaker.profile, target_format: target.to_owned() };
    let command = common::command(Op::Options, &request)?;
    let finished = terms.launch(command, OsStr::new(""), &mut launch::no_parts)?;
    let Answer::Options(answer) = &finished.answer else { return Err(common::another_operation()) };
    let printed = report::print(&report::options::human(answer, named));
    finished.leave_standing();
    printed
}
