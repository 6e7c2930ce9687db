//! A small set of numbers, kept as ascending spans.

use core::ops::Range;

/// Most spans kept apart. An image that grows has half a dozen at once.
const CAPACITY: usize = 24;

/// Numbers as disjoint spans `[start, end)` that do not touch.
///
/// In constant memory: where there would be more than [`CAPACITY`] spans, the gap between the lowest two is taken as part
/// of the set. Whoever grows an image has left those gaps behind long before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    spans: [(u64, u64); CAPACITY],
    count: usize,
}

impl Spans {
    pub(super) const fn new() -> Self {
        Self { spans: [(0, 0); CAPACITY], count: 0 }
    }

    fn as_slice(&self) -> &[(u64, u64)] {
        self.spans.get(..self.count).unwrap_or(&[])
    }

    /// Adds the numbers of `range`.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Mostly the highest span grows.
        if let Some(last) = self.count.checked_sub(1).and_then(|last| self.spans.get_mut(last))
            && last.0 <= range.start
            && range.start <= last.1
        {
            last.1 = last.1.max(range.end);
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        let first = self.as_slice().partition_point(|span| span.1 < start);
        let mut behind = first;
        while let Some(&span) = self.as_slice().get(behind).filter(|span| span.0 <= end) {
            (start, end) = (start.min(span.0), end.max(span.1));
            behind += 1;
        }
        self.replace(first, behind, &[(start, end)]);
    }

    /// Takes the numbers of `range` out, which are all in one span.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let at = self.as_slice().partition_point(|span| span.1 <= range.start);
        let Some(&(start, end)) = self.as_slice().get(at) else { return };
        match (start < range.start, range.end < end) {
            (false, false) => self.replace(at, at + 1, &[]),
            (true, false) => self.replace(at, at + 1, &[(start, range.start)]),
            (false, true) => self.replace(at, at + 1, &[(range.end, end)]),
            (true, true) => self.replace(at, at + 1, &[(start, range.start), (range.end, end)]),
        }
    }

    /// The first span that ends behind `number`.
    pub(super) fn from(&self, number: u64) -> Option<(u64, u64)> {
        let slice = self.as_slice();
        if slice.last().is_none_or(|last| last.1 <= number) {
            return None;
        }
        slice.get(slice.partition_point(|span| span.1 <= number)).copied()
    }

    /// The first number of `range` that is not in the set.
    pub(super) fn first_missing(&self, range: Range<u64>) -> Option<u64> {
        let missing = match self.from(range.start) {
            Some((start, end)) if start <= range.start => end,
            _ => range.start,
        };
        (missing < range.end).then_some(missing)
    }

    /// How many numbers of `range` are not in the set.
    pub(super) fn count_missing(&self, range: Range<u64>) -> u64 {
        let present = |&(start, end): &(u64, u64)| end.min(range.end).saturating_sub(start.max(range.start));
        range.end.saturating_sub(range.start) - self.as_slice().iter().map(present).sum::<u64>()
    }

    /// One more than the highest number; 0 if there is none.
    pub(super) fn end(&self) -> u64 {
        self.as_slice().last().map_or(0, |span| span.1)
    }

    /// Puts `new` in the place of the spans from index `first` up to, not including, `behind`.
    fn replace(&mut self, first: usize, behind: usize, new: &[(u64, u64)]) {
        let old = *self;
        self.count = 0;
        let (head, tail) = (old.as_slice().get(..first), old.as_slice().get(behind..));
        for span in head.into_iter().chain([new]).chain(tail).flatten() {
            self.push(*span);
        }
    }

    fn push(&mut self, span: (u64, u64)) {
        if self.count == CAPACITY {
            self.spans[1].0 = self.spans[0].0;
            self.spans.copy_within(1.., 0);
            self.count -= 1;
        }
        self.spans[self.count] = span;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_merge_and_split() {
        let mut spans = Spans::new();
        spans.insert(10..20);
        spans.insert(30..40);
        spans.insert(20..25);
        assert_eq!(spans.as_slice(), [(10, 25), (30, 40)]);
        assert_eq!(spans.first_missing(12..40), Some(25));
        assert_eq!(spans.count_missing(0..50), 10 + 5 + 10);
        spans.insert(24..31);
        assert_eq!(spans.as_slice(), [(10, 40)]);
        assert_eq!(spans.first_missing(12..40), None);
        spans.remove(15..20);
        spans.remove(10..12);
        spans.remove(38..40);
        assert_eq!(spans.as_slice(), [(12, 15), (20, 38)]);
        assert_eq!((spans.from(15), spans.from(38), spans.end()), (Some((20, 38)), None, 38));
        spans.remove(12..15);
        assert_eq!(spans.as_slice(), [(20, 38)]);
    }

    #[test]
    fn the_lowest_gap_is_forgotten_when_there_are_too_many() {
        let mut spans = Spans::new();
        for number in 0..=CAPACITY as u64 {
            spans.insert(2 * number..2 * number + 1);
        }
        assert_eq!(
            (spans.count, spans.as_slice()[0], spans.end()),
            (CAPACITY, (0, 3), 2 * CAPACITY as u64 + 1)
        );
    }
}
