//! How the page cache and the disk's own are used.

use std::{io, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

/// What one of `qemu-img`'s cache modes says. The default is `writeback`: what is written is in the page cache, and on the
/// disk when it is flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// Bytes go around the page cache (`O_DIRECT`).
    pub direct: bool,
    /// A write is on the disk when it is done.
    pub write_through: bool,
    /// Nobody waits for the disk.
    pub no_flush: bool,
}

impl Cache {
    /// What a mode says, if there is one of that name.
    pub fn of_mode(name: &str) -> Option<Self> {
        let writeback = Self::default();
        Some(match name {
            "writeback" => writeback,
            "none" | "off" => Self { direct: true, ..writeback },
            "directsync" => Self { direct: true, write_through: true, ..writeback },
            "writethrough" => Self { write_through: true, ..writeback },
            "unsafe" => Self { no_flush: true, ..writeback },
            _ => return None,
        })
    }

    /// Takes `file`, which has been opened, around the page cache if that is asked for.
    pub fn prepare(self, file: impl AsFd) -> io::Result<()> {
        if !self.direct {
            return Ok(());
        }
        match fcntl(file, FcntlArg::F_SETFL(OFlag::O_DIRECT)) {
            Ok(_) => Ok(()),
            Err(Errno::EINVAL) => Err(io::Error::other("filesystem does not support O_DIRECT")),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn modes_are_those_of_qemu_img() {
        let mode = |name| Cache::of_mode(name).map(|mode| (mode.direct, mode.write_through, mode.no_flush));
        assert_eq!(mode("writeback"), Some((false, false, false)));
        assert_eq!(mode("none"), Some((true, false, false)));
        assert_eq!(mode("off"), mode("none"));
        assert_eq!(mode("directsync"), Some((true, true, false)));
        assert_eq!(mode("writethrough"), Some((false, true, false)));
        assert_eq!(mode("unsafe"), Some((false, false, true)));
        assert_eq!(mode("None"), None);
        assert_eq!(mode(""), None);
    }

    #[test]
    fn a_file_is_read_around_the_page_cache_where_its_file_system_can() {
        let flags = |file: &File| OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).unwrap());
        let (none, writeback) = (Cache::of_mode("none").unwrap(), Cache::default());
        let file = tempfile::tempfile().unwrap();
        writeback.prepare(&file).unwrap();
        assert!(!flags(&file).contains(OFlag::O_DIRECT));
        none.prepare(&file).unwrap();
        assert!(flags(&file).contains(OFlag::O_DIRECT | OFlag::O_RDWR));

        let other = File::open("/proc/version").unwrap();
        writeback.prepare(&other).unwrap();
        assert_eq!(none.prepare(&other).unwrap_err().to_string(), "filesystem does not support O_DIRECT");
    }
}
