//! References counted per cluster of the file, in bounded memory.
//!
//! A cluster takes a byte, in pages that are there only once something in them was counted. When the pages together
//! would take more memory than there is, those at the end go, and what they held is left for another pass over the
//! image: a pass counts the clusters of a [window](Counts::window), and the next one begins where that ended.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Clusters of a page, as a power of two.
const PAGE_BITS: u32 = 15;
/// Clusters of a page.
pub(super) const PAGE: usize = 1 << PAGE_BITS;

/// The count in a cluster's byte.
pub(super) const COUNT: u8 = 0x3f;
/// In place of a count: it does not fit and is in a page of [`Wide`].
pub(super) const WIDE: u8 = COUNT;
/// An entry of an active table says that it is the only reference.
pub(super) const COPIED: u8 = 1 << 7;
/// An entry of an active table says that it is not.
pub(super) const SHARED: u8 = 1 << 6;

/// Counts that do not fit into a byte, of all clusters of a page.
type Wide = Box<[u64]>;
/// Bytes of such a page.
const WIDE_LEN: usize = PAGE * size_of::<u64>();

/// What became of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// It was counted, now or in another pass.
    Counted,
    /// The count is as high as a stored one can be, and stays.
    Overflow,
}

/// The counts of the clusters of a window.
#[derive(Debug)]
pub(super) struct Counts {
    pages: Vec<Box<[u8]>>,
    wide: BTreeMap<usize, Wide>,
    /// Clusters of the file, and one more if something reaches into that.
    clusters: u64,
    window: Range<u64>,
    /// Largest count that the image can store.
    max: u64,
    /// Largest count that is counted in a byte.
    byte_max: u8,
    /// Bytes that pages take and may take.
    used: usize,
    memory: usize,
    /// Whether marks may be wrong that are not kept.
    doubt: bool,
    strays: Strays,
}

impl Counts {
    /// Counts for a file of so many `clusters`, none of them above `max`. At least one page of each kind is had,
    /// whatever the `memory` in bytes.
    pub(super) fn new(clusters: u64, max: u64, memory: usize) -> Self {
        let pages = usize::try_from((clusters + 1).div_ceil(PAGE as u64)).unwrap_or(0);
        let mut none = Vec::new();
        none.resize_with(pages, Box::default);
        let byte_max = u8::try_from(max).map_or(WIDE - 1, |max| max.min(WIDE - 1));
        Self {
            pages: none,
            wide: BTreeMap::new(),
            clusters,
            window: 0..u64::MAX,
            max,
            byte_max,
            used: 0,
            memory,
            doubt: false,
            strays: Strays::behind(clusters),
        }
    }

    /// The same for a file of more clusters.
    pub(super) fn for_more(&self, clusters: u64) -> Self {
        Self::new(clusters, self.max, self.memory)
    }

    /// Clusters that are counted in this pass.
    pub(super) fn window(&self) -> Range<u64> {
        self.window.start..self.window.end.min(self.clusters)
    }

    /// Whether the window is the whole file.
    pub(super) fn has_all(&self) -> bool {
        self.window() == (0..self.clusters)
    }

    /// Number of clusters in all.
    pub(super) fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Whether there are marks that may be wrong and are not kept: those of clusters that are not counted.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt
    }

    /// Remembers that something refers to clusters behind the file.
    pub(super) fn stray(&mut self, clusters: Range<u64>) {
        self.strays.add(clusters);
    }

    /// First of so many clusters in a row, from `first` on, that nothing refers to; `first` is behind the file.
    pub(super) fn free_behind(&self, first: u64, length: u64) -> Option<u64> {
        self.strays.gap(first.max(self.clusters), length)
    }

    /// Tells of a mark that may be wrong.
    pub(super) fn doubt_if(&mut self, doubt: bool) {
        self.doubt |= doubt;
    }

    /// Forgets all counts and goes on behind the window; says whether there is anything left to count.
    pub(super) fn next_window(&mut self) -> bool {
        let start = self.window().end;
        self.restart(start);
        start < self.clusters
    }

    /// Forgets all counts; those from `start` on are to be counted.
    pub(super) fn restart(&mut self, start: u64) {
        self.pages.fill_with(Box::default);
        self.wide.clear();
        self.used = 0;
        self.window = start..u64::MAX;
    }

    /// Counts a reference to a cluster, which is one of the file or the one behind it. `mark` is [`COPIED`],
    /// [`SHARED`] or 0.
    #[inline]
    pub(super) fn add(&mut self, cluster: u64, mark: u8) -> Counted {
        let (page, at) = place(cluster);
        if let Some(byte) = self.pages.get_mut(page).and_then(|page| page.get_mut(at))
            && *byte & COUNT < self.byte_max
            && cluster < self.clusters
        {
            *byte = (*byte | mark) + 1;
            return Counted::Counted;
        }
        self.add_slowly(cluster, mark)
    }

    #[cold]
    fn add_slowly(&mut self, cluster: u64, mark: u8) -> Counted {
        let (page, at) = place(cluster);
        if page >= self.pages.len() {
            self.doubt |= mark != 0;
            return Counted::Counted;
        }
        self.clusters = self.clusters.max(cluster + 1);
        self.mark(cluster, mark);
        let Some(&byte) = self.pages.get(page).and_then(|page| page.get(at)) else { return Counted::Counted };
        let count = self.get(cluster);
        if count == self.max {
            return Counted::Overflow;
        }
        let fits = byte & COUNT < self.byte_max;
        if !fits && !self.widen(page) {
            return Counted::Counted;
        }
        let Some(byte) = self.pages.get_mut(page).and_then(|page| page.get_mut(at)) else {
            return Counted::Counted;
        };
        if fits {
            *byte += 1;
        } else if let Some(wide) = self.wide.get_mut(&page).and_then(|wide| wide.get_mut(at)) {
            *byte |= WIDE;
            *wide = count + 1;
        }
        Counted::Counted
    }

    /// Marks a cluster without counting anything.
    pub(super) fn mark(&mut self, cluster: u64, mark: u8) {
        if cluster >= self.clusters {
            self.doubt |= mark != 0;
            return;
        }
        let (page, at) = place(cluster);
        if !self.window.contains(&cluster) || !self.have(page) {
            return;
        }
        if let Some(byte) = self.pages.get_mut(page).and_then(|page| page.get_mut(at)) {
            *byte |= mark;
        }
    }

    /// How often a cluster of the window was counted.
    pub(super) fn get(&self, cluster: u64) -> u64 {
        let (page, at) = place(cluster);
        match self.pages.get(page).and_then(|page| page.get(at)).map_or(0, |byte| byte & COUNT) {
            WIDE => self.wide.get(&page).and_then(|wide| wide.get(at)).copied().unwrap_or(0),
            count => count.into(),
        }
    }

    /// The bytes of the clusters from `cluster` on to the end of its page; nothing if they are all 0.
    pub(super) fn page_from(&self, cluster: u64) -> &[u8] {
        let (page, at) = place(cluster);
        self.pages.get(page).and_then(|page| page.get(at..)).unwrap_or(&[])
    }

    /// Clusters from `cluster` on to the end of its page.
    pub(super) fn left_in_page(cluster: u64) -> u64 {
        PAGE as u64 - cluster % PAGE as u64
    }

    /// Makes sure that a page is there, or leaves it out of the window.
    fn have(&mut self, page: usize) -> bool {
        if self.pages.get(page).is_some_and(|page| !page.is_empty()) {
            return true;
        }
        if !self.make_room(page, PAGE) {
            return false;
        }
        if let Some(slot) = self.pages.get_mut(page) {
            *slot = vec![0; PAGE].into_boxed_slice();
        }
        true
    }

    /// Makes sure that a page, which is there, has room for large counts, or leaves it out of the window.
    fn widen(&mut self, page: usize) -> bool {
        if self.wide.contains_key(&page) {
            return true;
        }
        if !self.make_room(page, WIDE_LEN) {
            return false;
        }
        self.wide.insert(page, vec![0; PAGE].into_boxed_slice());
        true
    }

    /// Takes `length` bytes for `page`; pages behind it go, and itself as the last, if there are not as many. The first
    /// page of the window is had in any case.
    fn make_room(&mut self, page: usize, length: usize) -> bool {
        let first = place(self.window.start).0;
        while self.used + length > self.memory {
            let Some(last) = self.pages.iter().rposition(|page| !page.is_empty()) else { break };
            let last = last.max(page);
            if last == first {
                break;
            }
            if let Some(slot) = self.pages.get_mut(last)
                && !core::mem::take(slot).is_empty()
            {
                self.used -= PAGE;
            }
            if self.wide.remove(&last).is_some() {
                self.used -= WIDE_LEN;
            }
            self.window.end = last as u64 * PAGE as u64;
            if last == page {
                return false;
            }
        }
        self.used += length;
        true
    }
}

/// Clusters close behind the end of the file that something refers to, wrongly: a bit each.
#[derive(Debug)]
struct Strays {
    first: u64,
    bits: Vec<u64>,
}

impl Strays {
    /// Words of 64 clusters.
    const WORDS: usize = 4096;

    fn behind(first: u64) -> Self {
        Self { first, bits: vec![0; Self::WORDS] }
    }

    fn end(&self) -> u64 {
        self.first + Self::WORDS as u64 * 64
    }

    fn add(&mut self, clusters: Range<u64>) {
        for cluster in clusters.start.max(self.first)..clusters.end.min(self.end()) {
            let at = cluster - self.first;
            if let Some(word) = usize::try_from(at / 64).ok().and_then(|at| self.bits.get_mut(at)) {
                *word |= 1 << (at % 64);
            }
        }
    }

    /// First place of so many clusters in a row that are known to be none of these.
    fn gap(&self, first: u64, length: u64) -> Option<u64> {
        let mut start = first;
        let mut next = first;
        while next < start.checked_add(length)? {
            let at = next.checked_sub(self.first)?;
            let word = usize::try_from(at / 64).ok().and_then(|at| self.bits.get(at))?;
            next += 1;
            if word >> (at % 64) & 1 != 0 {
                start = next;
            }
        }
        Some(start)
    }
}

/// Page of a cluster and its place there.
fn place(cluster: u64) -> (usize, usize) {
    let page = usize::try_from(cluster >> PAGE_BITS).unwrap_or(usize::MAX);
    let at = usize::try_from(cluster & (PAGE as u64 - 1)).unwrap_or(0);
    (page, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grow_beyond_a_byte_up_to_the_largest() {
        let mut counts = Counts::new(100, u64::from(u16::MAX), usize::MAX / 2);
        for _ in 0..1000 {
            assert_eq!(counts.add(7, 0), Counted::Counted);
        }
        counts.add(8, COPIED);
        assert_eq!((counts.get(7), counts.get(8), counts.get(9)), (1000, 1, 0));
        assert_eq!(counts.page_from(8)[0], COPIED | 1);
        for max in [1, 3, 15, 62, 63, 255] {
            let mut counts = Counts::new(100, max, usize::MAX / 2);
            for _ in 0..max {
                assert_eq!(counts.add(7, SHARED), Counted::Counted);
            }
            assert_eq!(counts.add(7, 0), Counted::Overflow);
            assert_eq!(counts.get(7), max);
        }
    }

    #[test]
    fn the_cluster_behind_the_file_may_be_counted() {
        let mut counts = Counts::new(PAGE as u64, 9, PAGE * 8);
        assert_eq!(counts.window(), 0..PAGE as u64);
        counts.mark(PAGE as u64, SHARED);
        assert!(counts.is_in_doubt());
        counts.add(PAGE as u64, 0);
        assert_eq!((counts.clusters(), counts.get(PAGE as u64)), (PAGE as u64 + 1, 1));
    }

    #[test]
    fn what_is_referred_to_behind_the_file_is_not_free() {
        let mut counts = Counts::new(10, 9, 0);
        counts.stray(5..12);
        counts.stray(15..u64::MAX);
        assert_eq!(counts.free_behind(0, 3), Some(12));
        assert_eq!(counts.free_behind(0, 4), None);
        let mut counts = Counts::new(10, 9, 0);
        counts.stray(1 << 50..1 << 51);
        assert_eq!(counts.free_behind(11, 1000), Some(11));
    }

    #[test]
    fn windows_together_hold_all_counts() {
        let clusters = PAGE as u64 * 10;
        let references: Vec<u64> = (0..5000).map(|at| at * 7919 * 13 % clusters).chain([5; 500]).collect();
        let mut all = Counts::new(clusters, u64::MAX, usize::MAX / 2);
        references.iter().for_each(|&cluster| assert_eq!(all.add(cluster, COPIED), Counted::Counted));
        let mut few = Counts::new(clusters, u64::MAX, PAGE * 3);
        let mut windows = 0;
        loop {
            references.iter().for_each(|&cluster| assert_eq!(few.add(cluster, COPIED), Counted::Counted));
            windows += 1;
            for cluster in few.window() {
                assert_eq!(few.get(cluster), all.get(cluster), "{cluster}");
            }
            if !few.next_window() {
                break;
            }
        }
        assert!((4..=10).contains(&windows), "{windows}");
    }
}
