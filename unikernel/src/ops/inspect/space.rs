//! Which parts of a file are in use, and whether any is twice.

use alloc::vec::Vec;

/// Most runs that are kept: 8 MiB of them. Neighbours are one run.
pub const RUNS_MAX: usize = 1 << 19;

/// Parts of a file, as runs `[start, end)`.
#[derive(Debug, Default)]
pub struct Space {
    runs: Vec<(u64, u64)>,
    /// Where two of them overlap, once that is known.
    overlap: Option<u64>,
    gave_up: bool,
}

/// What came of comparing all parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlaps {
    /// Each is in a place of its own.
    None,
    /// Two are at this offset.
    At(u64),
    /// They are too many to say.
    Unknown,
}

impl Space {
    /// Takes `length` bytes at `offset`.
    pub fn take(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        if self.gave_up || offset == end {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.1 == offset => last.1 = end,
            _ => {
                if self.runs.len() == RUNS_MAX {
                    self.merge();
                    if self.runs.len() > RUNS_MAX / 2 {
                        (self.runs, self.gave_up) = (Vec::new(), true);
                        return;
                    }
                }
                self.runs.push((offset, end));
            }
        }
    }

    /// Makes neighbours one, and finds out whether any two overlap.
    fn merge(&mut self) {
        self.runs.sort_unstable();
        let overlap = &mut self.overlap;
        self.runs.dedup_by(|next, run| {
            if next.0 < run.1 {
                overlap.get_or_insert(next.0);
            }
            let joined = next.0 <= run.1;
            if joined {
                run.1 = run.1.max(next.1);
            }
            joined
        });
    }

    /// Whether any two of all parts overlap.
    pub fn overlaps(mut self) -> Overlaps {
        self.merge();
        match self.overlap {
            Some(offset) => Overlaps::At(offset),
            None if self.gave_up => Overlaps::Unknown,
            None => Overlaps::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: impl IntoIterator<Item = (u64, u64)>) -> Overlaps {
        let mut space = Space::default();
        for (offset, length) in parts {
            space.take(offset, length);
        }
        space.overlaps()
    }

    #[test]
    fn parts_that_touch_do_not_overlap() {
        assert_eq!(of([]), Overlaps::None);
        assert_eq!(of([(10, 5), (15, 5), (0, 10), (30, 1), (20, 10)]), Overlaps::None);
        assert_eq!(of([(10, 0), (10, 0), (0, 20)]), Overlaps::None);
        assert_eq!(of([(10, 5), (14, 1)]), Overlaps::At(14));
        assert_eq!(of([(10, 5), (15, 5), (0, 100)]), Overlaps::At(10));
        assert_eq!(of([(7, 1), (3, 1), (7, 1)]), Overlaps::At(7));
        assert_eq!(of([(u64::MAX - 1, 9), (u64::MAX - 1, 1)]), Overlaps::At(u64::MAX - 1));
    }

    #[test]
    fn memory_is_bounded() {
        let many = RUNS_MAX as u64 + 10;
        // In pairs that become one, and apart.
        assert_eq!(of((0..many).map(|part| (part ^ 1, 1))), Overlaps::None);
        assert_eq!(of((0..many).map(|part| (part ^ 1, 1)).chain([(5, 1)])), Overlaps::At(5));
        assert_eq!(of((0..many).map(|part| (2 * part, 1))), Overlaps::Unknown);
        assert_eq!(of((0..many).map(|part| (2 * (part % 100), 1))), Overlaps::At(0));
    }
}
