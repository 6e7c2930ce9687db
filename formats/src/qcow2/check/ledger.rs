//! References to ranges of the file, on their way to the counts.

use super::counts::{Counted, Counts};
use super::log::Log;
use crate::qcow2::header::Header;

/// Where references are counted.
pub(super) struct Ledger<'a> {
    pub(super) counts: &'a mut Counts,
    file_len: u64,
    cluster_bits: u32,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(header: &Header, file_len: u64, counts: &'a mut Counts) -> Self {
        Self { counts, file_len, cluster_bits: header.cluster_bits().get() }
    }

    /// Counts a reference to each cluster of `length` bytes at `offset`, with a mark.
    #[inline]
    pub(super) fn add(&mut self, offset: u64, length: u64, mark: u8, log: &mut Log<'_, '_>) {
        if length == 0 {
            return;
        }
        let end = offset.saturating_add(length);
        let first = offset >> self.cluster_bits;
        if end >= self.file_len.saturating_add(1 << self.cluster_bits) {
            log.corruption(format_args!(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x{offset:x} size 0x{length:x}"
            ));
            self.counts.mark(first, mark);
            let last = end.saturating_sub(1) >> self.cluster_bits;
            self.counts.stray(first..last.saturating_add(1));
            return;
        }
        for cluster in first..=(end - 1) >> self.cluster_bits {
            let mark = if cluster == first { mark } else { 0 };
            if self.counts.add(cluster, mark) == Counted::Overflow {
                log.findings.corruptions += 1;
                log.overflow = true;
                log.tell(format_args!("ERROR: overflow cluster offset=0x{:x}", cluster << self.cluster_bits));
                log.tell(format_args!(
                    "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing"
                ));
            }
        }
    }
}
