//! Resource limits: what the kernel will not hand out any more.

use std::{
    fs::File,
    io::{self, Seek},
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::MetadataExt,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Layer, SandboxError, SandboxOptions};
use crate::references::MAX_SLOTS;

/// What a result or a message may add to a stdout or stderr that is a regular file: the most a run usually prints.
const OUTPUT: u64 = 256 << 20;

/// Descriptors of a run that opens referenced files: two a slot, and what was open before.
const REFERENCED: u64 = 2 * MAX_SLOTS as u64 + 64;

/// Lowers hard and soft limits; a limit that is lower already stays.
pub fn lower(options: SandboxOptions) -> Result<Layer, SandboxError> {
    // No core file: it would hold the image's content and the guest's memory.
    lower_one("RLIMIT_CORE", Resource::RLIMIT_CORE, 0)?;
    // No locked memory, no message queues: nothing here uses them.
    lower_one("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK, 0)?;
    lower_one("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE, 0)?;
    // No file grows, but for output redirected to one.
    if !options.writable {
        lower_one("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE, output_size(options.more_output))?;
    }
    // No thread or process beyond those that exist (root is exempt from this one; the system call filter is not).
    lower_one("RLIMIT_NPROC", Resource::RLIMIT_NPROC, 0)?;
    // No further descriptor but for referenced files; open ones are not affected. Last, because the steps above may
    // need one.
    let opens = options.references || options.creating;
    let descriptors = if opens { REFERENCED } else { 0 };
    lower_one("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE, descriptors)?;
    Ok(Layer::Enforced)
}

fn lower_one(name: &'static str, resource: Resource, value: u64) -> Result<(), SandboxError> {
    let failed = |errno: nix::Error| SandboxError::Limit(name, errno.into());
    let (_, hard) = getrlimit(resource).map_err(failed)?;
    let value = value.min(hard);
    setrlimit(resource, value, value).map_err(failed)
}

/// How long a file may get that stdout or stderr goes to; zero when neither is a regular file.
fn output_size(more: u64) -> u64 {
    let (out, err) = (io::stdout(), io::stderr());
    [out.as_fd(), err.as_fd()]
        .into_iter()
        .filter_map(length_if_regular)
        .max()
        .map_or(0, |end| end.saturating_add(OUTPUT).saturating_add(more))
}

fn length_if_regular(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut file = File::from(fd.try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    let position = file.stream_position().unwrap_or(0);
    metadata.is_file().then(|| metadata.size().max(position))
}
