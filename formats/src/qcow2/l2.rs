//! One L2 table at a time, read through a window.

use zerocopy::big_endian::U64;

use super::header::{Header, TABLE_ENTRY_LEN};
use crate::window::Window;
use crate::{Error, FileIndex, Storage};

/// Longest part of a table in memory, in bytes: with clusters up to this size a table is read at once.
const WINDOW_LEN: u64 = 256 << 10;

/// The L2 table that is walked.
#[derive(Debug)]
pub(super) struct L2 {
    /// Words of 8 bytes in a table.
    table_words: u64,
    window: Window<U64>,
}

impl L2 {
    pub(super) fn new(header: &Header) -> Self {
        let table_len = header.cluster_bits().size();
        let window_len = usize::try_from(table_len.min(WINDOW_LEN)).unwrap_or(0);
        Self { table_words: table_len / TABLE_ENTRY_LEN, window: Window::new(window_len) }
    }

    /// The words of the table at the file offset `table` from number `word` to the end of the window: at least one,
    /// as long as `word` is in the table.
    pub(super) fn from<S: Storage>(
        &mut self,
        storage: &mut S,
        table: u64,
        word: u64,
    ) -> Result<&[U64], Error> {
        let offset = table + word * TABLE_ENTRY_LEN;
        Ok(self.window.entries(storage, FileIndex::OWN, offset, self.table_words.saturating_sub(word))?)
    }
}
