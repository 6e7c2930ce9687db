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
    /// Whether references were left uncounted as there is no room for more in a stored count.
    pub(super) overflow: bool,
    tell: &'a mut Tell<'b>,
}

impl<'a, 'b> Log<'a, 'b> {
    pub(super) fn new(tell: &'a mut Tell<'b>) -> Self {
        Self { findings: Findings::default(), rebuild: false, first: true, overflow: false, tell }
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

    /// An error that was told last is repaired.
    pub(super) fn repaired(&mut self) {
        if self.first {
            self.findings.corruptions = self.findings.corruptions.saturating_sub(1);
            self.findings.corruptions_fixed += 1;
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
