//! Extents on their way to the host: neighbours are joined, and told by as many as a record holds.

use alloc::{string::String, vec::Vec};
use core::mem;

use protocol::{MapKind, MapPart, MapRun, MapWriter, QemuVersion};

use super::entry::{Entry, File, Kind};

/// Characters of extents that are told at once, and their kinds: together with the longest extent and the names of all
/// kinds' disks they fit into a record.
const RUNS_MAX: usize = 52 << 10;
const KINDS_MAX: usize = 64;

/// The extents found so far.
pub struct Listing<'a> {
    profile: QemuVersion,
    tell: &'a mut dyn FnMut(MapPart),
    /// The last one, which may go on.
    last: Option<Entry>,
    /// Kinds of the extents that were not told, and those extents.
    kinds: Vec<(Kind, MapKind)>,
    runs: MapWriter,
    /// How many extents there are before the last one.
    count: u64,
}

impl<'a> Listing<'a> {
    pub fn new(profile: QemuVersion, tell: &'a mut dyn FnMut(MapPart)) -> Self {
        Self { profile, tell, last: None, kinds: Vec::new(), runs: MapWriter::default(), count: 0 }
    }

    /// Adds what follows. `serial` is the disk of a file.
    pub fn add(&mut self, entry: Entry, serial: impl Fn(File) -> Option<String>) {
        let profile = self.profile;
        if self.last.as_mut().is_some_and(|last| last.join(&entry, profile)) {
            return;
        }
        if let Some(done) = self.last.replace(entry) {
            self.push(done, serial);
        }
    }

    /// Tells what is known to be whole. `qemu-img` does not tell the extent in front of a fault.
    pub fn flush(&mut self) {
        if !self.runs.is_empty() {
            let kinds = mem::take(&mut self.kinds).into_iter().map(|(_, kind)| kind).collect();
            (self.tell)(MapPart::Extents { kinds, runs: mem::take(&mut self.runs).finish() });
        }
    }

    /// Tells the rest, and how many there were.
    pub fn finish(mut self, serial: impl Fn(File) -> Option<String>) -> u64 {
        if let Some(last) = self.last.take() {
            self.push(last, serial);
        }
        self.flush();
        self.count
    }

    fn push(&mut self, entry: Entry, serial: impl Fn(File) -> Option<String>) {
        let kind = match self.kinds.iter().position(|(kind, _)| *kind == entry.kind) {
            Some(index) => index,
            None => {
                if self.kinds.len() == KINDS_MAX {
                    self.flush();
                }
                let Kind { depth, present, zero, data, compressed, file } = entry.kind;
                let file = file.and_then(serial);
                let told = MapKind { depth, present, zero, data, compressed, file };
                self.kinds.push((entry.kind, told));
                self.kinds.len() - 1
            }
        };
        let has_offset = self.kinds.get(kind).is_some_and(|(_, kind)| kind.file.is_some());
        self.runs.push(MapRun { kind, length: entry.length, offset: entry.offset }, has_offset);
        self.count += 1;
        if self.runs.len() >= RUNS_MAX {
            self.flush();
        }
    }
}
