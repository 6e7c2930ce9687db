//! Where an operation gets its files from: the disks of the machine, or memory in a test.

use alloc::format;

use formats::Storage;
use protocol::{ErrorKind, ErrorRecord, FileFacts, Need};

use crate::options::Quoted;

/// The files of a command.
pub trait Files {
    /// A file's bytes.
    type Storage: Storage;

    /// A file that the command or a reply to a need tells of.
    fn open(&mut self, facts: &FileFacts) -> Result<Self::Storage, ErrorRecord>;

    /// Asks for a file that an image names.
    fn need(&mut self, need: &Need) -> Result<FileFacts, ErrorRecord>;
}

/// Files opened by a function, for a command whose images must stand alone: what they name is refused.
pub struct Standalone<F>(pub F);

impl<S: Storage, F: FnMut(&FileFacts) -> Result<S, ErrorRecord>> Files for Standalone<F> {
    type Storage = S;

    fn open(&mut self, facts: &FileFacts) -> Result<S, ErrorRecord> {
        self.0(facts)
    }

    fn need(&mut self, need: &Need) -> Result<FileFacts, ErrorRecord> {
        let (role, name) = (need.role.name(), Quoted(need.name.as_bytes()));
        let message = format!("{role} '{name}' is a reference to another file and was not followed");
        Err(ErrorRecord::new(ErrorKind::ReferenceDenied, message))
    }
}
