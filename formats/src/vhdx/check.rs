//! `qemu-img check` of VHDX images: whether the blocks of the disk lie in the file and apart from what is no block. To
//! repair such an image is to do to the file what its log says.

use alloc::vec;

use zerocopy::little_endian::U64;

use super::overlay::{Content, Replayed};
use super::regions::Span;
use super::walk::{FULLY_PRESENT, OFFSET, STATE, WINDOW};
use super::{Vhdx, corrupt, header};
use crate::check::{Findings, Repair, Tell};
use crate::table::Table;
use crate::{Error, Storage, StorageMut};

/// Unit of the length of a file, in bytes, as QEMU counts it.
const SECTOR: u64 = 512;
/// Bytes moved at a time.
const CHUNK: u64 = 64 << 10;

impl Vhdx {
    /// Looks at the image as it is with the changes of its log. Where these are not to be made in the file, that there
    /// are any is a fault; either kind of repair makes them.
    pub(crate) fn check<S: StorageMut>(
        &self,
        storage: &mut S,
        repair: Repair,
        tell: &mut Tell<'_>,
    ) -> Result<Findings, Error> {
        let mut findings = Findings::default();
        if self.log_replayed() {
            if repair == Repair::None {
                tell(format_args!("VHDX log contains changes that need to be replayed"));
                findings.corruptions += 1;
            } else {
                self.replay(storage)?;
                findings.corruptions_fixed += 1;
            }
        }
        self.check_blocks(&mut Replayed::new(storage, &self.overlay), &mut findings, tell)?;
        Ok(findings)
    }

    fn check_blocks<S: Storage>(
        &self,
        storage: &mut Replayed<'_, S>,
        findings: &mut Findings,
        tell: &mut Tell<'_>,
    ) -> Result<(), Error> {
        let file_len = storage.len().next_multiple_of(SECTOR);
        let block_size = self.metadata.block_size();
        let mut payload = self.metadata.chunk_ratio();
        let mut table = Table::<U64>::new(self.regions.bat.start, self.metadata.bat_entries(), WINDOW);
        let mut start = 0;
        while start < table.entries() {
            let in_hole = table.in_hole(storage, start)?;
            if in_hole > 0 {
                start += in_hole;
                continue;
            }
            let entries = table.from(storage, start)?;
            for (index, entry) in (start..).zip(entries.iter().map(|entry| entry.get())) {
                if entry & STATE != FULLY_PRESENT {
                    continue;
                }
                let mut fault = |message: core::fmt::Arguments<'_>| {
                    tell(message);
                    findings.corruptions += 1;
                };
                let offset = entry & OFFSET;
                // QEMU takes the entry's number for the block's; the block that ends the disk may end early in the file.
                let to_end = self.metadata.virtual_size().wrapping_sub(index.wrapping_mul(block_size));
                let end = offset.saturating_add(block_size.min(to_end));
                if offset > i64::MAX as u64 - block_size {
                    fault(format_args!("VHDX BAT entry {index} offset overflow."));
                }
                let truncated = "Image has probably been truncated.";
                if offset >= file_len {
                    fault(format_args!(
                        "VHDX BAT entry {index} start offset {offset} points after end of file ({file_len}). {truncated}"
                    ));
                } else if end > file_len {
                    let last = end - 1;
                    fault(format_args!(
                        "VHDX BAT entry {index} end offset {last} points after end of file ({file_len}). {truncated}"
                    ));
                }
                // It also counts only blocks that are there to know which entry is one of sector bitmaps.
                if payload == 0 {
                    payload = self.metadata.chunk_ratio();
                    continue;
                }
                payload -= 1;
                let span = Span { start: offset, end: offset.saturating_add(block_size) };
                if let Err(error) = self.regions.check_free(span) {
                    fault(format_args!("{}", error.message));
                }
            }
            start += entries.len() as u64;
        }
        Ok(())
    }

    /// Makes the changes of the log, which stays valid until all of them are on the disk.
    pub(super) fn replay<S: StorageMut>(&self, storage: &mut S) -> Result<(), Error> {
        if self.regions.log().is_some_and(|log| self.overlay.touches(log.start, log.end)) {
            return Err(corrupt("log", "Log changes itself"));
        }
        let stored = storage.len();
        if self.overlay.len() > stored {
            storage.set_length(self.overlay.len())?;
        }
        let mut chunk = vec![0; usize::try_from(CHUNK).unwrap_or(0)];
        for (start, end, content) in self.overlay.overlapping(0, u64::MAX) {
            // New bytes of the file are zero as they are.
            let end = if content == Content::Zero { end.min(stored) } else { end };
            let mut offset = start;
            while offset < end {
                let length = CHUNK.min(end - offset);
                let bytes = usize::try_from(length).ok().and_then(|length| chunk.get_mut(..length));
                let bytes = bytes.unwrap_or_default();
                storage.read_at(offset, bytes)?;
                let is_zero = bytes.iter().all(|&byte| byte == 0);
                if !(is_zero && content == Content::Zero) {
                    Replayed::new(storage, &self.overlay).read_at(offset, bytes)?;
                    storage.write_at(offset, bytes)?;
                }
                offset += length;
            }
        }
        storage.flush()?;
        header::clear_log(storage)
    }
}
