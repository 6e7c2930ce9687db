//! One of the disks that are compared.

use alloc::{
    borrow::ToOwned,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};

use drivers::Landing;
use formats::{Chain, ChainError, ExtentKind, FileIndex, Format, Image, Mapping};
use protocol::{CompareFault, QemuVersion};

use super::{CHUNK, StartRead};
use crate::{
    mover::{self, ReadAhead},
    source::kind,
};

/// Most places that a chunk is read from while the caller goes on.
const MAX_PLACES: usize = 64;

/// A disk, and the memory that its chunks are read into.
pub struct Disk<S> {
    chain: Chain<S>,
    ahead: ReadAhead,
    second: bool,
    landing: Rc<Landing>,
    /// The files that are reading.
    reading: Vec<(usize, FileIndex)>,
    /// The answer about what is allocated that was got last, for the bytes up to here.
    answer: Option<(Status, u64)>,
}

/// What `qemu-img` knows of a run of bytes without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub zero: bool,
    /// Whether an image of the chain decides, be it for zeros.
    pub allocated: bool,
    data: bool,
    compressed: bool,
    has_offset: bool,
    /// Whether the run goes to the end of the disk.
    at_end: bool,
}

impl<S: StartRead> Disk<S> {
    pub fn new(chain: Chain<S>, second: bool) -> Self {
        let (ahead, landing) = (ReadAhead::default(), Landing::new(CHUNK));
        Self { chain, ahead, second, landing, reading: Vec::new(), answer: None }
    }

    /// Length of the disk in bytes.
    pub fn len(&self) -> u64 {
        self.chain.virtual_size()
    }

    /// What there is at `offset`, and for how many bytes. Offsets come in ascending order.
    pub fn status(&mut self, offset: u64, profile: QemuVersion) -> Result<(Status, u64), CompareFault> {
        if let Some((status, end)) = self.answer.filter(|&(_, end)| offset < end) {
            return Ok((status, end - offset));
        }
        let rest = self.len().saturating_sub(offset);
        match mover::answer_at(&mut self.chain, offset, rest) {
            Ok((mapping, length)) => {
                let status = self.flags(&mapping, offset + length, profile);
                self.answer = Some((status, offset + length));
                Ok((status, length))
            }
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn flags(&self, mapping: &Mapping, end: u64, profile: QemuVersion) -> Status {
        let (zero, data, compressed, offset) = match mapping.extent.kind {
            ExtentKind::Data { .. } => (false, true, false, true),
            ExtentKind::Hole { .. } => (true, true, false, true),
            ExtentKind::Compressed { .. } => (false, true, true, false),
            ExtentKind::Zero { offset } | ExtentKind::Unallocated { offset } => {
                (true, false, false, offset.is_some())
            }
        };
        let layers = self.chain.layers();
        let has_offset = |layer: &Image<S>| layer.reports_block_status() && !layer.encrypted();
        // Where an image is shorter than the one above it, that one's zeros count as its own.
        let beyond = layers.get(mapping.layer + 1).is_some();
        Status {
            zero,
            allocated: mapping.allocated || beyond,
            data,
            compressed: compressed && profile >= QemuVersion::V10_0,
            has_offset: offset && layers.get(mapping.layer).is_some_and(has_offset),
            at_end: end == self.len(),
        }
    }

    /// Begins to read `length` bytes, at most [`CHUNK`], where that can be done while the caller goes on. The rest
    /// [`finish`](Self::finish) does.
    pub fn begin(&mut self, offset: u64, length: usize) {
        let Some(places) = self.places(offset, length) else { return };
        let mut at = 0;
        for (layer, file, place, count) in places {
            let part = at..at + count;
            let storage = self.chain.layers_mut().get_mut(layer).and_then(|image| image.file_mut(file));
            let begun = storage.map(|storage| storage.start_read(place, &self.landing, part));
            if begun != Some(Ok(true)) {
                // What has begun ends before anything else is done with the memory.
                self.wait();
                return;
            }
            self.reading.push((layer, file));
            at += count;
        }
    }

    /// Where the bytes lie, if they are all stored as they are: layer, file, offset and number of each run.
    fn places(&mut self, offset: u64, length: usize) -> Option<Vec<(usize, FileIndex, u64, usize)>> {
        let mut places = Vec::new();
        let mut done = 0;
        while done < length {
            let Mapping { extent, layer, .. } = self.chain.extent_at(offset + done as u64).ok()?;
            let ExtentKind::Data { offset } = extent.kind else { return None };
            let image = self.chain.layers().get(layer).filter(|image| !image.encrypted())?;
            let parent_is_checked = layer > 0 && image.format() == Format::Vmdk;
            if parent_is_checked || places.len() == MAX_PLACES {
                return None;
            }
            let count = usize::try_from(extent.length).unwrap_or(usize::MAX).min(length - done);
            places.push((layer, extent.file, offset, count));
            done += count;
        }
        Some(places)
    }

    /// Waits for what has begun; whether all of it went well.
    fn wait(&mut self) -> bool {
        let mut good = true;
        for (layer, file) in self.reading.drain(..) {
            let storage = self.chain.layers_mut().get_mut(layer).and_then(|image| image.file_mut(file));
            good &= storage.is_some_and(|storage| storage.finish_reads().is_ok());
        }
        good & !self.landing.take_failure()
    }

    /// The bytes that were [begun](Self::begin) to be read, or all of them now.
    pub fn finish(&mut self, offset: u64, length: usize) -> Result<&[u8], CompareFault> {
        let begun = !self.reading.is_empty();
        if !begun || !self.wait() {
            let buffer = Landing::bytes(&mut self.landing).and_then(|bytes| bytes.get_mut(..length));
            let read = buffer.map_or(Ok(()), |buffer| self.ahead.read(&mut self.chain, offset, buffer));
            read.map_err(|error| self.fault(&error))?;
        }
        let bytes = Landing::bytes(&mut self.landing).map(|bytes| &*bytes);
        Ok(bytes.and_then(|bytes| bytes.get(..length)).unwrap_or_default())
    }

    fn fault(&self, error: &ChainError) -> CompareFault {
        let error = &error.error;
        let why = match error.kind {
            formats::ErrorKind::Unsupported => error.message.to_string(),
            _ => String::from("Input/output error"),
        };
        CompareFault { second: self.second, kind: kind(error.kind), why, field: error.field.to_owned() }
    }
}
