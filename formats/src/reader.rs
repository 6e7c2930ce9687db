//! Sequential reading of small structures, so that a table of thousands of records costs few requests.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use crate::{Storage, StorageError};

/// Bytes fetched at a time.
const BUFFER_LEN: usize = 4096;

/// Reads forward from a position, at first the start of the file. Bytes past the end of the file are zero, as [`Storage`] has it.
pub(crate) struct Reader<'a, S> {
    storage: &'a mut S,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    start: u64,
    /// File offset of the next byte to hand out.
    position: u64,
    filled: bool,
}

impl<'a, S: Storage> Reader<'a, S> {
    pub(crate) fn new(storage: &'a mut S) -> Self {
        Self { storage, buffer: vec![0; BUFFER_LEN], start: 0, position: 0, filled: false }
    }

    /// File offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes to a file offset; what is in the buffer stays of use.
    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Length of the file in bytes.
    pub(crate) fn file_len(&self) -> u64 {
        self.storage.len()
    }

    /// The file itself, to read what lies elsewhere.
    pub(crate) fn storage(&mut self) -> &mut S {
        self.storage
    }

    /// Steps over `length` bytes.
    pub(crate) fn skip(&mut self, length: u64) {
        self.position = self.position.saturating_add(length);
    }

    /// Steps over nothing or as much as it takes to reach a multiple of 8 from `base`.
    pub(crate) fn align_to_8(&mut self, base: u64) {
        let over = self.position.wrapping_sub(base) % 8;
        if over != 0 {
            self.skip(8 - over);
        }
    }

    /// The next record, byte for byte.
    pub(crate) fn record<T: FromBytes + IntoBytes>(&mut self) -> Result<T, StorageError> {
        let mut record = T::new_zeroed();
        self.fill(record.as_mut_bytes())?;
        Ok(record)
    }

    /// The next `length` bytes; the caller has bounded `length`.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), StorageError> {
        while !out.is_empty() {
            let within = self.position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
            let ready =
                within.filter(|_| self.filled).and_then(|skip| self.buffer.get(skip..)).unwrap_or(&[]);
            if ready.is_empty() {
                self.buffer.fill(0);
                if self.position < self.storage.len() {
                    self.storage.read_at(self.position, &mut self.buffer)?;
                }
                self.start = self.position;
                self.filled = true;
                continue;
            }
            let length = ready.len().min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&ready[..length]);
            out = later;
            self.skip(length as u64);
        }
        Ok(())
    }
}

/// The bytes before the first NUL: a name as a C program would take it.
pub(crate) fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::big_endian::U32;

    #[test]
    fn records_cross_the_buffer_and_read_zero_past_the_end() {
        let file: Vec<u8> = (0..BUFFER_LEN + 6).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut storage = &file[..];
        let mut reader = Reader::new(&mut storage);
        reader.seek(BUFFER_LEN as u64 - 2);
        let expected = u32::from_be_bytes(file[BUFFER_LEN - 2..BUFFER_LEN + 2].try_into().unwrap());
        assert_eq!(reader.record::<U32>().unwrap().get(), expected);
        reader.align_to_8(0);
        assert_eq!(reader.position(), BUFFER_LEN as u64 + 8);
        assert_eq!(reader.bytes(3).unwrap(), [0; 3]);
        reader.skip(u64::MAX);
        assert_eq!(reader.bytes(2).unwrap(), [0; 2]);
    }

    #[test]
    fn a_name_ends_at_its_first_nul() {
        assert_eq!(c_string(b"ab\0c".to_vec()), b"ab");
        assert_eq!(c_string(b"ab".to_vec()), b"ab");
    }
}
