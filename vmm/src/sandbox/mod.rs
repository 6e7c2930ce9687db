//! Drops everything the process will not need again, in two steps around the start of its threads:
//!
//! 1. [`Sandbox::restrict`], once every file is open and the machine exists, before another thread is spawned:
//!    `no_new_privs`, Landlock (no path, no network, no signal or abstract socket to anybody else);
//! 2. [`Sandbox::filter_syscalls`], right before the guest runs: resource limits (no further descriptor or thread)
//!    and a seccomp allow-list over all threads.
//!
//! The layers overlap on purpose: each is tested alone, and a kernel that lacks one still has the others. Nothing
//! here knows what a disk image or a virtual machine is.

mod landlock;
mod limits;
mod syscalls;

use std::{io, os::fd::BorrowedFd, sync::Mutex};

use thiserror::Error;

/// What the rest of the run will still do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxOptions {
    /// A file given by the user is written to: no limit on file sizes, writing system calls allowed.
    pub writable: bool,
    /// Files that images name may be opened beneath the directories given to [`Sandbox::restrict`].
    pub references: bool,
    /// Files that are complete get their names in directories given to [`Sandbox::restrict`].
    pub appearing: bool,
    /// Files are made or opened for writing there.
    pub creating: bool,
    /// Files that are opened or made then are taken around the page cache.
    pub direct: bool,
    /// How much more than usual the result may add to a file that it is redirected to, in bytes.
    pub more_output: u64,
    /// Invoked as `qemu-img`: what is printed when a system call is refused speaks under that name.
    pub as_qemu_img: bool,
}

/// What is still to be done beneath a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Files are opened for reading.
    Read,
    /// Files that are open get their names, or lose them.
    Appear,
    /// Files are made, or opened for writing, and get their names.
    Create,
}

/// A directory in which something is still to be done.
#[derive(Clone, Copy, Debug)]
pub struct Beneath<'a>(pub BorrowedFd<'a>, pub Use);

/// How much of a layer is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// All of it.
    Enforced,
    /// What this kernel knows of it.
    Partial,
    /// None of it.
    #[default]
    Missing,
}

/// Which layers are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `no_new_privs`: no file executed later gains privileges.
    pub no_new_privs: Layer,
    /// Landlock: no path, port, foreign signal or abstract socket.
    pub landlock: Layer,
    /// Resource limits.
    pub limits: Layer,
    /// The seccomp allow-list.
    pub seccomp: Layer,
}

/// A layer that the kernel should have taken and did not.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// `PR_SET_NO_NEW_PRIVS` failed.
    #[error("Could not set no_new_privs: {0}")]
    NoNewPrivs(#[source] io::Error),
    /// Landlock exists but refused the rules.
    #[error("Could not apply Landlock rules: {0}")]
    Landlock(#[from] ::landlock::RulesetError),
    /// A resource limit could not be lowered.
    #[error("Could not lower the limit {0}: {1}")]
    Limit(&'static str, #[source] io::Error),
    /// The handler for refused system calls could not be registered.
    #[error("Could not handle SIGSYS: {0}")]
    Handler(#[source] io::Error),
    /// The allow-list could not be compiled.
    #[error("Could not compile the system call filter: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The allow-list could not be installed on every thread.
    #[error("Could not install the system call filter: {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// The process's way into its sandbox. There is no way out.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxOptions,
    status: Mutex<Status>,
}

impl Sandbox {
    /// A sandbox nobody has entered yet.
    pub fn new(options: SandboxOptions) -> Self {
        Self { options, status: Mutex::default() }
    }

    /// Step one: no file can be opened, made or renamed any more but in and beneath `directories`, and there only for what
    /// they are given for. Threads spawned later are as restricted as the calling one.
    pub fn restrict(&self, directories: &[Beneath<'_>]) -> Result<Status, SandboxError> {
        self.note(|status, layer| status.no_new_privs = layer, no_new_privs()?);
        self.note(|status, layer| status.landlock = layer, landlock::restrict(directories)?);
        Ok(self.status())
    }

    /// Step two, for all threads: every descriptor and thread the run needs must exist.
    pub fn filter_syscalls(&self) -> Result<Status, SandboxError> {
        self.note(|status, layer| status.limits = layer, limits::lower(self.options)?);
        self.note(|status, layer| status.seccomp = layer, syscalls::filter(self.options)?);
        Ok(self.status())
    }

    /// The layers in force by now.
    pub fn status(&self) -> Status {
        *self.lock()
    }

    fn note(&self, set: impl FnOnce(&mut Status, Layer), layer: Layer) {
        set(&mut self.lock(), layer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The layers one by one, for tests that hold each of them to its promise alone.
pub mod layers {
    pub use super::{
        landlock::restrict as landlock, limits::lower as limits, no_new_privs, syscalls::filter as seccomp,
    };
}

/// Files executed from here on give no privileges. Landlock and seccomp ask for it.
pub fn no_new_privs() -> Result<Layer, SandboxError> {
    nix::sys::prctl::set_no_new_privs().map_err(|errno| SandboxError::NoNewPrivs(errno.into()))?;
    Ok(Layer::Enforced)
}
