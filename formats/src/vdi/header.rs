//! The pre-header and the header, version 1.1: the fields that count, each bounded here once.

use alloc::format;
use alloc::string::String;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::create::Create;
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage, StorageMut};

/// `VDI_IMAGE_SIGNATURE`.
const SIGNATURE: u32 = 0xbeda_107f;
/// File offset of the signature in bytes; a text of free choice is before it.
const SIGNATURE_OFFSET: usize = 0x40;
/// Version 1.1.
const VERSION: u32 = 0x0001_0001;
/// What `qemu-img` writes before the signature.
const TEXT: &[u8] = b"<<< QEMU VM Virtual Disk Image >>>\n";
/// `cbHeader` that `qemu-img` writes: what is behind the signature and the version.
const HEADER_LEN: u32 = 0x180;
/// File offset of the block map that `qemu-img` writes.
pub(super) const MAP_OFFSET: u32 = 0x200;
/// `VDI_IMAGE_TYPE_NORMAL`.
const TYPE_DYNAMIC: u32 = 1;
/// `VDI_IMAGE_TYPE_FIXED`.
const TYPE_STATIC: u32 = 2;
/// `cbSector`.
const SECTOR_LEN: u32 = 512;
/// `cbBlock`: the only one that QEMU takes.
pub(super) const BLOCK_LEN: u64 = BLOCK_SIZE as u64;
const BLOCK_SIZE: u32 = 1 << 20;
/// Most blocks: QEMU's limit, a block map that ends a sector below 2 GiB.
pub(super) const BLOCKS_MAX: u64 = 0x1fff_ff80;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    text: [u8; SIGNATURE_OFFSET],
    signature: U32,
    version: U32,
    header_len: U32,
    image_type: U32,
    flags: U32,
    comment: [u8; 256],
    offset_blocks: U32,
    offset_data: U32,
    cylinders: U32,
    heads: U32,
    sectors: U32,
    sector_len: U32,
    unused: U32,
    disk_size: U64,
    block_len: U32,
    block_extra: U32,
    blocks: U32,
    blocks_allocated: U32,
    uuid_image: [u8; 16],
    uuid_last_modified: [u8; 16],
    uuid_linkage: [u8; 16],
    uuid_parent: [u8; 16],
}

/// Whether the first bytes of a file are those of a VDI image.
pub(crate) fn probe(head: &[u8]) -> bool {
    head.get(SIGNATURE_OFFSET..)
        .and_then(|rest| U32::read_from_prefix(rest).ok())
        .is_some_and(|(signature, _)| signature.get() == SIGNATURE)
}

/// The header of a new image as it lies in the file: of `blocks`, the first of them at `offset_data`.
pub(super) fn new(
    create: &Create,
    disk_size: u64,
    blocks: u32,
    offset_data: u32,
) -> impl IntoBytes + Immutable {
    let mut fields = Fields::new_zeroed();
    for (byte, with) in fields.text.iter_mut().zip(TEXT) {
        *byte = *with;
    }
    fields.signature = SIGNATURE.into();
    fields.version = VERSION.into();
    fields.header_len = HEADER_LEN.into();
    fields.image_type = if create.is_static { TYPE_STATIC } else { TYPE_DYNAMIC }.into();
    fields.offset_blocks = MAP_OFFSET.into();
    fields.offset_data = offset_data.into();
    fields.sector_len = SECTOR_LEN.into();
    fields.disk_size = disk_size.into();
    fields.block_len = BLOCK_SIZE.into();
    fields.blocks = blocks.into();
    fields.blocks_allocated = if create.is_static { blocks } else { 0 }.into();
    fields.uuid_image = create.uuid;
    fields.uuid_last_modified = create.uuid_last_snapshot;
    fields
}

/// Says in the file how many blocks are in it.
pub(super) fn set_blocks_allocated<S: StorageMut>(storage: &mut S, blocks: u32) -> Result<(), Error> {
    let offset = core::mem::offset_of!(Fields, blocks_allocated) as u64;
    Ok(storage.write_at(offset, &blocks.to_le_bytes())?)
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    /// Bytes of the disk, a multiple of 512 and at most [`BLOCKS_MAX`] blocks.
    pub(super) disk_size: u64,
    /// Number of blocks, enough for the disk.
    pub(super) blocks: u64,
    /// File offset of the block map, a multiple of 512.
    pub(super) offset_blocks: u64,
    /// File offset of the first block, a multiple of 512.
    pub(super) offset_data: u64,
    /// How many blocks are in the file, as the header has it.
    pub(super) blocks_allocated: u64,
    pub(super) is_static: bool,
}

fn unsupported(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, field, message)
}

impl Header {
    /// Reads and checks the header.
    pub(super) fn read<S: Storage>(reader: &mut Reader<'_, S>) -> Result<Self, Error> {
        let fields: Fields = reader.record()?;
        let (disk_size, blocks) = (fields.disk_size.get(), u64::from(fields.blocks.get()));
        if disk_size > BLOCKS_MAX * BLOCK_LEN {
            let max = BLOCKS_MAX * BLOCK_LEN;
            let message =
                format!("Unsupported VDI image size (size is {disk_size:#x}, max supported is {max:#x})");
            return Err(Error::new(ErrorKind::Limit, "cbDisk", message));
        }
        let disk_size = disk_size.next_multiple_of(SECTOR_LEN.into());
        let signature = fields.signature.get();
        if signature != SIGNATURE {
            let message = format!("Image not in VDI format (bad signature {signature:08x})");
            return Err(Error::new(ErrorKind::InvalidFormat, "u32Signature", message));
        }
        let version = fields.version.get();
        if version != VERSION {
            let (major, minor) = (version >> 16, version & 0xffff);
            let message = format!("unsupported VDI image (version {major}.{minor})");
            return Err(unsupported("u32Version", message));
        }
        fields.check_layout()?;
        let room = blocks * BLOCK_LEN;
        if disk_size > room {
            let message =
                format!("unsupported VDI image (disk size {disk_size}, image bitmap has room for {room})");
            return Err(unsupported("cBlocks", message));
        }
        if fields.uuid_linkage != [0; 16] {
            return Err(unsupported("uuidLinkage", "unsupported VDI image (non-NULL link UUID)"));
        }
        if fields.uuid_parent != [0; 16] {
            return Err(unsupported("uuidParentModify", "unsupported VDI image (non-NULL parent UUID)"));
        }
        if blocks > BLOCKS_MAX {
            let message = format!("unsupported VDI image (too many blocks {blocks}, max is {BLOCKS_MAX})");
            return Err(Error::new(ErrorKind::Limit, "cBlocks", message));
        }
        Ok(Self {
            disk_size,
            blocks,
            offset_blocks: fields.offset_blocks.get().into(),
            offset_data: fields.offset_data.get().into(),
            blocks_allocated: fields.blocks_allocated.get().into(),
            is_static: fields.image_type.get() == TYPE_STATIC,
        })
    }
}

impl Fields {
    fn check_layout(&self) -> Result<(), Error> {
        let offset = self.offset_blocks.get();
        if !offset.is_multiple_of(SECTOR_LEN) {
            let message = format!("unsupported VDI image (unaligned block map offset {offset:#x})");
            return Err(unsupported("offBlocks", message));
        }
        let offset = self.offset_data.get();
        if !offset.is_multiple_of(SECTOR_LEN) {
            let message = format!("unsupported VDI image (unaligned data offset {offset:#x})");
            return Err(unsupported("offData", message));
        }
        let sector = self.sector_len.get();
        if sector != SECTOR_LEN {
            let message = format!("unsupported VDI image (sector size {sector} is not {SECTOR_LEN})");
            return Err(unsupported("cbSector", message));
        }
        let block = self.block_len.get();
        if u64::from(block) != BLOCK_LEN {
            let message = format!("unsupported VDI image (block size {block} is not {BLOCK_LEN})");
            return Err(unsupported("cbBlock", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_virtualbox_puts_them() {
        use core::mem::offset_of;
        assert_eq!(offset_of!(Fields, offset_blocks), 0x154);
        assert_eq!(offset_of!(Fields, disk_size), 0x170);
        assert_eq!(offset_of!(Fields, blocks), 0x180);
        assert_eq!(offset_of!(Fields, uuid_parent), 0x1b8);
    }

    #[test]
    fn a_short_head_is_no_vdi() {
        assert!(!probe(b"<<< QEMU VM Virtual Disk Image >>>"));
        assert!(!probe(&[0; 0x43]));
    }
}
