//! What the program prints: results on stdout, failures on stderr, in qemu-img's shapes.
//!
//! Nothing here decides anything; it turns typed values into text.

pub mod bar;
pub mod check;
mod escape;
mod failure;
pub mod info;
pub mod inspect;
pub mod map;
pub mod measure;
pub mod options;
pub mod progress;
mod size_text;
mod stdout;
mod tree;

use std::io::{self, Write};

pub use escape::{escape, escape_name};
pub use failure::{Failure, Speaker};
pub use stdout::Stdout;

use crate::error::Error;

/// Writes a result to stdout, all of it or a failure.
pub fn print(text: &str) -> Result<(), Failure> {
    say(text).map_err(Failure::from)
}

/// Writes what is known of a result to stdout while the command goes on.
pub fn say(text: &str) -> Result<(), Error> {
    bar::aside(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
    })
}

/// Writes to stderr. That may fail, and then there is nobody left to tell.
pub fn complain(text: &str) {
    let _ = bar::aside(|| io::stderr().lock().write_all(text.as_bytes()));
}

/// The system's words for an error, without the number std adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
