//! In what pieces `qemu-img` goes over an image when it copies it: what it writes, and in which order, is cut alike.

use crate::{Format, Image, Storage};

/// Bytes of the L2 tables of an image that `qemu-img` keeps in memory; of larger ones it reads slices.
const L2_CACHE: u64 = 32 << 20;
/// Bytes of such a slice.
const L2_SLICE: u64 = 4096;

/// The pieces of one image, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Cluster, block or grain: reads begin at a multiple of it where they can. None in images without any.
    pub cluster: Option<u64>,
    /// No answer about what is allocated reaches past a multiple of this. Without it, an answer goes as far as the
    /// bytes are in a row in the file.
    pub answer: Option<u64>,
}

impl<S: Storage> Image<S> {
    /// In what pieces `qemu-img` goes over the image; as measured from its 10.0.
    pub fn units(&self) -> Units {
        let cluster = self.cluster_len().filter(|&length| length > 0);
        let answer = match self.format() {
            Format::Qcow2 => self.qcow2().map(|qcow2| {
                let header = qcow2.header();
                let (cluster, entry) = (header.cluster_bits().size(), header.l2_entry_len());
                let tables = header.virtual_size().div_ceil(cluster).saturating_mul(entry);
                let slice = match tables.checked_next_multiple_of(cluster) {
                    Some(tables) if tables <= L2_CACHE => cluster,
                    _ => L2_SLICE.min(cluster),
                };
                (slice / entry).saturating_mul(cluster)
            }),
            Format::Qed => self.table_coverage(),
            Format::Vmdk | Format::Vpc | Format::Vdi | Format::Qcow => cluster,
            Format::Raw
            | Format::Vhdx
            | Format::Parallels
            | Format::Luks
            | Format::Bochs
            | Format::Cloop
            | Format::Dmg => None,
        };
        Units { cluster, answer: answer.filter(|&length| length > 0) }
    }
}
