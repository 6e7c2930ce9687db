//! A file in memory that remembers what was done to it.

use formats::{Region, Storage, StorageError, StorageMut};

use super::Random;

/// What was done.
pub enum Event {
    Write(u64, Vec<u8>),
    Length(u64),
    Flush,
}

/// The file, and how it came to be what it is.
pub struct Journal {
    pub bytes: Vec<u8>,
    before: Vec<u8>,
    pub events: Vec<Event>,
    /// Longest that it may become.
    pub room: u64,
}

impl Journal {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { before: bytes.clone(), bytes, events: Vec::new(), room: 64 << 20 }
    }

    /// The file after an interruption behind so many events: of what was written since the last flush, each write is
    /// there with a chance of `chance` in 4. Its length is what it was made.
    pub fn interrupted(&self, after: usize, random: &mut Random, chance: u64) -> Vec<u8> {
        let events = &self.events[..after];
        let flushed = events.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut bytes = self.before.clone();
        for (number, event) in events.iter().enumerate() {
            match event {
                Event::Write(offset, written) if number < flushed || random.below(4) < chance => {
                    bytes.write_at(*offset, written).unwrap();
                }
                Event::Length(length) => bytes.set_length(*length).unwrap(),
                Event::Write(..) | Event::Flush => {}
            }
        }
        bytes
    }
}

impl Storage for Journal {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.bytes.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.bytes.region_at(offset)
    }
}

impl StorageMut for Journal {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        if offset + bytes.len() as u64 > self.room {
            return Err(StorageError);
        }
        self.events.push(Event::Write(offset, bytes.to_vec()));
        self.bytes.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.events.push(Event::Flush);
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        if length > self.room {
            return Err(StorageError);
        }
        self.events.push(Event::Length(length));
        self.bytes.set_length(length)
    }
}
