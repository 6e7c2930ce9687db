//! How far a command has come, told while it goes on.

use std::io::{self, Write};

use protocol::Progress;

use super::{Failure, escape};
use crate::error::Error;

/// Where it is told, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Nowhere.
    #[default]
    No,
    /// On stdout, a line that is written over (`-p`).
    Text,
    /// On stderr, a JSON object a line.
    Json,
}

impl Shown {
    /// What is attached to `--progress`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => {
                Err(Failure::usage(format!("--progress expects nothing or =json, not '{}'", escape(other))))
            }
        }
    }

    /// Whether nothing is told.
    pub fn is_nothing(self) -> bool {
        self == Self::No
    }

    /// Tells that it begins.
    pub fn begin(self) -> Result<(), Error> {
        self.tell(Progress { hundredths: 0 })
    }

    /// Tells that all is done.
    pub fn complete(self) -> Result<(), Error> {
        self.tell(Progress { hundredths: 10_000 })
    }

    /// Tells how far it has come.
    pub fn tell(self, progress: Progress) -> Result<(), Error> {
        let Progress { hundredths } = progress;
        let percent = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        match self {
            Self::No => Ok(()),
            Self::Text => write(&format!("    ({percent}/100%)\r")),
            Self::Json => {
                super::complain(&format!("{{\"percent\": {percent}}}\n"));
                Ok(())
            }
        }
    }

    /// Ends the line.
    pub fn end(self) -> Result<(), Error> {
        if self == Self::Text { write("\n") } else { Ok(()) }
    }
}

/// Writes to stdout at once.
pub fn write(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}
