//! Transfers around the page cache, which takes whole blocks alone, and memory that begins where a block may. Whatever else is
//! asked for goes through a buffer; blocks of which a part is written are read first.

use std::{
    fs::File,
    io, mem,
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
};

use vm_memory::VolatileSlice;

use super::transfer;

/// The block where the system does not tell, in bytes: as large as those of disks are at most, but for rare ones.
const USUAL_BLOCK: u64 = 4096;

/// The block of a device whose length is no multiple of the usual one.
const SMALL_BLOCK: u64 = 512;

/// Bytes that go through the buffer at once: a multiple of any block.
const BUFFER: u64 = 1 << 20;

/// What is needed to transfer bytes of one file.
#[derive(Debug)]
pub struct Direct {
    /// What places, lengths and addresses are multiples of, in bytes: a power of two up to [`BUFFER`].
    block: u64,
    /// Empty until it is needed.
    buffer: Mutex<Vec<u8>>,
}

impl Direct {
    /// For `file`, which is open with `O_DIRECT`, and of `length` bytes if it is a device.
    pub fn new(file: &File, device_length: Option<u64>) -> Self {
        let usual = match device_length {
            Some(length) if !length.is_multiple_of(USUAL_BLOCK) => SMALL_BLOCK,
            _ => USUAL_BLOCK,
        };
        Self::with_block(block_of(file).unwrap_or(usual))
    }

    fn with_block(block: u64) -> Self {
        Self { block, buffer: Mutex::default() }
    }

    /// Reads all of `slices` from `offset` on.
    pub fn read(&self, file: &File, slices: &[VolatileSlice], offset: u64) -> io::Result<()> {
        let end = offset + transfer::length(slices) as u64;
        if self.is_aligned(slices, offset) {
            let read = transfer::read(file, slices, offset, self.block as usize)?;
            return if offset + read as u64 == end {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = self.aligned(&mut buffer);
        let mut at = offset;
        while at < end {
            let start = at - at % self.block;
            let stop = end.min(start + BUFFER);
            let blocks = buffer.subslice(0, (stop - start).next_multiple_of(self.block) as usize);
            let blocks = blocks.map_err(io::Error::other)?;
            let read = transfer::read(file, &[blocks], start, self.block as usize)?;
            if start + (read as u64) < stop {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            each(slices, at - offset, stop - at, &blocks, at - start, |part, of_buffer| {
                of_buffer.copy_to_volatile_slice(part);
            })?;
            at = stop;
        }
        Ok(())
    }

    /// Writes all of `slices` at `offset`; if `durable`, they are on the disk then. The file becomes as long as the bytes ask
    /// for, and no longer.
    pub fn write(&self, file: &File, slices: &[VolatileSlice], offset: u64, durable: bool) -> io::Result<()> {
        if self.is_aligned(slices, offset) {
            return transfer::write(file, slices, offset, durable);
        }
        let end = offset + transfer::length(slices) as u64;
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = self.aligned(&mut buffer);
        let mut at = offset;
        while at < end {
            let start = at - at % self.block;
            let stop = end.min(start + BUFFER);
            let last = stop - stop % self.block;
            let blocks = buffer.subslice(0, (stop - start).next_multiple_of(self.block) as usize);
            let blocks = blocks.map_err(io::Error::other)?;
            if start < at && start != last {
                self.fill(file, &blocks, 0, start)?;
            }
            // Where the file ends, if that is in the last block.
            let mut length = None;
            if last < stop {
                let stored = self.fill(file, &blocks, last - start, last)?;
                length = (stored < self.block).then_some(stop.max(last + stored));
            }
            each(slices, at - offset, stop - at, &blocks, at - start, |part, of_buffer| {
                part.copy_to_volatile_slice(of_buffer);
            })?;
            transfer::write(file, &[blocks], start, durable)?;
            if let Some(length) = length {
                file.set_len(length)?;
            }
            at = stop;
        }
        Ok(())
    }

    /// Fills the block at `within` of `blocks` with what is at `offset` of the file, zeros behind its end; answers how many bytes
    /// there are.
    fn fill(&self, file: &File, blocks: &VolatileSlice, within: u64, offset: u64) -> io::Result<u64> {
        let block = self.block as usize;
        let whole = blocks.subslice(within as usize, block).map_err(io::Error::other)?;
        let stored = transfer::read(file, &[whole], offset, block)?;
        whole.offset(stored).map_err(io::Error::other)?.copy_from(&vec![0_u8; block - stored]);
        Ok(stored as u64)
    }

    fn is_aligned(&self, slices: &[VolatileSlice], offset: u64) -> bool {
        let block = self.block as usize;
        offset.is_multiple_of(self.block)
            && slices.iter().all(|slice| {
                slice.len().is_multiple_of(block) && slice.ptr_guard().as_ptr().addr().is_multiple_of(block)
            })
    }

    /// [`BUFFER`] bytes of `buffer` that begin where a block may.
    fn aligned<'b>(&self, buffer: &'b mut Vec<u8>) -> VolatileSlice<'b> {
        let block = self.block as usize;
        if buffer.is_empty() {
            buffer.resize(BUFFER as usize + block, 0);
        }
        let skipped = buffer.as_ptr().addr().next_multiple_of(block) - buffer.as_ptr().addr();
        VolatileSlice::from(&mut buffer[skipped..skipped + BUFFER as usize])
    }
}

/// Calls `copy` with each part of the `count` bytes from `from` on in `slices`, and its counterpart in `blocks`, where they begin
/// at `within`.
fn each(
    slices: &[VolatileSlice],
    from: u64,
    count: u64,
    blocks: &VolatileSlice,
    within: u64,
    copy: impl Fn(VolatileSlice, VolatileSlice),
) -> io::Result<()> {
    let (_, tail) = transfer::split(slices, from as usize)?;
    let (parts, _) = transfer::split(&tail, count as usize)?;
    let mut at = within as usize;
    for part in parts {
        copy(part, blocks.subslice(at, part.len()).map_err(io::Error::other)?);
        at += part.len();
    }
    Ok(())
}

/// What places in `file` and addresses have to be multiples of, in bytes, if the system knows (Linux 6.1).
fn block_of(file: &File) -> Option<u64> {
    // SAFETY: all-zero is a valid statx; the name is empty and the answer goes to a local.
    let answer = unsafe {
        let mut answer: libc::statx = mem::zeroed();
        let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
        (libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &mut answer) == 0).then_some(answer)?
    };
    let known = answer.stx_mask & libc::STATX_DIOALIGN != 0 && answer.stx_dio_offset_align != 0;
    let block = u64::from(answer.stx_dio_offset_align.max(answer.stx_dio_mem_align));
    (known && block.is_power_of_two() && block <= BUFFER).then_some(block)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use crate::devices::Cache;

    /// A file that is read and written around the page cache, if its file system can.
    fn file(content: &[u8]) -> (tempfile::NamedTempFile, File) {
        let named = tempfile::NamedTempFile::new().unwrap();
        fs::write(named.path(), content).unwrap();
        let file = named.reopen().unwrap();
        let prepared = Cache::of_mode("none").unwrap().prepare(file.as_fd());
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).unwrap());
        assert_eq!(prepared.is_ok(), flags.contains(OFlag::O_DIRECT));
        (named, file)
    }

    /// `bytes` in two slices, the first of which has `first` bytes and begins `skipped` bytes behind a page's begin.
    fn slices(memory: &mut Vec<u8>, bytes: &[u8], first: usize, skipped: usize) -> Vec<(usize, usize)> {
        memory.clear();
        memory.resize(bytes.len() + 3 * 4096, 0xee);
        let begin = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr() + skipped;
        memory[begin..begin + bytes.len()].copy_from_slice(bytes);
        vec![(begin, first), (begin + first, bytes.len() - first)]
    }

    #[test]
    fn any_bytes_are_read_and_written_and_the_file_is_as_long_as_they_ask_for() {
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for block in [512, 4096] {
            let mut model: Vec<u8> = (0..10_007_u32).map(|byte| (byte ^ byte >> 8) as u8).collect();
            let (named, file) = file(&model);
            let direct = Direct::with_block(block);
            for round in 0..400 {
                let grain = [1, 512, block as usize][random(3)];
                let offset = random(40_000 / grain) * grain;
                let count = match round % 50 {
                    0 => BUFFER as usize + random(10_000),
                    _ => (1 + random(20_000 / grain)) * grain,
                };
                let bytes: Vec<u8> = (0..count).map(|_| random(256) as u8).collect();
                let (first, skipped) = (random(count + 1) / grain * grain, [0, 16][random(2)]);
                let mut memory = Vec::new();
                let parts = slices(&mut memory, &bytes, first, skipped);
                let memory = VolatileSlice::from(&mut memory[..]);
                let parts: Vec<_> =
                    parts.iter().map(|&(at, length)| memory.subslice(at, length).unwrap()).collect();
                let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                if random(2) == 0 {
                    direct.write(&file, &parts, offset as u64, random(8) == 0).unwrap();
                    model.resize(model.len().max(offset + count), 0);
                    model[offset..offset + count].copy_from_slice(&bytes);
                    assert_eq!(fs::metadata(named.path()).unwrap().len(), model.len() as u64, "{round}");
                } else {
                    let outcome = direct.read(&file, &parts, offset as u64);
                    match model.get(offset..offset + count) {
                        Some(there) => {
                            outcome.unwrap();
                            let mut read = vec![0; count];
                            let mut at = 0;
                            for part in &parts {
                                at += part.copy_to(&mut read[at..at + part.len()]);
                            }
                            assert_eq!(read, there, "{round}");
                        }
                        None => assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
                    }
                }
            }
            assert!(fs::read(named.path()).unwrap() == model);
        }
    }

    #[test]
    fn blocks_are_as_long_as_the_system_says_or_divide_a_device() {
        let (_, file) = file(b"");
        let known = block_of(&file);
        assert!(known.is_none_or(u64::is_power_of_two));
        assert_eq!(Direct::new(&file, None).block, known.unwrap_or(4096));
        let elsewhere = File::open("/proc/version").unwrap();
        assert_eq!(block_of(&elsewhere), None);
        assert_eq!(Direct::new(&elsewhere, Some(8192)).block, 4096);
        assert_eq!(Direct::new(&elsewhere, Some(8192 + 512)).block, 512);
    }
}
