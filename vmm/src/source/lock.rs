//! The byte-range locks by which QEMU's processes tell each other how they use an image (`block/file-posix.c`).
//!
//! A process that needs a permission holds a shared lock on byte `100 + permission`; one that cannot bear others to
//! have a permission holds one on `200 + permission`. Both are open-file-description locks: they end with the file.

use std::fs::File;

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use thiserror::Error;

const NEEDED: i64 = 100;
const UNSHARED: i64 = 200;

/// QEMU's permissions on a block node, as far as they matter to a program that is not a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    ConsistentRead = 0,
    Write = 1,
    Resize = 3,
}

impl Permission {
    fn name(self) -> &'static str {
        match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::Resize => "resize",
        }
    }
}

/// What is known of an image's format: a raw image may be written to while it is read, any other may not, because
/// its tables would change underneath the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The user said it is raw.
    Raw,
    /// The user said it is another, or did not say.
    Structured,
}

/// Somebody else's use of the file rules ours out.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Conflict {
    /// Somebody does not want it to be read.
    #[error("Failed to get \"{0}\" lock")]
    Needed(&'static str),
    /// Somebody changes it.
    #[error("Failed to get shared \"{0}\" lock")]
    Shared(&'static str),
    /// Somebody has locked the bytes for locks themselves.
    #[error("Failed to lock byte {0}")]
    Byte(i64),
}

/// What is done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It is read.
    Read,
    /// It is read and written, and may become longer or shorter.
    Write,
    /// It is made anew; what is in it does not count.
    Create,
}

/// Takes the locks of a program that uses the file so, and checks that nobody's use of the file conflicts. A file system
/// without such locks has none to respect, as for QEMU's `locking=auto`.
pub fn take(file: &File, format: Format, usage: Usage) -> Result<(), Conflict> {
    let needed: &[Permission] = match usage {
        Usage::Read => &[Permission::ConsistentRead],
        Usage::Write => &[Permission::ConsistentRead, Permission::Write, Permission::Resize],
        Usage::Create => &[Permission::Write, Permission::Resize],
    };
    let unshared: &[Permission] = match format {
        Format::Raw => &[],
        Format::Structured => &[Permission::Write, Permission::Resize],
    };
    for &permission in needed {
        if !lock(file, NEEDED + permission as i64)? {
            return Ok(());
        }
    }
    for &permission in unshared {
        lock(file, UNSHARED + permission as i64)?;
    }
    for &permission in needed {
        if !free(file, UNSHARED + permission as i64) {
            return Err(Conflict::Needed(permission.name()));
        }
    }
    for &permission in unshared {
        if !free(file, NEEDED + permission as i64) {
            return Err(Conflict::Shared(permission.name()));
        }
    }
    Ok(())
}

fn range(kind: i32, byte: i64) -> libc::flock {
    // F_RDLCK and its like are 0, 1 and 2, SEEK_SET is 0; the fields are 16 bits wide.
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

/// Locks one byte, shared; `false` where the file system knows no locks.
fn lock(file: &File, byte: i64) -> Result<bool, Conflict> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(Conflict::Byte(byte)),
        Err(_) => Ok(false),
    }
}

/// Whether nobody else holds a lock on the byte.
fn free(file: &File, byte: i64) -> bool {
    let mut lock = range(libc::F_WRLCK, byte);
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => i32::from(lock.l_type) == libc::F_UNLCK,
        Err(_) => true,
    }
}
