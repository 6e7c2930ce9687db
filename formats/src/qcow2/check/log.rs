//! What a check has found so far, and who is told.

use core::fmt;

use crate::check::{Findings, Tell};

/// The findings of a check, which may take several passes over the image: all but what is counted in each of them is
/// found in the first, and told once.
pub(super) struct Log<'a, 'b> {
    pub(super) findings: Findings,
    /// Whether the refcounts cannot be mended where they are.
    pub(super) rebuild: bool,
    /// Whether this is the first pass.
    pub(super) first: bool,
    tell: &'a mut Tell<'b>,
}

impl<'a, 'b> Log<'a, 'b> {
    pub(super) fn new(tell: &'a mut Tell<'b>) -> Self {
        Self { findings: Findings::default(), rebuild: false, first: true, tell }
    }

    /// Tells a line.
    pub(super) fn tell(&mut self, line: fmt::Arguments<'_>) {
        (self.tell)(line);
    }

    /// An error that each pass finds again.
    pub(super) fn corruption(&mut self, line: fmt::Arguments<'_>) {
        if self.first {
            self.findings.corruptions += 1;
            self.tell(line);
        }
    }

    /// Counts clusters of the disk, of which the first pass comes by all.
    pub(super) fn clusters(&mut self, allocated: u64, fragmented: u64, compressed: u64) {
        if self.first {
            let clusters = &mut self.findings.clusters;
            clusters.allocated += allocated;
            clusters.fragmented += fragmented;
            clusters.compressed += compressed;
        }
    }
}
