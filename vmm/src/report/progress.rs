//! How far a command has come, told while it goes on.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering},
};

use protocol::{Pace, Progress};
use vmm_sys_util::signal::register_signal_handler;

use super::{Failure, Speaker, bar, escape};
use crate::error::Error;

/// Where it is told, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// On stderr, when `SIGUSR1` asks for it.
    #[default]
    Asked,
    /// On stdout, a line that is written over (`-p`).
    Text,
    /// On stderr, a JSON object a line.
    Json,
    /// On stderr, a bar.
    Bar,
    /// Nowhere.
    No,
}

/// Whether somebody wants to know.
static ASKED: AtomicBool = AtomicBool::new(false);

impl Shown {
    /// What is attached to `--progress`. Without it a person in front of a terminal gets a bar, and everybody else what
    /// `qemu-img` prints.
    pub fn parse(text: &str, speaker: Speaker) -> Result<Self, Failure> {
        let is_seen = || io::stderr().is_terminal() && bar::can_be_drawn();
        match text {
            "" if !speaker.as_qemu_img && io::stdout().is_terminal() && is_seen() => Ok(Self::Bar),
            "" | "text" => Ok(Self::Text),
            "bar" if is_seen() => Ok(Self::Bar),
            "bar" => Ok(Self::No),
            "json" => Ok(Self::Json),
            other => {
                let other = escape(other);
                Err(Failure::usage(format!("--progress expects =bar, =json or =text, not '{other}'")))
            }
        }
    }

    /// How often the guest is to tell it.
    pub fn pace(self) -> Pace {
        if self == Self::Bar { Pace::Fine } else { Pace::QemuImg }
    }

    /// Gets ready, before the sandbox is entered.
    pub fn prepare(self) -> Result<(), Failure> {
        if self == Self::Bar {
            bar::start();
        }
        mind_requests()
    }

    /// Tells that it begins.
    pub fn begin(self) -> Result<(), Error> {
        self.tell(Progress::default())
    }

    /// Tells how far it has come.
    pub fn tell(self, progress: Progress) -> Result<(), Error> {
        let percent = format!("{}.{:02}", progress.hundredths / 100, progress.hundredths % 100);
        match self {
            Self::Asked if ASKED.swap(false, Ordering::Relaxed) => {
                super::complain(&format!("    ({percent}/100%)\n"));
            }
            Self::Asked | Self::No => {}
            Self::Text => super::say(&format!("    ({percent}/100%)\r"))?,
            Self::Json => super::complain(&format!("{{\"percent\": {percent}}}\n")),
            Self::Bar => bar::tell(progress),
        }
        Ok(())
    }

    /// Tells that all is done.
    pub fn complete(self) -> Result<(), Error> {
        match self {
            Self::Bar => bar::end(true),
            _ => self.tell(Progress { hundredths: 10_000, ..Progress::default() })?,
        }
        Ok(())
    }

    /// Ends the line.
    pub fn end(self) -> Result<(), Error> {
        match self {
            Self::Text => super::say("\n")?,
            Self::Bar => bar::end(false),
            Self::Asked | Self::Json | Self::No => {}
        }
        Ok(())
    }
}

/// Makes `SIGUSR1` a question how far the command has come, as it is to `qemu-img`, in place of its end. Commands that tell
/// nothing do not answer.
pub fn mind_requests() -> Result<(), Failure> {
    extern "C" fn ask(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        ASKED.store(true, Ordering::Relaxed);
    }
    register_signal_handler(libc::SIGUSR1, ask)
        .map_err(|error| Failure::from(Error::EventLoop(io::Error::from(error))))
}
