//! The chunks of a disk, gathered from blocks of the type `mish`: one a partition.

use alloc::format;
use alloc::vec::Vec;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{SECTOR, corrupt, invalid};
use crate::{Codec, Error, ErrorKind};

const SIGNATURE: u32 = 0x6d69_7368;
/// Largest chunk in bytes, compressed or not, unless it is all zeros: QEMU's limit.
const CHUNK_LEN_MAX: u64 = 64 << 20;
/// The same in sectors.
const CHUNK_SECTORS_MAX: u64 = CHUNK_LEN_MAX / SECTOR;

/// The start of a block as it lies in the file.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    signature: U32,
    version: U32,
    first_sector: U64,
    sector_count: U64,
    data_offset: U64,
    buffers_needed: U32,
    descriptors: U32,
    reserved: [u8; 24],
    checksum: [u8; 136],
    entries: U32,
}

/// A chunk as it lies in the file.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    kind: U32,
    comment: U32,
    sector: U64,
    sectors: U64,
    offset: U64,
    length: U64,
}

/// How a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not at all: it is zero (`UDZE`) or nobody minds what it is (`UDIG`).
    Zero,
    /// As it is (`UDRW`).
    Raw,
    /// As a stream (`UDZO`, `UDBZ`, `ULFO`).
    Compressed(Codec),
}

impl Kind {
    /// What the number in an entry stands for, if it is known.
    fn of(number: u32) -> Option<Self> {
        match number {
            0 | 2 => Some(Self::Zero),
            1 => Some(Self::Raw),
            0x8000_0005 => Some(Self::Compressed(Codec::Zlib)),
            0x8000_0006 => Some(Self::Compressed(Codec::Bzip2)),
            0x8000_0007 => Some(Self::Compressed(Codec::Lzfse)),
            _ => None,
        }
    }
}

/// Whether the number in an entry is that of a comment or of the end, which hold nothing of the disk.
fn is_remark(number: u32) -> bool {
    matches!(number, 0x7fff_fffe | 0xffff_ffff)
}

/// A part of the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// First sector, on the disk.
    start: u64,
    /// Number of sectors, at least 1, and at most [`CHUNK_SECTORS_MAX`] unless it is zero.
    sectors: u64,
    /// File offset in bytes: anything.
    pub(super) offset: u64,
    /// Bytes in the file, at most [`CHUNK_LEN_MAX`].
    length: u32,
    pub(super) kind: Kind,
}

impl Chunk {
    /// First sector behind it.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.sectors)
    }

    /// First byte on the disk.
    pub(super) fn start_bytes(&self) -> u64 {
        self.start * SECTOR
    }

    /// First byte behind it, or more than any disk has.
    pub(super) fn end_bytes(&self) -> u64 {
        self.end().saturating_mul(SECTOR)
    }

    /// Bytes in the file.
    pub(super) fn length(&self) -> u64 {
        self.length.into()
    }

    /// Bytes on the disk; at most [`CHUNK_LEN_MAX`] unless it is zero.
    pub(super) fn disk_len(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }
}

/// The chunks of known kinds, gathered block by block.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Sectors of the disk.
    disk: u64,
    /// File offset in bytes that those of blocks are counted from.
    data_fork: u64,
    /// Those that hold something of the disk; in order once they are [sorted](Self::sort).
    held: Vec<Chunk>,
    /// Number of chunks of known kinds, whether they hold something or not.
    known: u64,
    /// A number that stands for no known kind, if there was one.
    unknown: Option<u32>,
    overlap: bool,
}

impl Chunks {
    pub(super) fn new(disk: u64, data_fork: u64) -> Self {
        Self { disk, data_fork, held: Vec::new(), known: 0, unknown: None, overlap: false }
    }

    /// Adds the chunks of a block; what is no block is passed over. The caller has bounded the bytes of all blocks.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), Error> {
        let Ok((header, entries)) = Header::ref_from_prefix(block) else { return Ok(()) };
        if header.signature.get() != SIGNATURE {
            return Ok(());
        }
        // The number of entries in the header does not count: the length of the block does.
        for entry in entries.chunks_exact(size_of::<Entry>()) {
            let Ok(entry) = Entry::ref_from_bytes(entry) else { continue };
            let number = entry.kind.get();
            match Kind::of(number) {
                Some(kind) => self.add_chunk(header, entry, kind)?,
                None if is_remark(number) => {}
                None => self.unknown = self.unknown.or(Some(number)),
            }
        }
        Ok(())
    }

    fn add_chunk(&mut self, header: &Header, entry: &Entry, kind: Kind) -> Result<(), Error> {
        let index = self.known;
        let (sectors, length) = (entry.sectors.get(), entry.length.get());
        if kind != Kind::Zero && sectors > CHUNK_SECTORS_MAX {
            let message =
                format!("sector count {sectors} for chunk {index} is larger than max ({CHUNK_SECTORS_MAX})");
            return Err(Error::new(ErrorKind::Limit, "SectorCount", message));
        }
        let Some(short) = u32::try_from(length).ok().filter(|_| length <= CHUNK_LEN_MAX) else {
            let message = format!("length {length} for chunk {index} is larger than max ({CHUNK_LEN_MAX})");
            return Err(Error::new(ErrorKind::Limit, "CompressedLength", message));
        };
        if kind == Kind::Raw && length.div_ceil(SECTOR) != sectors {
            let message =
                format!("length {length} for chunk {index} is inconsistent with sector count {sectors}");
            return Err(corrupt(message));
        }
        self.known += 1;
        let start = header.first_sector.get().checked_add(entry.sector.get());
        let Some(start) = start.filter(|&start| start < self.disk && sectors > 0) else { return Ok(()) };
        // A place past all files will be found to be past the end of this one.
        let offset =
            self.data_fork.saturating_add(header.data_offset.get()).saturating_add(entry.offset.get());
        self.held.push(Chunk { start, sectors, offset, length: short, kind });
        Ok(())
    }

    /// Brings the chunks into the order of the disk: there must have been one.
    pub(super) fn sort(&mut self) -> Result<(), Error> {
        if self.known == 0 {
            return Err(invalid("blkx", "There are no chunks"));
        }
        self.held.sort_unstable_by_key(|chunk| chunk.start);
        self.overlap = !self.held.is_sorted_by(|a, b| a.end() <= b.start);
        self.held.shrink_to_fit();
        Ok(())
    }

    /// Number of chunks that hold something of the disk.
    pub(super) fn count(&self) -> u64 {
        self.held.len() as u64
    }

    /// The chunk that holds the byte at `offset` of the disk.
    pub(super) fn at(&self, offset: u64) -> Result<&Chunk, Error> {
        if self.overlap {
            return Err(corrupt("Chunks overlap"));
        }
        let sector = offset / SECTOR;
        let behind = self.held.partition_point(|chunk| chunk.start <= sector);
        let chunk = behind.checked_sub(1).and_then(|last| self.held.get(last));
        chunk.filter(|chunk| sector < chunk.end()).ok_or_else(|| match self.unknown {
            Some(number) => {
                let message = format!("Chunks of type {number:#x} are not supported");
                Error::new(ErrorKind::Unsupported, "EntryType", message)
            }
            None => corrupt(format!("No chunk holds sector {sector}")),
        })
    }
}
