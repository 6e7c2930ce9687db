//! Whether entries of active tables say rightly that they are the only reference to their cluster.

use alloc::vec;
use core::ops::Range;

use zerocopy::big_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::l2::{Class, Classes};
use super::log::Log;
use super::pen::Pen;
use super::stored::Stored;
use crate::check::Repair;
use crate::qcow2::entry::{COPIED, Decoder, OFFSET_MASK};
use crate::qcow2::header::Header;
use crate::table::Table;
use crate::{Error, Storage};

/// Entries of the L1 table in memory at a time.
const WINDOW: u64 = 8192;

/// Goes through the active tables once more, by the counts that are stored now.
pub(super) fn check<S: Storage>(
    storage: &mut S,
    header: &Header,
    stored: &mut Stored,
    pen: &mut dyn Pen<S>,
    log: &mut Log<'_, '_>,
) -> Result<(), Error> {
    let cluster_bits = header.cluster_bits();
    let classes = Classes::new(header);
    let entry_words = Decoder::new(header).entry_words();
    let (mends_any, overflow) = (mends(pen, log), log.overflow);
    // Where references could not be counted, a count of 1 does not say that there are no others.
    let mends = |right: u64| mends_any && !(overflow && right & COPIED != 0);
    let (l1_size, l1_offset) = header.l1_table();
    let mut l1 = Table::<U64>::new(l1_offset, l1_size.into(), WINDOW);
    let mut words = vec![U64::new_zeroed(); usize::try_from(cluster_bits.size() / 8).unwrap_or(0)];
    for index in 0..l1.entries() {
        let entry = l1.from(storage, index)?.first().map_or(0, |entry| entry.get());
        let table = entry & OFFSET_MASK;
        if table == 0 {
            continue;
        }
        let Ok(count) = stored.get(storage, table >> cluster_bits.get())? else { continue };
        if let Some(right) = corrected(entry, count) {
            let mend = mends(right) && pen.may_write_l1();
            log.findings.corruptions += 1;
            let what = what(mend);
            log.tell(format_args!(
                "{what} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={count}"
            ));
            if mend {
                let place = l1_offset + index * size_of::<U64>() as u64;
                pen.write(storage, place, U64::new(right).as_bytes())?;
                log.findings.corruptions -= 1;
                log.findings.corruptions_fixed += 1;
            }
        }
        if table >= storage.len() {
            continue;
        }
        storage.read_at(table, words.as_mut_bytes())?;
        let writable = cluster_bits.aligned(table) && pen.may_write_l2(table, cluster_bits.size());
        let mut changed: Option<Range<usize>> = None;
        let mut changes = 0;
        for (at, entry) in words.iter_mut().enumerate().step_by(entry_words) {
            let descriptor = entry.get();
            if classes.of(descriptor) != Class::Allocated {
                continue;
            }
            let count = if header.has_data_file() {
                1
            } else {
                let cluster = (descriptor & OFFSET_MASK) >> cluster_bits.get();
                let Ok(count) = stored.get(storage, cluster)? else { continue };
                count
            };
            if let Some(right) = corrected(descriptor, count) {
                let mend = mends(right) && writable;
                log.findings.corruptions += 1;
                let what = what(mend);
                log.tell(format_args!(
                    "{what} OFLAG_COPIED data cluster: l2_entry={descriptor:x} refcount={count}"
                ));
                if mend {
                    entry.set(right);
                    changes += 1;
                    changed = Some(changed.map_or(at, |changed| changed.start)..at + 1);
                }
            }
        }
        if let Some(changed) = changed {
            let place = table + (changed.start * size_of::<U64>()) as u64;
            pen.write(storage, place, words.get(changed).unwrap_or_default().as_bytes())?;
            log.findings.corruptions -= changes;
            log.findings.corruptions_fixed += changes;
        }
    }
    Ok(())
}

/// Whether entries are corrected: when leaks are to be repaired, only if nothing else is wrong.
fn mends<S>(pen: &dyn Pen<S>, log: &Log<'_, '_>) -> bool {
    let findings = &log.findings;
    match pen.repair() {
        Repair::None => false,
        Repair::Leaks => findings.check_errors == 0 && findings.corruptions == 0 && findings.leaks == 0,
        Repair::All => true,
    }
}

fn what(mend: bool) -> &'static str {
    if mend { "Repairing" } else { "ERROR" }
}

/// The entry as it should be, if it is not.
fn corrected(entry: u64, count: u64) -> Option<u64> {
    let right = if count == 1 { entry | COPIED } else { entry & !COPIED };
    (right != entry).then_some(right)
}
