//! The file behind a disk, shared by the device and whoever started the machine.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use vm_memory::VolatileSlice;

use super::{Cache, SECTOR, Throttle, direct::Direct, transfer};

/// Most zeros that are written at once where the file system has no word for them, in bytes.
const ZEROS: u64 = 64 << 10;

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
    cache: Cache,
    /// How it is read and written around the page cache.
    direct: Option<Direct>,
    /// How fast it may be written to.
    throttle: Option<Arc<Throttle>>,
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
            cache: Cache::default(),
            direct: None,
            throttle: None,
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

    /// The same, cached as `cache` says, for which the file has been [prepared](Cache::prepare).
    pub fn cached(self, cache: Cache) -> Self {
        let direct = cache.direct.then(|| Direct::new(&self.file, self.fixed.then(|| self.length())));
        Self { cache, direct, ..self }
    }

    /// The same, written to no faster than `throttle` says.
    pub fn throttled(self, throttle: Option<Arc<Throttle>>) -> Self {
        Self { throttle, ..self }
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
            self.settle()?;
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
            outcome => {
                outcome?;
                self.settle()
            }
        }
    }

    fn fill_with_zeros(&self, mut offset: u64, end: u64) -> io::Result<()> {
        let mut zeros = vec![0; ZEROS as usize];
        while offset < end {
            let count = (end - offset).min(ZEROS);
            self.write(&[VolatileSlice::from(&mut zeros[..count as usize])], offset)?;
            offset += count;
        }
        Ok(())
    }

    /// Reads all of `slices`, which the file must have.
    pub(super) fn read(&self, slices: &[VolatileSlice], offset: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            return direct.read(&self.file, slices, offset);
        }
        match transfer::read(&self.file, slices, offset, 1)? == transfer::length(slices) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes all of `slices`, as soon as that may be.
    pub(super) fn write(&self, slices: &[VolatileSlice], offset: u64) -> io::Result<()> {
        if let Some(throttle) = &self.throttle {
            throttle.wait(transfer::length(slices) as u64)?;
        }
        let durable = self.cache.write_through;
        match &self.direct {
            Some(direct) => direct.write(&self.file, slices, offset, durable),
            None => transfer::write(&self.file, slices, offset, durable),
        }
    }

    /// Waits until what was changed without being written is on the disk, if all that is changed is to be.
    fn settle(&self) -> io::Result<()> {
        if self.cache.write_through { self.file.sync_data() } else { Ok(()) }
    }

    /// Waits until what was written is on the disk, if anybody waits for that.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.cache.no_flush { Ok(()) } else { self.file.sync_data() }
    }

    /// Whether the file was written to, cut or made longer.
    pub fn was_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Waits until all of it is on the disk, if anybody waits for that.
    pub fn sync(&self) -> io::Result<()> {
        if self.cache.no_flush { Ok(()) } else { self.file.sync_all() }
    }

    /// Why a transfer failed: the first failure there was. The guest only learns that there was one.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
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

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    /// A file that cannot be flushed, nor written to and flushed at once: neither is silently left out.
    const FILE: &str = "/proc/thread-self/oom_score_adj";

    fn file(mode: &str) -> DiskFile {
        let file = OpenOptions::new().read(true).write(true).open(FILE).unwrap();
        DiskFile::writable(file, 512, 512).cached(Cache::of_mode(mode).unwrap())
    }

    #[test]
    fn who_waits_for_the_disk_is_what_the_mode_says() {
        for (mode, through, flushes) in
            [("writeback", false, true), ("writethrough", true, true), ("unsafe", false, false)]
        {
            let file = file(mode);
            let mut same = fs::read(FILE).unwrap();
            let written = file.write(&[VolatileSlice::from(&mut same[..])], 0);
            assert_eq!(written.is_err(), through, "{mode}: {written:?}");
            assert_eq!((file.flush().is_err(), file.sync().is_err()), (flushes, flushes), "{mode}");
        }
    }
}
