//! What was found so far.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    vec::Vec,
};

use formats::{Error, ErrorKind};
use protocol::{Code, Finding, MAX_FINDINGS};

use crate::{options::Quoted, source};

/// Longest message in bytes.
const MESSAGE_MAX: usize = 512;

/// Findings, none of them twice.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds what is odd about `field`, unless that was said before.
    pub fn add(&mut self, code: Code, field: &str, message: impl AsRef<str>) {
        let is_new = self.0.iter().all(|old| (old.code, old.field.as_deref()) != (code, Some(field)));
        if is_new && self.0.len() < MAX_FINDINGS {
            let message = bounded(message.as_ref());
            self.0.push(Finding { code, field: Some(field.to_owned()), message });
        }
    }

    /// Adds what `formats` found wrong with an image. What is not the image's fault comes back; that a key or another
    /// file is missing is told elsewhere.
    pub fn error(&mut self, error: Error) -> Result<(), Error> {
        match (error.kind, Code::of_error(source::kind(error.kind))) {
            (_, Some(code)) => self.add(code, error.field, &error.message),
            (ErrorKind::Key | ErrorKind::ReferenceDenied, None) => {}
            (_, None) => return Err(error),
        }
        Ok(())
    }

    /// All of them, in the order in which they were found.
    pub fn into_list(self) -> Vec<Finding> {
        self.0
    }
}

/// A message that may have what an image says in it, as a line of bounded length.
fn bounded(message: &str) -> String {
    let mut line = Quoted(message.as_bytes()).to_string();
    if line.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
        line.truncate(end);
        line.push_str("...");
    }
    line
}
