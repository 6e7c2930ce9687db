//! What the log has to say of the file: pages of 4 KiB that read otherwise than they are stored. Nothing is written.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{Region, Storage, StorageError};

/// Unit of the log in bytes.
const PAGE_LEN: usize = 4096;
pub(super) const PAGE: u64 = PAGE_LEN as u64;

/// What a piece of the file reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Zero,
    /// A page: its first bytes, then what lies 8 bytes into the data sector at this file offset, then its last bytes.
    Logged {
        leading: [u8; 8],
        sector: u64,
        trailing: [u8; 4],
    },
}

/// Pieces of the file by their start, apart from each other: each a whole number of pages, a logged one exactly one.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pieces: BTreeMap<u64, (u64, Content)>,
    /// Length in bytes that the file has at least, once the log is applied.
    len: u64,
}

impl Overlay {
    /// Makes `start..end` read as `content`.
    pub(super) fn insert(&mut self, start: u64, end: u64, content: Content) {
        if start >= end {
            return;
        }
        let overlapped: Vec<_> = self.overlapping(start, end).collect();
        for (from, to, old) in overlapped {
            self.pieces.remove(&from);
            if from < start {
                self.pieces.insert(from, (start, old));
            }
            if to > end {
                self.pieces.insert(end, (to, old));
            }
        }
        self.pieces.insert(start, (end, content));
    }

    pub(super) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Number of pieces.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Whether any byte of `start..end` reads otherwise than it is stored.
    pub(super) fn touches(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_some()
    }

    /// Length in bytes that the file has at least.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Start, end and content of the pieces that have a part in `start..end`.
    pub(super) fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, Content)> + '_ {
        let first = self.pieces.range(..=start).next_back().map_or(start, |(&from, _)| from);
        self.pieces
            .range(first..end.max(first))
            .map(|(&from, &(to, content))| (from, to, content))
            .filter(move |&(from, to, _)| from < end && to > start)
    }
}

/// A file with its log applied.
pub(super) struct Replayed<'a, S> {
    storage: &'a mut S,
    overlay: &'a Overlay,
}

impl<'a, S: Storage> Replayed<'a, S> {
    pub(super) fn new(storage: &'a mut S, overlay: &'a Overlay) -> Self {
        Self { storage, overlay }
    }
}

impl<S: Storage> Storage for Replayed<'_, S> {
    fn len(&self) -> u64 {
        self.storage.len().max(self.overlay.len)
    }

    fn allocated(&self) -> u64 {
        self.storage.allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.storage.read_at(offset, buf)?;
        let end = offset.saturating_add(buf.len() as u64);
        for (from, to, content) in self.overlay.overlapping(offset, end) {
            let start = from.max(offset);
            let length = usize::try_from(to.min(end) - start).map_err(|_| StorageError)?;
            let at = usize::try_from(start - offset).map_err(|_| StorageError)?;
            let part = at.checked_add(length).and_then(|end| buf.get_mut(at..end)).ok_or(StorageError)?;
            match content {
                Content::Zero => part.fill(0),
                Content::Logged { leading, sector, trailing } => {
                    let mut page = [0; PAGE_LEN];
                    self.storage.read_at(sector, &mut page)?;
                    page[..8].copy_from_slice(&leading);
                    page[PAGE_LEN - 4..].copy_from_slice(&trailing);
                    let skip = usize::try_from(start - from).map_err(|_| StorageError)?;
                    let bytes = page.get(skip..).and_then(|rest| rest.get(..length)).ok_or(StorageError)?;
                    part.copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        if self.overlay.pieces.is_empty() && offset < self.storage.len() {
            return self.storage.region_at(offset);
        }
        Ok(Region { length: self.len().saturating_sub(offset), hole: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn later_pieces_hide_earlier_ones_and_nothing_else() {
        let mut file = vec![1u8; 10 * 4096];
        file[9 * 4096..].fill(7);
        let mut overlay = Overlay::default();
        let logged = Content::Logged { leading: [2; 8], sector: 9 * 4096, trailing: [3; 4] };
        overlay.insert(4096, 6 * 4096, Content::Zero);
        overlay.insert(2 * 4096, 3 * 4096, logged);
        overlay.insert(5 * 4096, 5 * 4096, logged);
        assert_eq!(overlay.pieces(), 3);
        assert!(
            !overlay.touches(0, 4096) && overlay.touches(4095, 4097) && !overlay.touches(6 * 4096, 7 * 4096)
        );
        overlay.grow(12 * 4096);
        let mut storage = &file[..];
        let mut replayed = Replayed::new(&mut storage, &overlay);
        assert_eq!(replayed.len(), 12 * 4096);
        let mut expected = file.clone();
        expected.resize(12 * 4096, 0);
        expected[4096..6 * 4096].fill(0);
        expected[2 * 4096..3 * 4096].fill(7);
        expected[2 * 4096..2 * 4096 + 8].fill(2);
        expected[3 * 4096 - 4..3 * 4096].fill(3);
        for (start, end) in [(0, 12 * 4096), (8190, 8195), (8200, 12290), (4000, 4100), (24000, 25000)] {
            let mut bytes = vec![0; end - start];
            replayed.read_at(start as u64, &mut bytes).unwrap();
            assert!(bytes == expected[start..end], "{start}..{end}");
        }
        overlay.insert(0, 10 * 4096, Content::Zero);
        assert_eq!(overlay.pieces(), 1);
    }
}
