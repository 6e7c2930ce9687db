//! What was counted, held against what the image stores.

use core::ops::Range;

use super::counts::{COPIED, COUNT, Counts, SHARED, WIDE};
use super::log::Log;
use super::stored::{Place, Stored, count};
use crate::{Error, Storage};

/// What the comparison has come to so far, over all windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    /// Clusters that more refers to than is stored.
    pub(super) corruptions: u64,
    /// Clusters that less refers to than is stored.
    pub(super) leaks: u64,
    /// Clusters whose stored count cannot be read.
    pub(super) check_errors: u64,
    /// Last cluster that is stored as used or that something refers to.
    pub(super) highest: u64,
    /// Whether there may be a reference that is marked wrongly as the only one or as one of several.
    pub(super) doubt: bool,
    /// Whether a cluster in use is stored as free.
    pub(super) rebuild: bool,
    /// Whether a place where no block can be was told of.
    told_of_place: bool,
}

/// Clusters of one block and one page.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) length: u64,
}

impl Span {
    /// The clusters of a window in spans.
    pub(super) fn of(window: Range<u64>, block_bits: u32) -> impl Iterator<Item = Self> {
        let mut next = window.start;
        core::iter::from_fn(move || {
            let first = next;
            let in_block = (1 << block_bits) - (first & ((1 << block_bits) - 1));
            let length = in_block.min(Counts::left_in_page(first)).min(window.end.checked_sub(first)?);
            next += length;
            (length > 0).then_some(Self { first, length })
        })
    }

    /// Its clusters.
    pub(super) fn clusters(self) -> Range<u64> {
        self.first..self.first + self.length
    }
}

impl Comparison {
    /// Goes through the clusters of the window.
    pub(super) fn window<S: Storage>(
        &mut self,
        storage: &mut S,
        counts: &Counts,
        stored: &mut Stored,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        for span in Span::of(counts.window(), stored.block_bits()) {
            match stored.place(storage, span.first)? {
                Place::None => self.unstored(counts, span, log),
                Place::At(offset) => self.stored(storage, counts, stored, (span, offset), log)?,
                place => self.unreadable(stored, (span, place), log),
            }
        }
        Ok(())
    }

    /// Clusters that the table has no block for.
    fn unstored(&mut self, counts: &Counts, span: Span, log: &mut Log<'_, '_>) {
        for (cluster, &byte) in span.clusters().zip(counts.page_from(span.first)) {
            self.doubt |= byte & COPIED != 0;
            if byte & COUNT != 0 {
                self.mismatch(cluster, 0, counts.get(cluster), log);
            }
        }
    }

    /// Clusters of a block at `offset`.
    fn stored<S: Storage>(
        &mut self,
        storage: &mut S,
        counts: &Counts,
        stored: &mut Stored,
        (span, offset): (Span, u64),
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        const ZEROS: &[u8] = &[0; super::counts::PAGE];
        /// A plain cluster of data: one reference, and marked so.
        const USUAL: u8 = COPIED | 1;
        let order = stored.order();
        let within = span.first & ((1 << stored.block_bits()) - 1);
        let block = stored.block(storage, span.first, offset)?;
        let page = match counts.page_from(span.first) {
            [] => ZEROS,
            page => page,
        };
        let length = usize::try_from(span.length).unwrap_or(0);
        let page = page.get(..length).unwrap_or(page);
        let mut look = |at: u64, byte: u8, stored: u64| {
            let cluster = span.first + at;
            self.doubt |= byte & if stored == 1 { SHARED } else { COPIED } != 0;
            let counted = if byte & COUNT == WIDE { counts.get(cluster) } else { u64::from(byte & COUNT) };
            if stored != counted {
                self.mismatch(cluster, stored, counted, log);
            } else if stored != 0 {
                self.highest = self.highest.max(cluster);
            }
        };
        let start = usize::try_from(within << order >> 3).unwrap_or(usize::MAX);
        if order == 4 {
            let block = block.get(start..).unwrap_or(&[]);
            let mut usual = None;
            for (at, (bytes, &byte)) in (0..).zip(block.chunks_exact(2).zip(page)) {
                let stored = u16::from_be_bytes([bytes[0], bytes[1]]);
                if stored == 1 && byte == USUAL {
                    usual = Some(at);
                } else if stored != 0 || byte != 0 {
                    look(at, byte, stored.into());
                }
            }
            if let Some(at) = usual {
                self.highest = self.highest.max(span.first + at);
            }
            return Ok(());
        }
        for (at, &byte) in (0..).zip(page) {
            let stored = count(block, order, within + at);
            if stored != 0 || byte != 0 {
                look(at, byte, stored);
            }
        }
        Ok(())
    }

    /// Clusters of a block that is where none can be.
    fn unreadable(&mut self, stored: &Stored, (span, place): (Span, Place), log: &mut Log<'_, '_>) {
        if let Place::Unaligned(offset) = place
            && !core::mem::replace(&mut self.told_of_place, true)
        {
            let index = span.first >> stored.block_bits();
            log.tell(format_args!(
                "qcow2: Image is corrupt: Refblock offset {offset:#x} unaligned (reftable index: {}); further non-fatal corruption events will be suppressed",
                crate::qcow2::hex(index)
            ));
        }
        for cluster in span.clusters() {
            log.tell(format_args!("Can't get refcount for cluster {cluster}: Input/output error"));
        }
        self.check_errors += span.length;
    }

    fn mismatch(&mut self, cluster: u64, stored: u64, counted: u64, log: &mut Log<'_, '_>) {
        self.highest = self.highest.max(cluster);
        self.rebuild |= stored == 0;
        let what = if stored < counted {
            self.corruptions += 1;
            "ERROR"
        } else {
            self.leaks += 1;
            "Leaked"
        };
        log.tell(format_args!("{what} cluster {cluster} refcount={stored} reference={counted}"));
    }
}
