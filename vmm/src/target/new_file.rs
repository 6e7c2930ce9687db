//! A file that has no name until it is complete.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat, renameat2},
    sys::stat::{Mode, fstatat},
    unistd::{UnlinkatFlags, linkat, unlinkat},
};

/// What everybody may do with a new file, less the umask: as `qemu-img` makes them.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// The directory in which files are made.
#[derive(Clone, Debug)]
pub struct Directory(Arc<File>);

impl Directory {
    /// The directory at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | flags).open(path);
        // One that cannot be listed can still have files made in it.
        let directory = open(0).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => open(libc::O_PATH),
            _ => Err(error),
        })?;
        Ok(Self(Arc::new(directory)))
    }

    /// Opens a file in it: one that is there, without creating or changing it.
    pub fn open_existing(&self, name: &OsStr) -> io::Result<File> {
        self.open_file(name, OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Mode::empty())
    }

    fn open_file(&self, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_RDWR | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(File::from(openat2(&self.0, name, how)?))
    }

    /// Waits until the names in it are on the disk. A directory that cannot be listed, or a file system that has no such
    /// thing, is not waited for.
    pub fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL)) => Ok(()),
            other => other,
        }
    }

    fn has(&self, name: &OsStr) -> bool {
        fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes a file, if it can be.
    pub fn remove(&self, name: &OsStr) {
        // Nothing is to be done about a file that stays.
        let _ = unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir);
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The name that a new file will have, and the one it has until then.
#[derive(Debug)]
pub struct NewFile {
    directory: Directory,
    name: OsString,
    /// A name beginning with a dot, on file systems that have no files without a name.
    temporary: Option<OsString>,
    appeared: bool,
}

impl NewFile {
    /// Makes an empty file that is to be `name` in `directory`.
    pub fn create(directory: &Directory, name: &OsStr) -> io::Result<(File, Self)> {
        match directory.open_file(OsStr::new("."), OFlag::O_TMPFILE, MODE) {
            Ok(file) => Ok((file, Self::new(directory, name, None))),
            // What file systems and kernels without such files say.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
            {
                Self::create_named(directory, name)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`create`](Self::create), with a name for the time being.
    pub(super) fn create_named(directory: &Directory, name: &OsStr) -> io::Result<(File, Self)> {
        loop {
            let temporary =
                OsString::from(format!(".instar-{:016x}", RandomState::new().build_hasher().finish()));
            match directory.open_file(&temporary, OFlag::O_CREAT | OFlag::O_EXCL, MODE) {
                Ok(file) => return Ok((file, Self::new(directory, name, Some(temporary)))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn new(directory: &Directory, name: &OsStr, temporary: Option<OsString>) -> Self {
        Self { directory: directory.clone(), name: name.to_owned(), temporary, appeared: false }
    }

    /// Where it will be.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether it has a name already.
    pub fn is_named(&self) -> bool {
        self.temporary.is_some()
    }

    /// Where it is and what it is called for the time being, if it has a name.
    pub fn temporary(&self) -> Option<(Directory, OsString)> {
        self.temporary.clone().map(|name| (self.directory.clone(), name))
    }

    /// Gives `file`, which this is about, its name. A file of that name that has come up since then stays, and is an error.
    pub fn appear(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        match &self.temporary {
            None => self.link(file)?,
            Some(temporary) => self.rename(temporary)?,
        }
        self.appeared = true;
        Ok(())
    }

    fn link(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let (directory, name) = (&self.directory.0, self.name.as_os_str());
        match linkat(file, "", directory, name, AtFlags::AT_EMPTY_PATH) {
            // Before Linux 6.10 that is for the privileged.
            Err(Errno::ENOENT | Errno::EPERM) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                linkat(AT_FDCWD, path.as_str(), directory, name, AtFlags::AT_SYMLINK_FOLLOW)?;
            }
            other => other?,
        }
        Ok(())
    }

    fn rename(&self, temporary: &OsStr) -> io::Result<()> {
        let (directory, name) = (&self.directory.0, self.name.as_os_str());
        match renameat2(directory, temporary, directory, name, RenameFlags::RENAME_NOREPLACE) {
            // The file system cannot look and rename at once.
            Err(Errno::EINVAL | Errno::ENOSYS) if self.directory.has(name) => Err(Errno::EEXIST.into()),
            Err(Errno::EINVAL | Errno::ENOSYS) => Ok(renameat(directory, temporary, directory, name)?),
            other => Ok(other?),
        }
    }

    /// Takes the name away again.
    pub fn withdraw(&mut self) {
        if std::mem::take(&mut self.appeared) {
            self.directory.remove(&self.name);
            self.temporary = None;
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let (Some(temporary), false) = (&self.temporary, self.appeared) {
            self.directory.remove(temporary);
        }
    }
}
