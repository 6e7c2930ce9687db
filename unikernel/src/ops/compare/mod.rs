//! `compare`: whether two disks have the same content, in the steps in which `qemu-img` finds out.
//!
//! What both disks are known to have no data for is not read. Of the rest the second disk's host thread reads a chunk while
//! the first disk is read in the guest's own.

mod disk;
mod start_read;

use disk::{Disk, Status};
use protocol::{CompareAnswer, CompareFault, ComparePart, CompareRequest, ErrorRecord, QemuVersion};
pub use start_read::StartRead;

use crate::{files::Files, mover::is_zero, progress::Meter, source};

/// Most bytes of a disk that are read at once.
const CHUNK: usize = 2 << 20;

/// Unit in which differences are told, in bytes.
const SECTOR: usize = 512;

/// Percent of progress that are not worth telling.
const STEP: f32 = 2.0;

/// Answers `request` about `files`.
pub fn run<F: Files<Storage: StartRead>>(
    request: &CompareRequest,
    files: &mut F,
    tell: &mut dyn FnMut(ComparePart),
) -> Result<CompareAnswer, ErrorRecord> {
    let CompareRequest { profile, first, second, secrets, strict, progress } = request;
    let first = source::open(first, secrets, *profile, files)?;
    let Some(second) = second else { return Ok(CompareAnswer::Identical) };
    let second = source::open(second, secrets, *profile, files)?;
    let (first, second) = (Disk::new(first, false), Disk::new(second, true));
    let whole = first.len().max(second.len());
    let comparison = Comparison {
        first,
        second,
        profile: *profile,
        strict: *strict,
        whole,
        meter: Meter::new(STEP, *progress),
        tell,
    };
    Ok(match comparison.run() {
        Ok(()) => CompareAnswer::Identical,
        Err(Ended::Different(answer)) => answer,
        Err(Ended::Unmapped(fault)) => CompareAnswer::Unmapped(fault),
        Err(Ended::Unread(offset, fault)) => CompareAnswer::Unread { offset, fault },
    })
}

/// Why a comparison ended before its end.
enum Ended {
    Different(CompareAnswer),
    Unmapped(CompareFault),
    Unread(u64, CompareFault),
}

struct Comparison<'a, S> {
    first: Disk<S>,
    second: Disk<S>,
    profile: QemuVersion,
    strict: bool,
    /// Length of the longer disk.
    whole: u64,
    meter: Meter,
    tell: &'a mut dyn FnMut(ComparePart),
}

impl<S: StartRead> Comparison<'_, S> {
    fn run(mut self) -> Result<(), Ended> {
        let common = self.first.len().min(self.second.len());
        self.progress(0);
        if self.strict && common != self.whole {
            return Err(Ended::Different(CompareAnswer::Lengths));
        }
        let mut offset = 0;
        while offset < common {
            offset += self.step(offset)?;
        }
        if common != self.whole {
            (self.tell)(ComparePart::LengthsDiffer);
        }
        while offset < self.whole {
            offset += self.step_beyond(offset)?;
        }
        Ok(())
    }

    /// Compares what is at `offset`, and answers for how many bytes.
    fn step(&mut self, offset: u64) -> Result<u64, Ended> {
        let (one, one_length) = self.first.status(offset, self.profile).map_err(Ended::Unmapped)?;
        let (two, two_length) = self.second.status(offset, self.profile).map_err(Ended::Unmapped)?;
        let mut length = one_length.min(two_length);
        if self.strict && one != two {
            return Err(Ended::Different(CompareAnswer::Allocation { offset }));
        }
        let nothing = |status: Status| !status.allocated;
        if !(one.zero && two.zero || nothing(one) && nothing(two)) {
            let count = chunk(&mut length);
            match (one.allocated, two.allocated) {
                (true, true) => self.compare(offset, count)?,
                (true, false) => check_zero(&mut self.first, offset, count)?,
                (false, _) => check_zero(&mut self.second, offset, count)?,
            }
        }
        self.progress(length);
        Ok(length)
    }

    /// Looks for zeros at `offset` of the disk that goes on, and answers for how many bytes.
    fn step_beyond(&mut self, offset: u64) -> Result<u64, Ended> {
        let disk = if self.first.len() > self.second.len() { &mut self.first } else { &mut self.second };
        let (status, mut length) = disk.status(offset, self.profile).map_err(Ended::Unmapped)?;
        if status.allocated && !status.zero {
            let count = chunk(&mut length);
            check_zero(disk, offset, count)?;
        }
        self.progress(length);
        Ok(length)
    }

    fn compare(&mut self, offset: u64, count: usize) -> Result<(), Ended> {
        let unread = |fault| Ended::Unread(offset, fault);
        self.second.begin(offset, count);
        let one = self.first.finish(offset, count).map_err(unread)?;
        let two = self.second.finish(offset, count).map_err(unread)?;
        if one == two {
            return Ok(());
        }
        let mut sectors = one.chunks(SECTOR).zip(two.chunks(SECTOR));
        let differs = sectors.position(|(one, two)| one != two).unwrap_or(0);
        Err(content(offset, differs))
    }

    fn progress(&mut self, length: u64) {
        if let Some(progress) = self.meter.add(length, self.whole) {
            (self.tell)(ComparePart::Progress(progress));
        }
    }
}

/// Cuts a length to what is read at once.
fn chunk(length: &mut u64) -> usize {
    let count = usize::try_from(*length).unwrap_or(CHUNK).min(CHUNK);
    *length = count as u64;
    count
}

fn check_zero<S: StartRead>(disk: &mut Disk<S>, offset: u64, count: usize) -> Result<(), Ended> {
    let bytes = disk.finish(offset, count).map_err(|fault| Ended::Unread(offset, fault))?;
    match bytes.chunks(SECTOR).position(|sector| !is_zero(sector)) {
        Some(sector) => Err(content(offset, sector)),
        None => Ok(()),
    }
}

/// That the content differs, from `sectors` behind `offset` on.
fn content(offset: u64, sectors: usize) -> Ended {
    let offset = offset + (sectors * SECTOR) as u64;
    Ended::Different(CompareAnswer::Content { offset })
}
