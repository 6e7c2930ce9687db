//! Which clusters of a file were found in use.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{Error, ErrorKind};

/// Clusters of a page, a bit each.
const PAGE_CLUSTERS: u64 = 4096;
const WORDS: usize = 64;
/// Bytes that a page and its share of the index take at most, while the list of pages grows.
const PAGE_LEN: usize = 3 * 8 * WORDS + 64;

/// A set of cluster numbers that takes memory for what is in it, not for the length of the file: 512 bytes for each run
/// of 4096 clusters of which one is in use.
#[derive(Debug)]
pub(crate) struct Used {
    /// Numbers of pages, and where they are.
    index: BTreeMap<u64, usize>,
    pages: Vec<[u64; WORDS]>,
    /// The page that was looked at last: clusters mostly come in order.
    last: Option<(u64, usize)>,
    count: u64,
    /// Most pages.
    max: usize,
}

impl Used {
    /// An empty set that takes `memory` bytes at most, but at least a page.
    pub(crate) fn new(memory: usize) -> Self {
        let max = memory / PAGE_LEN;
        Self { index: BTreeMap::new(), pages: Vec::new(), last: None, count: 0, max: max.max(1) }
    }

    /// Adds a cluster and tells whether it is new; fails if that takes too much memory.
    pub(crate) fn insert(&mut self, cluster: u64) -> Result<bool, Error> {
        let number = cluster / PAGE_CLUSTERS;
        let at = match self.last {
            Some((last, at)) if last == number => at,
            _ => self.page(number)?,
        };
        self.last = Some((number, at));
        let mask = 1 << (cluster % 64);
        let word = usize::try_from(cluster % PAGE_CLUSTERS / 64).unwrap_or(0);
        let Some(word) = self.pages.get_mut(at).and_then(|page| page.get_mut(word)) else { return Ok(false) };
        let new = *word & mask == 0;
        *word |= mask;
        self.count += u64::from(new);
        Ok(new)
    }

    /// Whether a cluster is in the set.
    pub(crate) fn contains(&self, cluster: u64) -> bool {
        let word = usize::try_from(cluster % PAGE_CLUSTERS / 64).unwrap_or(0);
        let page = self.index.get(&(cluster / PAGE_CLUSTERS)).and_then(|&at| self.pages.get(at));
        page.and_then(|page| page.get(word)).is_some_and(|word| word >> (cluster % 64) & 1 != 0)
    }

    /// Number of clusters in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Where the page `number` is, made if there is none.
    fn page(&mut self, number: u64) -> Result<usize, Error> {
        if let Some(&at) = self.index.get(&number) {
            return Ok(at);
        }
        if self.pages.len() >= self.max || self.pages.try_reserve(1).is_err() {
            let message = "Not enough memory to remember which clusters are in use";
            return Err(Error::new(ErrorKind::Limit, "clusters", message));
        }
        self.pages.push([0; WORDS]);
        self.index.insert(number, self.pages.len() - 1);
        Ok(self.pages.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_new_once_and_memory_is_for_what_is_used() {
        let mut used = Used::new(1 << 20);
        let clusters = [0, 63, 64, 4095, 4096, 1 << 50, u64::MAX, 1, 4097];
        for cluster in clusters {
            assert!(!used.contains(cluster));
            assert_eq!(used.insert(cluster), Ok(true), "{cluster}");
            assert!(used.contains(cluster));
        }
        for cluster in clusters {
            assert_eq!(used.insert(cluster), Ok(false), "{cluster}");
        }
        assert!(!used.contains(2) && !used.contains(1 << 40));
        assert_eq!((used.count(), used.pages.len()), (9, 4));
        let mut small = Used::new(PAGE_LEN);
        assert_eq!(small.insert(7), Ok(true));
        assert_eq!(small.insert(4096).unwrap_err().kind, ErrorKind::Limit);
    }
}
