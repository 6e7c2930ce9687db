//! A check of VHD images, which `qemu-img` does not have: whether both footers agree, checksums are right, and blocks lie
//! in the file, apart from what is no block and from one another.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::big_endian::U32;

use super::footer::{FOOTER_LEN, file_len};
use super::header::DynamicHeader;
use super::walk::{UNUSED, WINDOW, headers};
use super::{Footer, Layout, SECTOR, Vpc};
use crate::check::{Findings, Tell, Terms};
use crate::table::Table;
use crate::{Error, ErrorKind, Storage};

impl Vpc {
    /// Checks the image. Of a fixed one there is nothing to be checked that was not when it was opened.
    pub(crate) fn check<S: Storage>(
        &self,
        storage: &mut S,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let mut findings = Findings::default();
        let Layout::Blocks { header, .. } = &self.layout else {
            findings.image_end_offset = file_len(storage);
            return Ok(findings);
        };
        let mut corrupt = |message: String| {
            tell(format_args!("ERROR {message}"));
            findings.corruptions += 1;
        };
        let at_end = Footer::fault_at_end(storage)?;
        if let Some(fault) = at_end {
            corrupt(fault.into());
        }
        if !header.is_checksum_right(storage)? {
            corrupt("checksum of the dynamic disk header is wrong".into());
        }
        let table_end = header.table_offset() + header.table_len();
        for (what, start, length) in headers(header) {
            if header.table_offset() < start + length && start < table_end {
                corrupt(format!("block allocation table overlaps {what}"));
            }
        }
        // Without a footer, the file may be blocks up to its end.
        let end = file_len(storage).saturating_sub(if at_end.is_none() { FOOTER_LEN } else { 0 });
        let mut blocks = Blocks::read(storage, header, end, terms.memory, &mut corrupt)?;
        blocks.find_overlaps(header.stored_block_len(), &mut corrupt);
        findings.clusters.total = self.virtual_size().div_ceil(header.block_size());
        findings.clusters.allocated = blocks.allocated;
        findings.clusters.fragmented = blocks.fragmented;
        let (leaks, used_end) = blocks.leaks(storage, header, end)?;
        findings.leaks = leaks;
        findings.image_end_offset = used_end.next_multiple_of(SECTOR) + FOOTER_LEN;
        Ok(findings)
    }
}

/// What the block allocation table leads to.
#[derive(Default)]
struct Blocks {
    /// First sector and number of each block that is where one can be; in order of the sectors once they were sorted.
    places: Vec<(u32, u32)>,
    allocated: u64,
    fragmented: u64,
}

impl Blocks {
    /// Reads the table of an image whose data ends at `end`.
    fn read<S: Storage>(
        storage: &mut S,
        header: &DynamicHeader,
        end: u64,
        memory: usize,
        corrupt: &mut impl FnMut(String),
    ) -> Result<Self, Error> {
        let mut table = Table::<U32>::new(header.table_offset(), header.table_entries(), WINDOW);
        let (mut blocks, mut last) = (Self::default(), None);
        let length = header.stored_block_len();
        let metadata = headers(header).into_iter().chain([(
            "the block allocation table",
            header.table_offset(),
            header.table_len(),
        )]);
        // A list that grows takes up to three times its length.
        let max = memory / (3 * size_of::<(u32, u32)>());
        let mut start = 0;
        while start < table.entries() {
            let entries = table.from(storage, start)?;
            for (index, sector) in (start..).zip(entries.iter().map(|entry| entry.get())) {
                if sector == UNUSED {
                    last = None;
                    continue;
                }
                let place = u64::from(sector) * SECTOR;
                blocks.allocated += 1;
                blocks.fragmented += u64::from(last.is_some_and(|last| last + length != place));
                last = Some(place);
                if place + length > end {
                    corrupt(format!("block {index} at offset {place} does not end inside the file"));
                    continue;
                }
                let mut overlapped = metadata.clone();
                let overlapped = overlapped
                    .find(|&(_, start, length_of)| place < start + length_of && start < place + length);
                if let Some((what, ..)) = overlapped {
                    corrupt(format!("block {index} at offset {place} overlaps {what}"));
                    continue;
                }
                if blocks.places.len() >= max || blocks.places.try_reserve(1).is_err() {
                    let message = "Not enough memory to remember where blocks are";
                    return Err(Error::new(ErrorKind::Limit, "BAT", message));
                }
                blocks.places.push((sector, u32::try_from(index).unwrap_or(UNUSED)));
            }
            start += entries.len() as u64;
        }
        Ok(blocks)
    }

    fn find_overlaps(&mut self, length: u64, corrupt: &mut impl FnMut(String)) {
        self.places.sort_unstable();
        for pair in self.places.windows(2) {
            if let &[(first, one), (second, other)] = pair
                && u64::from(second - first) * SECTOR < length
            {
                corrupt(format!("blocks {one} and {other} overlap at offset {}", u64::from(second) * SECTOR));
            }
        }
    }

    /// How many blocks would have room where nothing is, and where the last thing in use ends.
    fn leaks<S: Storage>(
        &self,
        storage: &mut S,
        header: &DynamicHeader,
        end: u64,
    ) -> Result<(u64, u64), Error> {
        let length = header.stored_block_len();
        let mut metadata: Vec<(u64, u64)> =
            headers(header).into_iter().map(|(_, start, length)| (start, length)).collect();
        metadata.push((header.table_offset(), header.table_len()));
        metadata.extend(header.locators(storage)?);
        metadata.retain(|&(start, length)| length != 0 && start < end);
        metadata.sort_unstable();
        let (mut leaks, mut at) = (0, 0);
        let mut metadata = metadata.into_iter().peekable();
        let mut blocks =
            self.places.iter().map(|&(sector, _)| (u64::from(sector) * SECTOR, length)).peekable();
        loop {
            let next = match (metadata.peek(), blocks.peek()) {
                (Some(one), Some(other)) if one <= other => metadata.next(),
                (Some(_), None) => metadata.next(),
                _ => blocks.next(),
            };
            let Some((start, length_of)) = next else { break };
            leaks += start.saturating_sub(at) / length;
            at = at.max(start.saturating_add(length_of));
        }
        leaks += end.saturating_sub(at) / length;
        Ok((leaks, at))
    }
}
