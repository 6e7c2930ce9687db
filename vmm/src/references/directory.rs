//! A directory beneath which files may be opened.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
};

/// A directory, open, and the paths that lead to it.
#[derive(Debug)]
pub struct Directory {
    file: File,
    /// As it was given, absolute, without `.` and `..`.
    given: PathBuf,
    /// Without links.
    real: PathBuf,
}

/// Why a file beneath a directory was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// The way to it leaves the directory.
    Leaves,
    /// The system says so.
    System(io::Error),
}

impl Directory {
    /// The directory at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)?;
        let given = normalised(&std::path::absolute(path)?);
        Ok(Self { file, given, real: path.canonicalize()? })
    }

    /// Its path without links.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// Opens the file at `path` for reading, relative to the directory and never out of it.
    pub fn open_beneath(&self, path: &Path) -> Result<File, OpenError> {
        // A FIFO must not make us wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        match openat2(&self.file, path, OpenHow::new().flags(flags).resolve(resolve)) {
            Ok(file) => Ok(File::from(file)),
            Err(Errno::EXDEV) => Err(OpenError::Leaves),
            Err(errno) => Err(OpenError::System(errno.into())),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The innermost of `directories` that the absolute path `path` is beneath, and the way from there.
pub fn containing<'a, 'p>(directories: &'a [Directory], path: &'p Path) -> Option<(&'a Directory, &'p Path)> {
    let roots = directories
        .iter()
        .flat_map(|directory| [(directory, &directory.given), (directory, &directory.real)]);
    roots
        .filter_map(|(directory, root)| path.strip_prefix(root).ok().map(|rest| (directory, rest)))
        .filter(|(_, rest)| !rest.as_os_str().is_empty())
        .min_by_key(|(_, rest)| rest.components().count())
}

/// An absolute path without `.` and `..`, which are taken as text: what stands in front of a `..` is no link, or the
/// path means another file than it seems to.
pub fn normalised(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_as_text() {
        for (path, plain) in [("/a/./b/../c", "/a/c"), ("/../../a", "/a"), ("/a//b/", "/a/b"), ("/", "/")] {
            assert_eq!(normalised(Path::new(path)), Path::new(plain));
        }
    }

    #[test]
    fn nothing_leads_out_of_a_directory() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("in");
        std::fs::create_dir_all(inside.join("deep")).unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::fs::write(inside.join("file"), "f").unwrap();
        for (link, target) in [
            ("up", "../secret".into()),
            ("absolute", outside.path().join("secret")),
            ("fine", "deep/../file".into()),
            ("magic", "/proc/self/exe".into()),
        ] {
            std::os::unix::fs::symlink(target, inside.join(link)).unwrap();
        }
        let directory = Directory::open(&inside).unwrap();
        for path in ["file", "fine", "deep/../file"] {
            assert!(directory.open_beneath(Path::new(path)).is_ok(), "{path}");
        }
        for path in ["up", "absolute", "magic", "../secret", "deep/../../secret"] {
            assert!(matches!(directory.open_beneath(Path::new(path)), Err(OpenError::Leaves)), "{path}");
        }
        assert!(matches!(directory.open_beneath(Path::new("none")), Err(OpenError::System(_))));
    }

    #[test]
    fn the_innermost_directory_counts() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("in");
        std::fs::create_dir(&inner).unwrap();
        let link = outer.path().join("link");
        std::os::unix::fs::symlink("in", &link).unwrap();
        let directories = [outer.path(), &link].map(|path| Directory::open(path).unwrap());
        let find = |path: &Path| {
            containing(&directories, path).map(|(directory, rest)| (directory.given.clone(), rest.to_owned()))
        };
        assert_eq!(find(&inner.join("a/b")), Some((link.clone(), "a/b".into())));
        assert_eq!(find(&link.join("a")), Some((link.clone(), "a".into())));
        assert_eq!(find(&outer.path().join("a")), Some((outer.path().into(), "a".into())));
        assert_eq!(find(Path::new("/")), None);
        assert_eq!(find(outer.path()), None);
    }
}
