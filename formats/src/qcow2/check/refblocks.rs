//! The references of the refcount table to its blocks.

use super::counts::Counts;
use super::ledger::Ledger;
use super::log::Log;
use super::pen::Pen;
use super::stored::{OFFSET_MASK, RESERVED, Stored};
use crate::check::{Release, Repair};
use crate::qcow2::header::Header;
use crate::{Error, Storage};

/// Since then bits of an entry that must not be set are told from its offset.
const STRICT: Release = Release { major: 6, minor: 2 };

/// Counts the blocks in the window. One that cannot be where it is makes it necessary to build all of them anew.
pub(super) fn count<S: Storage>(
    storage: &mut S,
    (header, release): (&Header, Release),
    stored: &mut Stored,
    counts: &mut Counts,
    pen: &dyn Pen<S>,
    log: &mut Log<'_, '_>,
) -> Result<(), Error> {
    let cluster_bits = header.cluster_bits();
    let file_len = storage.len();
    for index in 0..stored.entries() {
        let (offset, reserved) = match stored.entry(storage, index)? {
            0 => continue,
            entry if release >= STRICT => (entry & OFFSET_MASK, entry & RESERVED != 0),
            entry => (entry, false),
        };
        let cluster = offset >> cluster_bits.get();
        if reserved {
            log.corruption(format_args!("ERROR refcount table entry {index} has reserved bits set"));
            log.rebuild = true;
        } else if !cluster_bits.aligned(offset) {
            log.corruption(format_args!(
                "ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
            ));
            log.rebuild = true;
        } else if cluster >= counts.clusters() {
            let what = if pen.repair() == Repair::All { "Repairing" } else { "ERROR" };
            log.corruption(format_args!("{what} refcount block {index} is outside image"));
            if pen.repair() == Repair::All {
                // The file does not grow by an image's word: the new table has no such block.
                log.repaired();
                log.rebuild = true;
            }
        } else if offset != 0 {
            Ledger::new(header, file_len, counts).add(offset, cluster_bits.size(), 0, log);
            let count = counts.get(cluster);
            if counts.window().contains(&cluster) && count != 1 {
                log.findings.corruptions += 1;
                log.tell(format_args!("ERROR refcount block {index} refcount={count}"));
                log.rebuild = true;
            }
        }
    }
    Ok(())
}
