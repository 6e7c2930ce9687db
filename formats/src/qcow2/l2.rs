//! One L2 table at a time, read through a window.

use zerocopy::big_endian::U64;

use super::header::{Header, TABLE_ENTRY_LEN};
use crate::table::Table;
use crate::{Error, Storage};

/// Longest part of a table in memory, in bytes: with clusters up to this size a table is read at once.
const WINDOW_LEN: u64 = 256 << 10;

/// The L2 table that is walked.
#[derive(Debug)]
pub(super) struct L2(Table<U64>);

impl L2 {
    pub(super) fn new(header: &Header) -> Self {
        let length = header.cluster_bits().size();
        // There is no table at offset 0 and none is read there.
        Self(Table::new(0, length / TABLE_ENTRY_LEN, length.min(WINDOW_LEN) / TABLE_ENTRY_LEN))
    }

    /// The words of the table at the file offset `table` from number `word` to the end of the window: at least one,
    /// as long as `word` is in the table.
    pub(super) fn from<S: Storage>(
        &mut self,
        storage: &mut S,
        table: u64,
        word: u64,
    ) -> Result<&[U64], Error> {
        self.0.move_to(table);
        Ok(self.0.from(storage, word)?)
    }
}
