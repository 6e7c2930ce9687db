//! Section "Log": a ring of entries that were written before what they say was done. The valid sequence of them is
//! found and applied in memory, as the specification wants it of a reader that does not write.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::crc32c::Crc32c;
use super::header::Header;
use super::overlay::{Content, Overlay, PAGE};
use super::{MIB, corrupt, invalid};
use crate::{Error, ErrorKind, Storage};

/// Longest log that is replayed, in bytes. Hyper-V and QEMU make logs of 1 MiB.
const LOG_LEN_MAX: u64 = 64 * MIB;
/// How often the log may be summed up in search of valid entries: each entry of an intact log is summed at most twice,
/// and what was half overwritten at most once more.
const SUM_ROUNDS_MAX: u64 = 4;
/// Most pieces of the file that a log may change, 40 bytes of memory each.
const PIECES_MAX: usize = 1 << 16;
/// Bytes summed up at a time.
const CHUNK: u64 = 64 << 10;
/// Length in bytes of an entry's header and of a descriptor.
const ENTRY_HEADER_LEN: u64 = 64;
const DESCRIPTOR_LEN: u64 = 32;
/// End in bytes of the part of the file that a log cannot change: the identifier and the two headers.
const HEADERS_END: u64 = 192 << 10;

/// "Entry Header", as it lies in the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct EntryHeader {
    signature: [u8; 4],
    checksum: U32,
    entry_length: U32,
    tail: U32,
    sequence_number: U64,
    descriptor_count: U32,
    reserved: U32,
    log_guid: [u8; 16],
    flushed_file_offset: U64,
    last_file_offset: U64,
}

/// "Zero Descriptor" and "Data Descriptor", as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Descriptor {
    signature: [u8; 4],
    trailing_bytes: [u8; 4],
    /// Length of a run of zeros, or the first bytes of a page.
    length_or_leading: [u8; 8],
    file_offset: U64,
    sequence_number: U64,
}

/// A valid entry: its offset in the log, whole and inside it but for the turn of the ring.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    header: EntryHeader,
}

impl Entry {
    fn length(&self) -> u64 {
        u64::from(self.header.entry_length.get())
    }

    fn sequence(&self) -> u64 {
        self.header.sequence_number.get()
    }
}

/// What the log of the image says of its file: nothing, if it is empty.
pub(super) fn replay<S: Storage>(storage: &mut S, header: &Header) -> Result<Overlay, Error> {
    let mut overlay = Overlay::default();
    let Some(guid) = header.log_guid() else { return Ok(overlay) };
    let (offset, length) = header.log();
    if !length.is_multiple_of(MIB) {
        return Err(invalid("LogLength", "Log length is not a multiple of 1 MiB"));
    }
    if offset.checked_add(length).is_none_or(|end| end > storage.len()) {
        return Err(corrupt("LogOffset", "Log lies beyond the end of the file"));
    }
    if length > LOG_LEN_MAX {
        return Err(Error::new(ErrorKind::Limit, "LogLength", "Log is longer than 64 MiB"));
    }
    let mut log = Log { storage, guid, offset, length, budget: SUM_ROUNDS_MAX * length };
    for entry in log.active_sequence()? {
        log.apply(&entry, &mut overlay)?;
    }
    Ok(overlay)
}

struct Log<'a, S> {
    storage: &'a mut S,
    guid: [u8; 16],
    /// File offset of the log.
    offset: u64,
    /// Length of the log in bytes.
    length: u64,
    /// Bytes that may yet be summed up.
    budget: u64,
}

impl<S: Storage> Log<'_, S> {
    /// Section "Log Sequence": of the sequences whose last entry names an entry of theirs as the tail, the one with the
    /// highest numbers, from that tail on.
    fn active_sequence(&mut self) -> Result<Vec<Entry>, Error> {
        let mut active: Vec<Entry> = Vec::new();
        let mut at = 0;
        while at < self.length {
            let sequence = self.sequence_from(at)?;
            at += sequence.iter().map(Entry::length).sum::<u64>().max(PAGE);
            let Some(head) = sequence.last() else { continue };
            let tail = u64::from(head.header.tail.get());
            let Some(start) = sequence.iter().position(|entry| entry.at == tail) else { continue };
            if active.last().is_none_or(|last| head.sequence() > last.sequence()) {
                active = sequence.get(start..).unwrap_or(&[]).to_vec();
            }
        }
        Ok(active)
    }

    /// Entries that follow each other in place and number, the first of them at `at`; at most once round.
    fn sequence_from(&mut self, at: u64) -> Result<Vec<Entry>, Error> {
        let mut sequence: Vec<Entry> = Vec::new();
        let mut total = 0;
        while let Some(entry) = self.entry((at + total) % self.length)? {
            let follows =
                sequence.last().is_none_or(|last| last.sequence().checked_add(1) == Some(entry.sequence()));
            if !follows || total + entry.length() > self.length {
                break;
            }
            total += entry.length();
            sequence.push(entry);
            if total == self.length {
                break;
            }
        }
        Ok(sequence)
    }

    /// The entry at `at`, if there is a valid one.
    fn entry(&mut self, at: u64) -> Result<Option<Entry>, Error> {
        let mut header = EntryHeader::new_zeroed();
        self.storage.read_at(self.offset + at, header.as_mut_bytes())?;
        let entry = Entry { at, header };
        let length = entry.length();
        let valid = header.signature == *b"loge"
            && header.log_guid == self.guid
            && length != 0
            && length.is_multiple_of(PAGE)
            && length <= self.length
            && header.sequence_number.get() != 0
            && u64::from(header.tail.get()) < self.length
            && ENTRY_HEADER_LEN + u64::from(header.descriptor_count.get()) * DESCRIPTOR_LEN <= length;
        if !valid || self.sum(at, length)? != header.checksum.get() {
            return Ok(None);
        }
        Ok(Some(entry))
    }

    /// The checksum of an entry.
    fn sum(&mut self, at: u64, length: u64) -> Result<u32, Error> {
        let Some(budget) = self.budget.checked_sub(length) else {
            let message = "Log has too many entries that are not valid";
            return Err(Error::new(ErrorKind::Limit, "log", message));
        };
        self.budget = budget;
        let mut crc = Crc32c::new();
        let mut chunk = vec![0; usize::try_from(CHUNK.min(length)).unwrap_or(0)];
        let mut done = 0;
        while done < length {
            let place = (at + done) % self.length;
            let part = CHUNK.min(length - done).min(self.length - place);
            let bytes = usize::try_from(part).ok().and_then(|part| chunk.get_mut(..part)).unwrap_or_default();
            self.storage.read_at(self.offset + place, bytes)?;
            if let (0, Some(checksum)) = (done, bytes.get_mut(4..8)) {
                checksum.fill(0);
            }
            crc.add(bytes);
            done += part;
        }
        Ok(crc.get())
    }

    /// Section "Log Replay".
    fn apply(&mut self, entry: &Entry, overlay: &mut Overlay) -> Result<(), Error> {
        let count = u64::from(entry.header.descriptor_count.get());
        if entry.header.flushed_file_offset.get() > self.storage.len() {
            let message = "File is shorter than the log says, and has probably been truncated";
            return Err(corrupt("FlushedFileOffset", message));
        }
        let last = entry.header.last_file_offset.get().checked_next_multiple_of(MIB);
        let Some(last) = last.filter(|&last| last <= i64::MAX as u64) else {
            return Err(corrupt("LastFileOffset", "Log makes the file too long"));
        };
        overlay.grow(last);
        let mut data = (ENTRY_HEADER_LEN + count * DESCRIPTOR_LEN).next_multiple_of(PAGE);
        for index in 0..count {
            let at = entry.at + ENTRY_HEADER_LEN + index * DESCRIPTOR_LEN;
            let mut descriptor = Descriptor::new_zeroed();
            self.storage.read_at(self.place(at), descriptor.as_mut_bytes())?;
            let (length, content) = self.content(entry, &descriptor, &mut data)?;
            let start = descriptor.file_offset.get();
            let end = start.checked_add(length).filter(|&end| end <= i64::MAX as u64);
            let Some(end) = end.filter(|_| start % PAGE == 0 && length.is_multiple_of(PAGE)) else {
                return Err(corrupt("log descriptor", "Log descriptor has an invalid file offset or length"));
            };
            if start < HEADERS_END {
                return Err(corrupt("log descriptor", "Log writes to the file's headers"));
            }
            overlay.insert(start, end, content);
            if overlay.pieces() > PIECES_MAX {
                return Err(Error::new(ErrorKind::Limit, "log", "Log changes too many pieces of the file"));
            }
        }
        Ok(())
    }

    /// File offset of what is at `at` in the ring; entries are whole pages, so nothing of a page is beyond the turn.
    fn place(&self, at: u64) -> u64 {
        self.offset + at % self.length
    }

    /// What a descriptor says and for how many bytes; `data` is the offset in the entry of the next data sector.
    fn content(
        &mut self,
        entry: &Entry,
        descriptor: &Descriptor,
        data: &mut u64,
    ) -> Result<(u64, Content), Error> {
        let torn = || corrupt("log entry", "Log entry is inconsistent in itself");
        if descriptor.sequence_number.get() != entry.sequence() {
            return Err(torn());
        }
        match &descriptor.signature {
            b"zero" => Ok((u64::from_le_bytes(descriptor.length_or_leading), Content::Zero)),
            b"desc" if *data < entry.length() => {
                let sector = self.place(entry.at + *data);
                *data += PAGE;
                let mut frame = [[0; 8]; 2];
                let [head, end] = &mut frame;
                self.storage.read_at(sector, head)?;
                self.storage.read_at(sector + PAGE - 8, end)?;
                let [_, _, _, _, low @ ..] = *end;
                let [s0, s1, s2, s3, high @ ..] = *head;
                let number = u64::from(u32::from_le_bytes(high)) << 32 | u64::from(u32::from_le_bytes(low));
                if [s0, s1, s2, s3] != *b"data" || number != entry.sequence() {
                    return Err(torn());
                }
                let (leading, trailing) = (descriptor.length_or_leading, descriptor.trailing_bytes);
                Ok((PAGE, Content::Logged { leading, sector, trailing }))
            }
            _ => Err(torn()),
        }
    }
}
