//! One L2 table at a time, read through a window.

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

use super::header::{Header, TABLE_ENTRY_LEN};
use crate::{Error, Storage};

/// Longest part of a table in memory, in bytes: with clusters up to this size a table is read at once.
const WINDOW_LEN: u64 = 256 << 10;

/// The L2 table that is walked.
#[derive(Debug)]
pub(super) struct L2 {
    /// Words of 8 bytes in a window; a table is a whole number of windows.
    window_words: u64,
    window: Vec<U64>,
    /// File offset of the window, 0 as long as there is none.
    window_offset: u64,
}

impl L2 {
    pub(super) fn new(header: &Header) -> Self {
        let window_words = header.cluster_bits().size().min(WINDOW_LEN) / TABLE_ENTRY_LEN;
        Self { window_words, window: Vec::new(), window_offset: 0 }
    }

    /// The words of the table at the file offset `table` from number `word` to the end of the window: at least one,
    /// as long as `word` is in the table.
    pub(super) fn from<S: Storage>(
        &mut self,
        storage: &mut S,
        table: u64,
        word: u64,
    ) -> Result<&[U64], Error> {
        let skip = word & (self.window_words - 1);
        let offset = table + (word - skip) * TABLE_ENTRY_LEN;
        if offset != self.window_offset {
            let words = usize::try_from(self.window_words).unwrap_or(0);
            self.window.resize(words, U64::ZERO);
            self.window_offset = 0;
            storage.read_at(offset, self.window.as_mut_bytes())?;
            self.window_offset = offset;
        }
        Ok(usize::try_from(skip).ok().and_then(|skip| self.window.get(skip..)).unwrap_or(&[]))
    }
}
