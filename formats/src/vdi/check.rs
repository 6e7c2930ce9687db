//! `qemu-img check` of VDI images: whether the block map leads each block to a place of its own, and how many there are.

use zerocopy::little_endian::U32;

use super::header::Header;
use super::{ENTRY_ZERO, Vdi};
use crate::check::{Findings, Tell, Terms};
use crate::reader::Reader;
use crate::table::Table;
use crate::used::Used;
use crate::{Error, Storage};

/// Entries in memory at a time: 64 KiB.
const WINDOW: u64 = 16384;

impl Vdi {
    /// Looks at all entries that the header counts, those that the disk does not use among them.
    pub(crate) fn check<S: Storage>(
        storage: &mut S,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let header = Header::read(&mut Reader::new(storage))?;
        let mut table = Table::<U32>::new(header.offset_blocks, header.blocks, WINDOW);
        let (mut findings, mut used) = (Findings::default(), Used::new(terms.memory));
        let (mut index, mut allocated) = (0, 0);
        while index < header.blocks {
            let entries = table.from(storage, index)?;
            for (index, entry) in (index..).zip(entries.iter().map(|entry| u64::from(entry.get()))) {
                if entry >= ENTRY_ZERO {
                    continue;
                }
                if entry >= header.blocks {
                    tell(format_args!("ERROR: block index {index} too large, is {entry}"));
                    findings.corruptions += 1;
                    continue;
                }
                allocated += 1;
                if !used.insert(entry)? {
                    // Of the entry that had the block first only the block is known.
                    tell(format_args!("ERROR: block index {entry} also used by {entry}"));
                    findings.corruptions += 1;
                }
            }
            index += entries.len() as u64;
        }
        if allocated != header.blocks_allocated {
            let said = header.blocks_allocated;
            tell(format_args!("ERROR: allocated blocks mismatch, is {allocated}, should be {said}"));
            findings.corruptions += 1;
        }
        Ok(findings)
    }
}
