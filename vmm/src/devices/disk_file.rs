//! The file behind a disk, shared by the device and whoever started the machine.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::SECTOR;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};

/// A file that is a disk, for reading only or within bounds for writing, too.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    /// Bytes of the file; what is behind them reads as zeros.
    length: AtomicU64,
    /// How long the file may become by writing, if it may be written to.
    capacity: Option<u64>,
    /// Whether it is as long as it is: what is behind the bytes written so far is made zeros when something is written
    /// behind it, as in a file that grows.
    fixed: bool,
    /// How long the user lets it become, in bytes.
    limit: AtomicU64,
    changed: AtomicBool,
    /// Held while a device is made to look longer.
    growing: Mutex<()>,
    failure: Mutex<Option<io::Error>>,
}

impl DiskFile {
    /// `length` bytes of `file` that nobody writes to.
    pub fn read_only(file: File, length: u64) -> Self {
        Self {
            file,
            length: AtomicU64::new(length),
            capacity: None,
            fixed: false,
            limit: AtomicU64::new(u64::MAX),
            changed: AtomicBool::new(false),
            growing: Mutex::new(()),
            failure: Mutex::new(None),
        }
    }

    /// A file of `length` bytes that may be written to and grow up to `capacity` bytes; not below its length.
    pub fn writable(file: File, length: u64, capacity: u64) -> Self {
        let capacity = Some(capacity.max(length));
        Self { capacity, ..Self::read_only(file, length) }
    }

    /// A block device of `length` bytes that may be written to.
    pub fn device(file: File, length: u64) -> Self {
        Self { fixed: true, ..Self::writable(file, length, length) }
    }

    /// Whether it may be written to.
    pub fn is_writable(&self) -> bool {
        self.capacity.is_some()
    }

    /// Length of the disk in bytes: of all that can be read or written.
    pub fn capacity(&self) -> u64 {
        self.capacity.unwrap_or_else(|| self.length())
    }

    /// Bounds how long it may become by the user's will: beyond that, `EFBIG`.
    pub fn limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Release);
    }

    fn check_limit(&self, end: u64) -> io::Result<()> {
        match end > self.limit.load(Ordering::Acquire) {
            true => Err(Errno::EFBIG.into()),
            false => Ok(()),
        }
    }

    /// Cuts the file to `length` bytes, or makes it that long; refused beyond its bounds. A device is made to look like that.
    pub fn set_length(&self, length: u64) -> io::Result<()> {
        if self.capacity.is_none_or(|capacity| length > capacity) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.check_limit(length)?;
        self.changed.store(true, Ordering::Release);
        if self.fixed {
            let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
            self.make_zeros(self.length(), length, true)?;
        } else {
            self.file.set_len(length)?;
        }
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Makes `length` bytes from `offset` on read as zeros; with `unmap` their space may be given up.
    pub(super) fn write_zeros(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let end = offset + length;
        self.before_write(offset, length)?;
        if !self.fixed && self.length() < end {
            self.file.set_len(end)?;
        }
        self.make_zeros(offset, end, unmap)?;
        self.written_to(end);
        Ok(())
    }

    /// Makes the bytes from `offset` up to `end` zeros, by the file system's own word for that if it has one.
    fn make_zeros(&self, offset: u64, end: u64, unmap: bool) -> io::Result<()> {
        if offset >= end {
            return Ok(());
        }
        let mode = match unmap {
            true => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            false => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        };
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, mode, offset.cast_signed(), (end - offset).cast_signed()) {
            Err(Errno::EOPNOTSUPP | Errno::ENODEV | Errno::EINVAL) => self.fill_with_zeros(offset, end),
            outcome => Ok(outcome?),
        }
    }

    fn fill_with_zeros(&self, mut offset: u64, end: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while offset < end {
            let count = usize::try_from(end - offset).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..count], offset)?;
            offset += count as u64;
        }
        Ok(())
    }

    /// Whether the file was written to, cut or made longer.
    pub fn was_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Waits until all of it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Why a transfer failed: the first failure there was. The guest only learns that there was one.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// `length` bytes of the file are about to be written to from `offset` on.
    pub(super) fn before_write(&self, offset: u64, length: u64) -> io::Result<()> {
        // Whole sectors are written, of the last of which not all need be part of the file.
        self.check_limit((offset + length).saturating_sub(SECTOR - 1))?;
        self.changed.store(true, Ordering::Release);
        if self.fixed && offset > self.length() {
            let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
            let length = self.length();
            self.make_zeros(length, offset, true)?;
            self.length.fetch_max(offset, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The file was written to up to `end`.
    pub(super) fn written_to(&self, end: u64) {
        self.length.fetch_max(end, Ordering::AcqRel);
    }

    /// A transfer failed.
    pub(super) fn failed(&self, error: io::Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl AsFd for DiskFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
