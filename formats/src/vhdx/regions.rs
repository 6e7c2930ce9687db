//! Section "Region Table": where the block allocation table and the metadata are, and which parts of the file are taken.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::guid::guid;
use super::{MIB, corrupt, crc32c, invalid};
use crate::{Error, ErrorKind, Storage, StorageMut};

/// File offset of the first copy of the table, the one that QEMU reads, and its length in bytes; the second one follows.
const TABLE_OFFSET: u64 = 192 << 10;
const TABLE_LEN: usize = 64 << 10;
const SIGNATURE: &[u8; 4] = b"regi";
/// Most entries.
const ENTRIES_MAX: u32 = 2047;
/// Bit 0 of "Required": who does not know the region must not read the image.
const REQUIRED: u32 = 1;

const BAT: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableHeader {
    signature: [u8; 4],
    checksum: U32,
    entry_count: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableEntry {
    guid: [u8; 16],
    file_offset: U64,
    length: U32,
    required: U32,
}

/// Writes both copies of the table of a new image. That no region is called required is as `qemu-img` has it.
pub(super) fn write_new<S: StorageMut>(
    storage: &mut S,
    (bat_offset, bat_length): (u64, u32),
    (metadata_offset, metadata_length): (u64, u32),
) -> Result<(), Error> {
    let entry = |guid, offset: u64, length: u32| TableEntry {
        guid,
        file_offset: offset.into(),
        length: length.into(),
        required: U32::ZERO,
    };
    let header = TableHeader {
        signature: *SIGNATURE,
        checksum: U32::ZERO,
        entry_count: 2.into(),
        reserved: U32::ZERO,
    };
    let entries = [entry(BAT, bat_offset, bat_length), entry(METADATA, metadata_offset, metadata_length)];
    let mut bytes = [header.as_bytes(), entries.as_bytes()].concat();
    bytes.resize(TABLE_LEN, 0);
    crc32c::sign(&mut bytes);
    storage.write_at(TABLE_OFFSET, &bytes)?;
    Ok(storage.write_at(TABLE_OFFSET + TABLE_LEN as u64, &bytes)?)
}

/// A part of the file: `start` to `end` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) fn len(self) -> u64 {
        self.end - self.start
    }

    fn overlaps(self, other: Self) -> bool {
        !(self.start >= other.end || self.end <= other.start)
    }
}

/// The regions: apart from each other and from the log.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) bat: Span,
    pub(super) metadata: Span,
    /// All regions and the log, by their start.
    taken: Vec<Span>,
    /// The same in the order in which they were found.
    found: Vec<Span>,
}

impl Regions {
    /// The part of the file that the log takes.
    pub(super) fn log(&self) -> Option<Span> {
        self.found.first().copied()
    }

    /// Reads the table; `log` is the part of the file that the log takes.
    pub(super) fn read<S: Storage>(storage: &mut S, log: Span) -> Result<Self, Error> {
        let mut bytes = vec![0; TABLE_LEN];
        storage.read_at(TABLE_OFFSET, &mut bytes)?;
        let Ok((header, mut rest)) = TableHeader::read_from_prefix(&bytes) else {
            return Err(invalid("region table", "Region table is too short"));
        };
        if header.checksum.get() != crc32c::of_structure(&bytes) {
            return Err(invalid("region table", "Incorrect region table checksum"));
        }
        if header.signature != *SIGNATURE {
            return Err(invalid("region table", "Invalid region table signature"));
        }
        if header.entry_count.get() > ENTRIES_MAX {
            return Err(Error::new(ErrorKind::Limit, "EntryCount", "Region table has too many entries"));
        }
        let (mut bat, mut metadata, mut found) = (None, None, vec![log]);
        for _ in 0..header.entry_count.get() {
            let Ok((entry, next)) = TableEntry::read_from_prefix(rest) else { break };
            rest = next;
            let span = span(&entry)?;
            if let Some(other) = found.iter().rev().find(|other| span.overlaps(**other)) {
                return Err(invalid("region table", overlap(span, *other)));
            }
            found.push(span);
            let known = match entry.guid {
                BAT => &mut bat,
                METADATA => &mut metadata,
                _ if entry.required.get() & REQUIRED != 0 => {
                    let message = "Image has a required region that is not known";
                    return Err(Error::new(ErrorKind::Unsupported, "region table", message));
                }
                _ => continue,
            };
            if known.replace(span).is_some() {
                return Err(invalid("region table", "Region table has two entries for the same region"));
            }
        }
        let (Some(bat), Some(metadata)) = (bat, metadata) else {
            let message = "Region table lacks the block allocation table or the metadata";
            return Err(invalid("region table", message));
        };
        let mut taken = found.clone();
        taken.sort_unstable_by_key(|span| (span.start, span.end));
        Ok(Self { bat, metadata, taken, found })
    }

    /// Whether `span` is apart from all regions and the log.
    pub(super) fn check_free(&self, span: Span) -> Result<(), Error> {
        let next = self.taken.partition_point(|taken| taken.end <= span.start);
        if self.taken.get(next).is_none_or(|taken| !span.overlaps(*taken)) {
            return Ok(());
        }
        match self.found.iter().rev().find(|other| span.overlaps(**other)) {
            Some(other) => Err(corrupt("BAT", overlap(span, *other))),
            None => Ok(()),
        }
    }
}

fn span(entry: &TableEntry) -> Result<Span, Error> {
    let start = entry.file_offset.get();
    let end = start.checked_add(u64::from(entry.length.get())).filter(|&end| end <= i64::MAX as u64);
    match end {
        Some(end) if start >= MIB => Ok(Span { start, end }),
        Some(_) => Err(corrupt("FileOffset", "Region overlaps the header section")),
        None => Err(corrupt("FileOffset", "Region lies beyond the end of any file")),
    }
}

fn overlap(one: Span, other: Span) -> String {
    format!("VHDX region {}-{} overlaps with region {}-{}", one.start, one.end, other.start, other.end)
}
