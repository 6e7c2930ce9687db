//! Whether entries of active tables say rightly that they are the only reference to their cluster.

use alloc::vec;

use zerocopy::big_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::l2::{Class, Classes};
use super::log::Log;
use super::stored::Stored;
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
    log: &mut Log<'_, '_>,
) -> Result<(), Error> {
    let cluster_bits = header.cluster_bits();
    let classes = Classes::new(header);
    let entry_words = Decoder::new(header).entry_words();
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
        if (count == 1) != (entry & COPIED != 0) {
            log.findings.corruptions += 1;
            log.tell(format_args!(
                "ERROR OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={count}"
            ));
        }
        if table >= storage.len() {
            continue;
        }
        storage.read_at(table, words.as_mut_bytes())?;
        for entry in words.chunks_exact(entry_words) {
            let entry = entry.first().map_or(0, |word| word.get());
            if classes.of(entry) != Class::Allocated {
                continue;
            }
            let count = if header.has_data_file() {
                1
            } else {
                let cluster = (entry & OFFSET_MASK) >> cluster_bits.get();
                let Ok(count) = stored.get(storage, cluster)? else { continue };
                count
            };
            if (count == 1) != (entry & COPIED != 0) {
                log.findings.corruptions += 1;
                log.tell(format_args!(
                    "ERROR OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={count}"
                ));
            }
        }
    }
    Ok(())
}
