//! Section "Dynamic Disk Header Format": where the blocks are, and which image is the parent.

use alloc::format;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::footer::Footer;
use super::{SECTOR, invalid};
use crate::{Error, ErrorKind, Storage};

/// "Cookie".
const COOKIE: &[u8; 8] = b"cxsparse";
/// "Header Version": 1.0.
const VERSION: u32 = 1 << 16;
/// Length of the header in bytes.
pub(super) const HEADER_LEN: u64 = 1024;
/// Most entries of the block allocation table: QEMU's limit.
const TABLE_ENTRIES_MAX: u32 = (i32::MAX as u32) / 4;
/// Longest read of QEMU's in bytes; it reads the block allocation table at once.
const READ_MAX: u64 = (i32::MAX as u64) & !511;
/// Highest end of a read in a file: QEMU's limit.
const READ_END_MAX: u64 = (i64::MAX as u64) & !((1 << 30) - 1);
/// Sectors that a byte of a block's bitmap stands for.
const SECTORS_A_BYTE: u64 = 8;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    cookie: [u8; 8],
    data_offset: U64,
    table_offset: U64,
    header_version: U32,
    max_table_entries: U32,
    block_size: U32,
    checksum: U32,
    parent_unique_id: [u8; 16],
    parent_timestamp: U32,
    reserved: U32,
    parent_name: [u8; 512],
    parent_locators: [Locator; 8],
    reserved_end: [u8; 256],
}

const _: () = assert!(size_of::<Fields>() as u64 == HEADER_LEN);

/// "Parent Locator Entry".
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Locator {
    pub(super) platform_code: [u8; 4],
    pub(super) data_space: U32,
    pub(super) data_length: U32,
    pub(super) reserved: U32,
    pub(super) data_offset: U64,
}

/// What the header says of the parent, not yet checked.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) unique_id: [u8; 16],
    pub(super) name: [u8; 512],
    pub(super) locators: [Locator; 8],
}

/// The header of a new image as it lies in the file: its table, of `entries`, at `table_offset`.
pub(super) fn new(table_offset: u64, entries: u32, block_size: u32) -> impl IntoBytes + Immutable {
    let mut fields = Fields::new_zeroed();
    fields.cookie = *COOKIE;
    fields.data_offset = u64::MAX.into();
    fields.table_offset = table_offset.into();
    fields.header_version = VERSION.into();
    fields.max_table_entries = entries.into();
    fields.block_size = block_size.into();
    fields.checksum = (!fields.as_bytes().iter().map(|&byte| u32::from(byte)).sum::<u32>()).into();
    fields
}

/// The header, checked: a block is a power of two of at least 512 bytes, and the table has an entry for every block of
/// the disk. The header's own checksum is not checked: images are known in which it is wrong, and QEMU reads them.
#[derive(Clone, Debug)]
pub struct DynamicHeader {
    /// File offset of the header itself.
    offset: u64,
    block_size: u32,
    table_offset: u64,
    max_table_entries: u32,
}

impl DynamicHeader {
    pub(super) fn read<S: Storage>(storage: &mut S, footer: &Footer) -> Result<(Self, Parent), Error> {
        let offset = footer.data_offset();
        if offset > READ_END_MAX - HEADER_LEN {
            return Err(invalid("data_offset", "Error reading dynamic VHD header"));
        }
        let mut fields = Fields::new_zeroed();
        storage.read_at(offset, fields.as_mut_bytes())?;
        if fields.cookie != *COOKIE {
            return Err(invalid("cookie", "Invalid header magic"));
        }
        let block_size = fields.block_size.get();
        if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR {
            return Err(invalid("block_size", format!("Invalid block size {block_size}")));
        }
        let max_table_entries = fields.max_table_entries.get();
        let header = Self { offset, block_size, table_offset: fields.table_offset.get(), max_table_entries };
        // As a signed number it is negative in QEMU, and then all but certainly large enough.
        let capacity = u64::from(max_table_entries) * u64::from(block_size);
        if capacity < footer.virtual_size() {
            return Err(invalid("max_table_entries", "Page table too small"));
        }
        if max_table_entries > TABLE_ENTRIES_MAX {
            let message = format!("Max Table Entries too large ({})", max_table_entries.cast_signed());
            return Err(Error::new(ErrorKind::Limit, "max_table_entries", message));
        }
        let table_len = header.table_len();
        if table_len > READ_MAX || header.table_offset > READ_END_MAX - table_len {
            return Err(invalid("table_offset", "Error reading pagetable"));
        }
        let Fields { parent_unique_id: unique_id, parent_name: name, parent_locators: locators, .. } = fields;
        Ok((header, Parent { unique_id, name, locators }))
    }

    /// Whether the header's checksum is right: the one's complement of the sum of all bytes but its own.
    pub(super) fn is_checksum_right<S: Storage>(&self, storage: &mut S) -> Result<bool, Error> {
        let mut fields = Fields::new_zeroed();
        storage.read_at(self.offset, fields.as_mut_bytes())?;
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        Ok(!(sum(fields.as_bytes()) - sum(fields.checksum.as_bytes())) == fields.checksum.get())
    }

    /// File offset and length in bytes of what is in the file for the parent's names.
    pub(super) fn locators<S: Storage>(&self, storage: &mut S) -> Result<[(u64, u64); 8], Error> {
        let mut fields = Fields::new_zeroed();
        storage.read_at(self.offset, fields.as_mut_bytes())?;
        Ok(fields
            .parent_locators
            .map(|locator| (locator.data_offset.get(), locator.data_length.get().into())))
    }

    /// Size of a block in bytes: a power of two, at least 512.
    pub fn block_size(&self) -> u64 {
        u64::from(self.block_size)
    }

    /// Length in bytes of the bitmap in front of each block: whole sectors, one bit a sector of the block.
    pub(super) fn bitmap_len(&self) -> u64 {
        (self.block_size() / SECTOR / SECTORS_A_BYTE).next_multiple_of(SECTOR)
    }

    /// Length in bytes of a block in the file, its bitmap included.
    pub(super) fn stored_block_len(&self) -> u64 {
        self.bitmap_len() + self.block_size()
    }

    /// File offset of the header.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// File offset of the block allocation table. Its end is below 2^63.
    pub(super) fn table_offset(&self) -> u64 {
        self.table_offset
    }

    /// Entries of the block allocation table.
    pub(super) fn table_entries(&self) -> u64 {
        u64::from(self.max_table_entries)
    }

    /// Length of the block allocation table in bytes.
    pub(super) fn table_len(&self) -> u64 {
        self.table_entries() * 4
    }
}
