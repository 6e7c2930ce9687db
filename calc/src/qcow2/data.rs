//! Which clusters of the new image hold data.

use super::ClusterSize;
use crate::Length;

/// Counts the clusters of a new image that runs of source data touch, each once.
///
/// Runs are given in ascending order and do not overlap. As measured from `qemu-img`: a run counts from the cluster it
/// begins in to the end of the cluster it ends in, and what a later run shares with that last cluster is not counted
/// again.
///
/// ```
/// use calc::{Length, qcow2::{ClusterSize, DataClusters}};
/// let at = |bytes| Length::new(bytes).unwrap();
/// let mut data = DataClusters::new(ClusterSize::new(4096).unwrap());
/// data.add(at(512), at(1024)); // cluster 0
/// data.add(at(2048), at(4097)); // cluster 0 again, and cluster 1
/// data.add(at(20480), at(20481)); // cluster 5
/// assert_eq!(data.bytes(), 3 * 4096);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DataClusters {
    cluster_size: ClusterSize,
    /// End of the last cluster counted.
    counted_to: u64,
    bytes: u64,
}

impl DataClusters {
    /// Nothing counted yet, for a target with clusters of `cluster_size`.
    ///
    /// ```
    /// use calc::qcow2::{ClusterSize, DataClusters};
    /// assert_eq!(DataClusters::new(ClusterSize::DEFAULT).bytes(), 0);
    /// ```
    pub const fn new(cluster_size: ClusterSize) -> Self {
        Self { cluster_size, counted_to: 0, bytes: 0 }
    }

    /// Counts the data from byte `start` up to, not including, byte `end` of the disk.
    ///
    /// ```
    /// use calc::{Length, qcow2::{ClusterSize, DataClusters}};
    /// let mut data = DataClusters::new(ClusterSize::DEFAULT);
    /// data.add(Length::new(65535).unwrap(), Length::new(65537).unwrap());
    /// assert_eq!(data.bytes(), 131072);
    /// ```
    pub fn add(&mut self, start: Length, end: Length) {
        let cluster = self.cluster_size.bytes();
        let first = (start.bytes() / cluster * cluster).max(self.counted_to);
        let last = end.round_up(self.cluster_size.bits).bytes();
        if start < end && first < last {
            self.bytes += last - first;
            self.counted_to = last;
        }
    }

    /// Bytes of the clusters counted: a multiple of the cluster size, at most 2^63 because no cluster counts twice.
    ///
    /// ```
    /// use calc::{Length, qcow2::{ClusterSize, DataClusters}};
    /// let mut data = DataClusters::new(ClusterSize::DEFAULT);
    /// data.add(Length::default(), Length::MAX);
    /// assert_eq!(data.bytes(), 1 << 63);
    /// ```
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as the reference applies it: ask for the status at an offset, jump over whole clusters of data.
    fn by_asking(cluster: u64, length: u64, runs: &[(u64, u64)]) -> u64 {
        let (mut at, mut required) = (0, 0);
        while at < length {
            let next = runs.iter().find(|run| run.1 > at);
            match next {
                Some(&(start, end)) if start <= at => {
                    let n = end.next_multiple_of(cluster) - at;
                    required += at % cluster + n;
                    at += n;
                }
                Some(&(start, _)) => at = start,
                None => break,
            }
        }
        required
    }

    #[test]
    fn counting_runs_equals_asking_offset_by_offset() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let cluster = 512 << random(4);
            let (mut runs, mut count, mut end) = ([(0, 0); 8], 0, 0);
            for run in &mut runs {
                let start = end + random(3000);
                if start >= 20_000 {
                    break;
                }
                end = start + 1 + random(3000);
                *run = (start, end);
                count += 1;
            }
            let mut data = DataClusters::new(ClusterSize::new(cluster).unwrap());
            for &(start, end) in &runs[..count] {
                data.add(Length::new(start).unwrap(), Length::new(end).unwrap());
            }
            assert_eq!(data.bytes(), by_asking(cluster, 30_000, &runs[..count]), "{cluster} {runs:?}");
        }
    }

    #[test]
    fn runs_out_of_order_never_count_twice() {
        let length = |bytes| Length::new(bytes).unwrap();
        let mut data = DataClusters::new(ClusterSize::DEFAULT);
        for _ in 0..3 {
            data.add(length(0), Length::MAX);
            data.add(length(5), length(5));
            data.add(length(9), length(3));
        }
        assert_eq!(data.bytes(), 1 << 63);
    }
}
