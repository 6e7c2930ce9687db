//! The trailer: 512 bytes near the end of the file, and where they say that the table of chunks is.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{SECTOR, invalid};
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

const SIGNATURE: &[u8] = b"koly";
/// Bytes that are searched for the signature: the trailer begins in the last sector but one, or with the last one.
const SEARCHED: usize = 511 + 4;
/// Longest disk in sectors: QEMU's limit, 2^63 bytes less 1 GiB.
const SECTORS_MAX: u64 = ((1 << 63) - (1 << 30)) / SECTOR;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    signature: [u8; 4],
    version: U32,
    header_len: U32,
    flags: U32,
    running_data_fork_offset: U64,
    data_fork_offset: U64,
    data_fork_len: U64,
    rsrc_fork_offset: U64,
    rsrc_fork_len: U64,
    segment: [u8; 24],
    data_checksum: [u8; 136],
    xml_offset: U64,
    xml_len: U64,
    reserved: [u8; 120],
    checksum: [u8; 136],
    image_variant: U32,
    sector_count: U64,
    padding: [u8; 12],
}

/// Where the table of chunks is: file offset and length in bytes, all of it in front of the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// A resource fork.
    Resources { offset: u64, length: u64 },
    /// A property list in XML.
    PropertyList { offset: u64, length: u64 },
}

/// What the trailer says.
#[derive(Debug)]
pub(super) struct Trailer {
    /// Sectors of the disk, at most 2^63 - 1.
    pub(super) sectors: u64,
    /// File offset in bytes that those of chunks are counted from, not behind the trailer.
    pub(super) data_fork: u64,
    pub(super) table: Table,
}

impl Trailer {
    /// Finds and reads the trailer.
    pub(super) fn read<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let mut reader = Reader::new(storage);
        let start = find(&mut reader)?;
        reader.seek(start);
        let fields: Fields = reader.record()?;
        let data_fork = fields.data_fork_offset.get();
        if data_fork > start {
            return Err(invalid("DataForkOffset", "The data fork begins behind the trailer"));
        }
        let part = |field, offset: U64, length: U64| {
            let (offset, length) = (offset.get(), length.get());
            let room = start.checked_sub(offset).filter(|&room| room > 0 && length <= room);
            room.map(|_| (offset, length))
                .ok_or_else(|| invalid(field, "A part does not end before the trailer"))
        };
        let resources = part("RsrcForkOffset", fields.rsrc_fork_offset, fields.rsrc_fork_len)?;
        let list = part("XMLOffset", fields.xml_offset, fields.xml_len)?;
        let sectors = fields.sector_count.get();
        if sectors > i64::MAX as u64 {
            return Err(invalid("SectorCount", "The number of sectors is negative"));
        }
        let table = match (resources, list) {
            ((offset, length @ 1..), _) => Table::Resources { offset, length },
            (_, (offset, length @ 1..)) => Table::PropertyList { offset, length },
            _ => return Err(invalid("XMLLength", "There is neither a resource fork nor a property list")),
        };
        Ok(Self { sectors, data_fork, table })
    }

    /// Bytes of the disk. That there are too many is found last, behind all that is wrong with the table.
    pub(super) fn virtual_size(&self) -> Result<u64, Error> {
        if self.sectors > SECTORS_MAX {
            let message = "Could not refresh total sector count: File too large";
            return Err(Error::new(ErrorKind::Limit, "SectorCount", message));
        }
        Ok(self.sectors * SECTOR)
    }
}

/// File offset of the first signature in the last [`SEARCHED`] bytes in which a trailer can begin. The file counts in
/// whole sectors, what is missing being zero.
fn find<S: Storage>(reader: &mut Reader<'_, S>) -> Result<u64, Error> {
    let length = reader.file_len().next_multiple_of(SECTOR);
    if length == 0 {
        return Err(invalid("koly", "dmg file must be at least 512 bytes long"));
    }
    let first = length.saturating_sub(2 * SECTOR - 1);
    reader.seek(first);
    let searched: [u8; SEARCHED] = reader.record()?;
    let searched = searched.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(&searched);
    let found = searched.windows(SIGNATURE.len()).position(|window| window == SIGNATURE);
    found
        .map(|at| first + at as u64)
        .ok_or_else(|| invalid("koly", "Could not locate UDIF trailer in dmg file"))
}
