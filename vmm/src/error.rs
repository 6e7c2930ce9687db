//! Why a command has no answer: a stable kind, one clear line.

use std::{borrow::Cow, io, time::Duration};

use protocol::{ErrorKind, ErrorRecord};
use thiserror::Error;

use crate::{
    devices::DeviceError, machine::MachineError, records::StreamError, report::reason, sandbox::SandboxError,
};

/// A command that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The guest says why, typed: a broken image, a wrong option.
    #[error("{0}")]
    Guest(ErrorRecord),
    /// No machine could be built.
    #[error("{0}")]
    Machine(#[from] MachineError),
    /// The sandbox could not be entered.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// The thread that does the I/O could not be started.
    #[error("Could not start the I/O thread: {0}")]
    EventLoop(io::Error),
    /// The guest broke a rule of its processor; it may have been taken over by the image.
    #[error("The guest was stopped: {reason} at {place}")]
    GuestFault {
        /// What KVM said.
        reason: Cow<'static, str>,
        /// Address of the instruction, 0 where the processor does not tell.
        rip: u64,
        /// Function and address, as far as known.
        place: String,
    },
    /// The guest panicked, and said where.
    #[error("The guest panicked: {0}")]
    GuestPanic(String),
    /// The guest drove a virtio device against the specification.
    #[error("The guest was stopped: misuse of a virtio device: {0}")]
    Device(#[from] DeviceError),
    /// The guest sent something that is no valid stream of records.
    #[error("The guest was stopped: invalid answer: {0}")]
    Stream(#[from] StreamError),
    /// The answer could not be printed.
    #[error("Could not write to standard output: {}", reason(.0))]
    Output(io::Error),
    /// A file could not be made as long as it should be.
    #[error("Could not resize the image: {}", reason(.0))]
    Resize(io::Error),
    /// The deadline passed.
    #[error("The command did not finish within {} seconds (see --timeout)", .0.as_secs_f64())]
    Timeout(Duration),
}

impl Error {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Guest(record) => record.kind,
            Self::Machine(MachineError::MemorySize { .. }) => ErrorKind::Usage,
            Self::Machine(MachineError::Memory { .. }) => ErrorKind::Limit,
            Self::Machine(MachineError::Image(_)) => ErrorKind::InvalidFormat,
            Self::Resize(error) if error.kind() == io::ErrorKind::FileTooLarge => ErrorKind::Limit,
            Self::Machine(_) | Self::Sandbox(_) | Self::EventLoop(_) | Self::Output(_) | Self::Resize(_) => {
                ErrorKind::Io
            }
            Self::GuestFault { .. } | Self::GuestPanic(_) | Self::Device(_) | Self::Stream(_) => {
                ErrorKind::GuestFault
            }
            Self::Timeout(_) => ErrorKind::Timeout,
        }
    }
}
