//! The length of the file that `qemu-img` writes, cluster by cluster as it is written.

mod allocator;
mod spans;

use self::allocator::Allocator;
use super::Geometry;
use crate::Length;

/// Bytes of an L1 entry.
const L1_ENTRY: u64 = 8;
/// Parts of a cluster with an extended L2 entry (specification, "Extended L2 Entries").
const SUBCLUSTERS: u64 = 32;
/// Most bytes of one request (`BDRV_REQUEST_MAX_BYTES`).
const MAX_REQUEST: u64 = (1 << 31) - 512;
/// Most clusters that are encrypted at once (`QCOW_MAX_CRYPT_CLUSTERS`).
const MAX_ENCRYPTED: u64 = 32;
/// Bytes of L2 tables that are kept in memory; what has more of them is written in slices of an L2 table.
const L2_CACHE: u64 = 32 << 20;
/// Bytes of such a slice.
const L2_SLICE: u64 = 4096;

/// What is set aside when the image is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// L2 tables and data clusters as they come, one table and its clusters after the other.
    Metadata,
    /// All data clusters in a row (falloc, full).
    Data,
}

/// What decides where things come to lie in a new image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Clusters, L2 entries, refcounts.
    pub geometry: Geometry,
    /// What is set aside at first.
    pub preallocation: Preallocation,
    /// Bytes of the LUKS header, in whole clusters; 0 without encryption.
    pub luks: u64,
    /// Whether the data is in a file of its own; the length is that of the other file.
    pub data_file: bool,
}

/// Follows the writing of a new image.
///
/// Writes are given in ascending order, each as it is made: at most 2 MiB, in `qemu-img convert`. Memory is constant, and work
/// proportional to the number of writes and of L2 tables. Source: agrees to the byte with the files that `qemu-img`
/// writes.
///
/// ```
/// use calc::{Length, qcow2::{Layout, Writer}};
/// let at = |bytes| Length::new(bytes).unwrap();
/// let mut writer = Writer::new(Layout::default(), at(1 << 30)).unwrap();
/// assert_eq!(writer.length(), Some(3 * 65536 + 2 * 8)); // ends with the L1 table
/// writer.write(at(4096), at(8192));
/// assert_eq!(writer.length(), Some(6 * 65536));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    layout: Layout,
    /// Clusters of the disk.
    disk: u64,
    file: Allocator,
    /// Clusters whose L2 entries are handled together.
    slice: u64,
    /// Most bytes of clusters that one request takes.
    request: u64,
    /// Index of the last L2 table there is.
    l2: Option<u64>,
    /// The last cluster written: of the disk, of the file.
    last: Option<(u64, u64)>,
}

impl Writer {
    /// A new image of a disk of `size` bytes, still empty; `None` where it is too large for the
    /// [geometry](Geometry::fits).
    ///
    /// ```
    /// use calc::{Length, qcow2::{Layout, Writer}};
    /// assert!(Writer::new(Layout::default(), Length::MAX).is_none());
    /// ```
    pub fn new(layout: Layout, size: Length) -> Option<Self> {
        let geometry = layout.geometry;
        if !geometry.fits(size) {
            return None;
        }
        let cluster = geometry.cluster_size.bytes();
        // In whole sectors, as every disk of `qemu-img` is.
        let size = size.round_up(9).bytes();
        let mut writer = Self {
            layout,
            disk: size.div_ceil(cluster),
            file: Allocator::new(geometry),
            slice: geometry.l2_entries_per_table(),
            request: MAX_REQUEST,
            l2: None,
            last: None,
        };
        writer.make_l1();
        match layout.preallocation {
            Preallocation::Off => {}
            Preallocation::Data if !layout.data_file => writer.set_data_aside(),
            Preallocation::Metadata | Preallocation::Data => writer.run(0, size),
        }
        writer.make_luks_header();
        writer.reopen();
        Some(writer)
    }

    /// The bytes from `start` up to, not including, `end` of the disk are written, in one request.
    ///
    /// ```
    /// use calc::{Length, qcow2::{Layout, Writer}};
    /// let at = |bytes| Length::new(bytes).unwrap();
    /// let mut writer = Writer::new(Layout::default(), at(1 << 30)).unwrap();
    /// writer.write(at(0), at(2 << 20)); // 32 clusters
    /// assert_eq!(writer.length(), Some((5 + 32) * 65536));
    /// ```
    pub fn write(&mut self, start: Length, end: Length) {
        // All clusters that were set aside are written in place.
        if self.layout.preallocation == Preallocation::Off {
            let disk = self.disk * self.layout.geometry.cluster_size.bytes();
            self.run(start.bytes(), end.bytes().min(disk));
        }
    }

    /// Length of the file in bytes; `None` where that takes a refcount table of more than 8 MiB: `qemu-img` does not open
    /// such a file.
    ///
    /// ```
    /// use calc::{Length, qcow2::{Layout, Writer}};
    /// let empty = Writer::new(Layout::default(), Length::default()).unwrap();
    /// assert_eq!(empty.length(), Some(3 * 65536)); // header, refcount table, refcount block
    /// ```
    pub fn length(&self) -> Option<u64> {
        self.file.length()
    }

    fn make_l1(&mut self) {
        let bytes = self.disk.div_ceil(self.layout.geometry.l2_entries_per_table()) * L1_ENTRY;
        if bytes > 0 {
            let cluster = self.layout.geometry.cluster_size.bytes();
            let start = self.file.allocate(bytes.div_ceil(cluster));
            self.file.write_to(start * cluster + bytes);
        }
    }

    /// All data clusters behind a refcount table that counts them and the L2 tables, then the L2 tables.
    fn set_data_aside(&mut self) {
        let tables = self.disk.div_ceil(self.layout.geometry.l2_entries_per_table());
        let start = self.file.make_table_for(self.disk + tables + 1);
        self.file.allocate_at(start, self.disk);
        let cluster = self.layout.geometry.cluster_size.bytes();
        self.file.write_to((start + self.disk) * cluster);
        let mut left = 0..tables;
        while let Some(table) = left.next().filter(|_| self.file.length().is_some()) {
            self.make_l2(table);
        }
    }

    fn make_luks_header(&mut self) {
        let cluster = self.layout.geometry.cluster_size.bytes();
        let clusters = self.layout.luks.div_ceil(cluster);
        if clusters > 0 {
            let start = self.file.allocate(clusters);
            self.file.write_to((start + clusters) * cluster);
            self.request = MAX_ENCRYPTED * cluster;
        }
    }

    /// What is known once the size of the disk is.
    fn reopen(&mut self) {
        let geometry = self.layout.geometry;
        let (cluster, entry) = (geometry.cluster_size.bytes(), geometry.l2_entries.bytes());
        if (self.disk * entry).next_multiple_of(cluster) > L2_CACHE {
            self.slice = L2_SLICE.min(cluster) / entry;
        }
    }

    /// Writes from byte `at` up to `end`.
    fn run(&mut self, mut at: u64, end: u64) {
        let cluster = self.layout.geometry.cluster_size.bytes();
        let most = self.request / cluster * cluster;
        while at < end && self.file.length().is_some() {
            let stop = end.min(at - at % cluster + most);
            at = self.run_in_a_row(at, stop);
        }
    }

    /// Writes from byte `at` as far as the clusters are in a row in the file, at most up to `stop`. Gives the byte it
    /// came to.
    fn run_in_a_row(&mut self, mut at: u64, stop: u64) -> u64 {
        let cluster = self.layout.geometry.cluster_size.bytes();
        let mut expected = None;
        while at < stop {
            let first = at / cluster;
            let count = stop.div_ceil(cluster).min((first / self.slice + 1) * self.slice) - first;
            self.make_l2(first / self.layout.geometry.l2_entries_per_table());
            if self.layout.data_file {
                at = stop.min((first + count) * cluster);
                continue;
            }
            let (start, count) = match (self.last.filter(|last| last.0 == first), expected) {
                (Some(last), _) => (last.1, 1),
                (None, None) => (self.file.allocate(count), count),
                (None, Some(start)) => (start, self.file.allocate_at(start, count)),
            };
            if count == 0 {
                break;
            }
            at = stop.min((first + count) * cluster);
            self.last = Some((first + count - 1, start + count - 1));
            let written = at - (first + count - 1) * cluster;
            self.file.write_to((start + count - 1) * cluster + written.next_multiple_of(self.copied()));
            expected = Some(start + count);
        }
        at
    }

    /// Bytes that are written at least where a cluster is new: what surrounds the data is filled up.
    fn copied(&self) -> u64 {
        let cluster = self.layout.geometry.cluster_size.bytes();
        match self.layout.geometry.l2_entries {
            super::L2Entries::Standard => cluster,
            super::L2Entries::Extended => cluster / SUBCLUSTERS,
        }
    }

    /// Makes the L2 table of this index, unless it is there.
    fn make_l2(&mut self, index: u64) {
        if self.l2 != Some(index) {
            let start = self.file.allocate(1);
            self.file.write_to((start + 1) * self.layout.geometry.cluster_size.bytes());
            self.l2 = Some(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterSize, L2Entries, RefcountBits};
    use super::*;

    fn layout(cluster_size: u64, l2_entries: L2Entries, refcount_bits: u64) -> Layout {
        let cluster_size = ClusterSize::new(cluster_size).unwrap();
        let refcount_bits = RefcountBits::new(refcount_bits).unwrap();
        let geometry = Geometry::new(cluster_size, l2_entries, refcount_bits).unwrap();
        Layout { geometry, ..Layout::default() }
    }

    fn empty(layout: Layout, size: u64) -> Option<u64> {
        Writer::new(layout, Length::new(size).unwrap())?.length()
    }

    #[test]
    fn empty_images_are_as_long_as_measured() {
        let standard = |cluster_size| layout(cluster_size, L2Entries::Standard, 16);
        assert_eq!(empty(standard(65536), 0), Some(196_608));
        assert_eq!(empty(standard(65536), 1 << 40), Some(212_992));
        assert_eq!(empty(standard(512), 1 << 20), Some(1792));
        assert_eq!(empty(standard(512), 1 << 30), Some(264_704));
        assert_eq!(empty(standard(2 << 20), 1 << 40), Some(6_291_472));
        assert_eq!(empty(layout(65536, L2Entries::Extended, 16), 1 << 30), Some(196_640));
    }

    #[test]
    fn preallocated_images_are_as_long_as_measured() {
        let of = |preallocation| Layout { preallocation, ..Layout::default() };
        assert_eq!(empty(of(Preallocation::Metadata), 1 << 30), Some(1_074_135_040));
        assert_eq!(empty(of(Preallocation::Metadata), 1 << 40), Some(1_099_679_662_080));
        assert_eq!(empty(of(Preallocation::Data), 64 << 20), Some(67_436_544));
    }

    #[test]
    fn refcount_tables_have_an_end() {
        let largest = layout(2 << 20, L2Entries::Standard, 64);
        let preallocated = Layout { preallocation: Preallocation::Data, ..largest };
        assert_eq!(empty(preallocated, 2 << 60), None);
        assert!(empty(largest, 2 << 60).is_some());
    }

    #[test]
    fn writes_in_one_cluster_and_behind_the_end_are_taken() {
        let at = |bytes| Length::new(bytes).unwrap();
        let mut writer = Writer::new(layout(65536, L2Entries::Extended, 16), at(100_000)).unwrap();
        writer.write(at(0), at(512));
        assert_eq!(writer.length(), Some(5 * 65536 + 2048));
        writer.write(at(4096), at(4097));
        assert_eq!(writer.length(), Some(5 * 65536 + 6144));
        writer.write(at(4097), Length::MAX);
        assert_eq!(writer.length(), Some(7 * 65536));
    }
}
