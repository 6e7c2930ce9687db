//! Stored counts made what was counted, where they are.

use super::compare::Span;
use super::counts::Counts;
use super::log::Log;
use super::pen::Pen;
use super::stored::Stored;
use crate::check::Repair;
use crate::{Error, Storage};

/// Goes through the clusters of the window again, now that what is found can be repaired; nothing is to be built anew.
pub(super) fn window<S: Storage>(
    storage: &mut S,
    counts: &Counts,
    stored: &mut Stored,
    pen: &mut dyn Pen<S>,
    log: &mut Log<'_, '_>,
) -> Result<(), Error> {
    for span in Span::of(counts.window(), stored.block_bits()) {
        let mut changed = false;
        for cluster in span.clusters() {
            let Ok(was) = stored.get(storage, cluster)? else {
                log.tell(format_args!("Can't get refcount for cluster {cluster}: Input/output error"));
                log.findings.check_errors += 1;
                continue;
            };
            let counted = counts.get(cluster);
            if was == counted {
                continue;
            }
            let is_leak = was > counted;
            let what = if is_leak || pen.repair() == Repair::All {
                stored.set(cluster, counted);
                changed = true;
                "Repairing"
            } else {
                "ERROR"
            };
            let findings = &mut log.findings;
            match (what, is_leak) {
                ("ERROR", _) => findings.corruptions += 1,
                (_, true) => findings.leaks_fixed += 1,
                (_, false) => findings.corruptions_fixed += 1,
            }
            log.tell(format_args!("{what} cluster {cluster} refcount={was} reference={counted}"));
        }
        if changed {
            stored.write_back(storage, pen)?;
        }
    }
    Ok(())
}
