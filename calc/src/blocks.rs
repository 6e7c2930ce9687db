//! Which blocks of a new image hold data.

use crate::Length;

/// Counts the blocks that writes touch, each once. Writes come in ascending order and do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Bytes of the disk that a block holds; not 0.
    bytes: u64,
    /// Number of the block behind the last one counted.
    next: u64,
    count: u64,
}

impl Blocks {
    /// Nothing written yet, to blocks of `bytes`; of 1 byte if that is 0.
    pub(crate) const fn new(bytes: u64) -> Self {
        let bytes = if bytes == 0 { 1 } else { bytes };
        Self { bytes, next: 0, count: 0 }
    }

    /// Counts the blocks between the bytes `start` and, not included, `end` of the disk.
    pub(crate) fn write(&mut self, start: Length, end: Length) {
        let first = (start.bytes() / self.bytes).max(self.next);
        let last = end.bytes().div_ceil(self.bytes);
        if start < end && first < last {
            self.count += last - first;
            self.next = last;
        }
    }

    /// How many blocks were counted: at most as many as the disk has.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of the disk that the blocks counted hold, as whole blocks. Below 2^64 for blocks below 2^63.
    pub(crate) const fn bytes(&self) -> u64 {
        self.count * self.bytes
    }

    /// The number of the block behind the last one counted.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// The same blocks, with nothing written.
    pub(crate) const fn empty(&self) -> Self {
        Self::new(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_once() {
        let at = |bytes| Length::new(bytes).unwrap();
        let mut blocks = Blocks::new(1000);
        for (start, end) in [(0, 1), (999, 1001), (1500, 1500), (1999, 2000), (5000, 7000)] {
            blocks.write(at(start), at(end));
        }
        assert_eq!((blocks.count(), blocks.bytes(), blocks.next()), (4, 4000, 7));
        assert_eq!(blocks.empty().count(), 0);
    }
}
