//! The clusters of a fully allocated image: header, L2 tables, L1 table, refcount blocks and table, data.
//!
//! Bounds, for a disk of at most 2^63 bytes: L2 tables take at most 2^63 / 512 * 8 = 2^57 bytes and one table (extended
//! entries: clusters are 16 KiB or more, so 2^53), the L1 table 1/64 of that, and refcount structures at most 1/62 of
//! the clusters they count (a cluster of 512 bytes holds 64 refcounts of 64 bits). All of it stays below 2^63 + 2^60.

use super::{Geometry, MAX_L1_BYTES};
use crate::Length;

impl Geometry {
    /// Length of the virtual disk in an image of this geometry: `size` rounded up to whole clusters.
    ///
    /// As measured from `qemu-img`.
    ///
    /// ```
    /// use calc::{Length, qcow2::Geometry};
    /// assert_eq!(Geometry::default().virtual_size(Length::new(1).unwrap()).bytes(), 65536);
    /// ```
    pub const fn virtual_size(self, size: Length) -> Length {
        size.round_up(self.cluster_size.bits)
    }

    /// Whether `qemu-img` would make an image for a disk of `size` bytes: whether its L1 table takes at most 32 MiB.
    ///
    /// ```
    /// use calc::{Length, qcow2::Geometry};
    /// let petabytes = |n: u64| Length::new(n << 50).unwrap();
    /// assert!(Geometry::default().fits(petabytes(2)));
    /// assert!(!Geometry::default().fits(petabytes(3)));
    /// ```
    pub const fn fits(self, size: Length) -> bool {
        let clusters = self.virtual_size(size).bytes() >> self.cluster_size.bits;
        let l1_entries = clusters.div_ceil(self.l2_entries_per_table());
        l1_entries * 8 <= MAX_L1_BYTES
    }

    /// Bytes of metadata of an image in which every cluster of a disk of `size` bytes is allocated, without slack.
    ///
    /// Header, L2 tables, L1 table, and the refcount blocks and table that count all of these and themselves; the
    /// disk itself is not included. No encryption header, no snapshots, no bitmaps. Below 2^60. Source: qcow2
    /// specification, sections "Header", "Cluster mapping" and "Host cluster management"; as measured from `qemu-img`.
    ///
    /// ```
    /// use calc::{Length, qcow2::Geometry};
    /// // 1 GiB in clusters of 64 KiB: header, two L2 tables, one L1 table, one refcount block, one refcount table.
    /// assert_eq!(Geometry::default().metadata(Length::new(1 << 30).unwrap()), 6 * 65536);
    /// ```
    pub const fn metadata(self, size: Length) -> u64 {
        let cluster = self.cluster_size.bytes();
        let clusters = self.virtual_size(size).bytes() / cluster;
        let l2_tables = clusters.div_ceil(self.l2_entries_per_table());
        let l1_clusters = l2_tables.div_ceil(cluster / 8);
        let counted = 1 + l2_tables + l1_clusters + clusters;
        (counted - clusters + self.refcount_clusters(counted)) * cluster
    }

    /// Bytes of an image in which every cluster of a disk of `size` bytes is allocated: metadata and disk.
    ///
    /// Below 2^63 + 2^60. As measured from `qemu-img`.
    ///
    /// ```
    /// use calc::{Length, qcow2::Geometry};
    /// assert_eq!(Geometry::default().fully_allocated(Length::new(1 << 30).unwrap()), 1_074_135_040);
    /// ```
    pub const fn fully_allocated(self, size: Length) -> u64 {
        self.metadata(size) + self.virtual_size(size).bytes()
    }

    /// Entries of one L2 table: 32 (2^5) at least.
    pub(super) const fn l2_entries_per_table(self) -> u64 {
        self.cluster_size.bytes() / self.l2_entries.bytes()
    }

    /// Clusters of refcount blocks and refcount table that count `clusters` others and themselves.
    ///
    /// A fixed point, met from below: a round adds at most 1/64 + 1/4096 of what the round before added, so 2^55
    /// clusters take about ten rounds.
    const fn refcount_clusters(self, clusters: u64) -> u64 {
        let counts_per_block = self.cluster_size.bytes() * 8 / self.refcount_bits.bits();
        let blocks_per_table = self.cluster_size.bytes() / 8;
        let mut own = 0;
        loop {
            let blocks = (clusters + own).div_ceil(counts_per_block);
            let needed = blocks + blocks.div_ceil(blocks_per_table);
            if needed == own {
                return own;
            }
            own = needed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterSize, L2Entries, RefcountBits};
    use super::*;

    fn geometry(cluster_size: u64, l2_entries: L2Entries, refcount_bits: u64) -> Geometry {
        let cluster_size = ClusterSize::new(cluster_size).unwrap();
        Geometry::new(cluster_size, l2_entries, RefcountBits::new(refcount_bits).unwrap()).unwrap()
    }

    fn every_geometry() -> impl Iterator<Item = Geometry> {
        (9..=21)
            .flat_map(|bits| (0..=6).map(move |order| (bits, order)))
            .flat_map(|(bits, order)| {
                [L2Entries::Standard, L2Entries::Extended].map(|entries| (bits, order, entries))
            })
            .filter_map(|(bits, order, entries)| {
                Geometry::new(ClusterSize::new(1 << bits)?, entries, RefcountBits::new(1 << order)?)
            })
    }

    #[test]
    fn golden_sizes_of_qemu_img_are_met() {
        let default = Geometry::default();
        let gigabytes = |n: u64| Length::new(n << 30).unwrap();
        assert_eq!(default.metadata(Length::default()), 196_608);
        assert_eq!(default.metadata(gigabytes(1)), 393_216);
        assert_eq!(default.metadata(gigabytes(2048)), 335_806_464);
        assert_eq!(default.fully_allocated(gigabytes(2048)), 2_199_359_062_016);
        assert_eq!(geometry(512, L2Entries::Standard, 16).metadata(gigabytes(1024)), 21_897_254_400);
        let wide = geometry(2 << 20, L2Entries::Extended, 16);
        assert_eq!(wide.metadata(Length::new(1 << 60).unwrap()), 9_895_657_078_784);
    }

    #[test]
    fn the_largest_sizes_are_those_of_the_l1_limit() {
        for (cluster_size, entries, largest) in [
            (512, L2Entries::Standard, 128 << 30),
            (4096, L2Entries::Standard, 8 << 40),
            (16384, L2Entries::Standard, 128 << 40),
            (16384, L2Entries::Extended, 64 << 40),
            (65536, L2Entries::Standard, 2 << 50),
            (65536, L2Entries::Extended, 1 << 50),
            (2 << 20, L2Entries::Standard, 2 << 60),
            (2 << 20, L2Entries::Extended, 1 << 60),
        ] {
            let geometry = geometry(cluster_size, entries, 16);
            assert!(geometry.fits(Length::new(largest).unwrap()), "{geometry:?}");
            assert!(!geometry.fits(Length::new(largest + 1).unwrap()), "{geometry:?}");
        }
    }

    #[test]
    fn no_geometry_overflows_at_the_longest_length() {
        for geometry in every_geometry() {
            assert!(geometry.metadata(Length::MAX) < 1 << 60, "{geometry:?}");
            assert!(geometry.fully_allocated(Length::MAX) < (1 << 63) + (1 << 60), "{geometry:?}");
        }
    }

    #[test]
    fn refcounts_count_everything_once_and_no_more() {
        for geometry in every_geometry() {
            let counts_per_block = geometry.cluster_size.bytes() * 8 / geometry.refcount_bits.bits();
            for clusters in [1, 63, 64, 65, 4095, 4096, 4097, 1 << 20, 1 << 33, (1 << 55) + 1] {
                let own = geometry.refcount_clusters(clusters);
                let blocks = (clusters + own).div_ceil(counts_per_block);
                let table = blocks.div_ceil(geometry.cluster_size.bytes() / 8);
                assert_eq!(own, blocks + table, "{geometry:?} {clusters}");
            }
        }
    }
}
