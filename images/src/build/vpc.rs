//! VHD: a dynamic disk of 8 MiB in blocks of 2 MiB, the first of which is there. The footer's copy is at 0, the dynamic
//! header at 512, the table at 1536, the block with its bitmap at 2048, the footer behind it.

use crate::{Field, SparseFile, be};

pub(crate) const DATA_OFFSET: Field = be(16, 8);
pub(crate) const CREATOR: u64 = 28;
pub(crate) const CURRENT_SIZE: Field = be(48, 8);
pub(crate) const GEOMETRY: Field = be(56, 4);
pub(crate) const DISK_TYPE: Field = be(60, 4);
pub(crate) const CHECKSUM: Field = be(64, 4);

/// Where the dynamic header is.
pub(crate) const HEADER: u64 = 512;
pub(crate) const TABLE_OFFSET: Field = be(HEADER + 16, 8);
pub(crate) const TABLE_ENTRIES: Field = be(HEADER + 28, 4);
pub(crate) const BLOCK_SIZE: Field = be(HEADER + 32, 4);
pub(crate) const HEADER_CHECKSUM: Field = be(HEADER + 36, 4);
/// The first of the parent locators.
pub(crate) const LOCATOR: u64 = HEADER + 576;
/// Where the table is, and its first entries.
pub(crate) const TABLE: u64 = 1536;
pub(crate) const FIRST_BLOCK: Field = be(TABLE, 4);
pub(crate) const SECOND_BLOCK: Field = be(TABLE + 4, 4);
/// Where the block is, its bitmap before it.
pub(crate) const BLOCK: u64 = 2048;
/// Where the footer is.
pub(crate) const FOOTER: u64 = BLOCK + 512 + (2 << 20);

/// The one's complement of the sum of the bytes, its own left out.
fn checksum(structure: &[u8], at: usize) -> u64 {
    let own = at..at + 4;
    let rest = structure.iter().enumerate().filter(|(index, _)| !own.contains(index));
    let sum: u32 = rest.map(|(_, &byte)| u32::from(byte)).sum();
    u64::from(!sum)
}

/// Makes the checksum of the structure at `at` right, which is itself at `field` in it.
fn sealed(image: SparseFile, at: u64, length: usize, field: u64) -> SparseFile {
    let sum = checksum(&image.bytes(at, length), field as usize);
    image.set(be(at + field, 4), sum)
}

/// A footer of these: type of the disk, bytes of it, offset of the dynamic header.
fn footer(disk_type: u64, size: u64, data_offset: u64) -> SparseFile {
    SparseFile::from("conectix")
        .set(be(8, 4), 2)
        .set(be(12, 4), 0x1_0000)
        .set(DATA_OFFSET, data_offset)
        .put(CREATOR, "win ")
        .set(be(40, 8), size)
        .set(CURRENT_SIZE, size)
        .set(GEOMETRY, 240 << 16 | 4 << 8 | 17)
        .set(DISK_TYPE, disk_type)
        .with_length(512)
}

/// Makes both checksums right and the footer the same as its copy.
pub(crate) fn seal(image: SparseFile) -> SparseFile {
    let image = sealed(sealed(image, 0, 512, 64), HEADER, 1024, 36);
    let copy = image.bytes(0, 512);
    image.put(FOOTER, copy)
}

/// The dynamic disk.
pub(crate) fn dynamic() -> SparseFile {
    let image = footer(3, 8 << 20, HEADER)
        .put(HEADER, "cxsparse")
        .set(be(HEADER + 8, 8), u64::MAX)
        .set(TABLE_OFFSET, TABLE)
        .set(be(HEADER + 24, 4), 0x1_0000)
        .set(TABLE_ENTRIES, 4)
        .set(BLOCK_SIZE, 2 << 20)
        .put(TABLE, [0xff; 512])
        .set(FIRST_BLOCK, BLOCK / 512)
        .put(BLOCK, [0xff; 512])
        .put(BLOCK + 512, [7; 512]);
    seal(image)
}

/// The same as a differencing disk with these parent locators: platform and name as it lies in the file.
pub(crate) fn differencing(locators: &[(&str, Vec<u8>)]) -> SparseFile {
    let mut image = dynamic().set(DISK_TYPE, 4).with_length(FOOTER);
    let mut place = FOOTER;
    for (index, (platform, name)) in (0..).zip(locators) {
        let at = LOCATOR + 24 * index;
        image = image
            .put(at, platform)
            .set(be(at + 4, 4), 512)
            .set(be(at + 8, 4), name.len() as u64)
            .set(be(at + 16, 8), place)
            .put(place, name);
        place += (name.len() as u64).next_multiple_of(512);
    }
    let image = sealed(sealed(image, 0, 512, 64), HEADER, 1024, 36).with_length(place);
    let copy = image.bytes(0, 512);
    image.put(place, copy)
}

/// A fixed disk with this content.
pub(crate) fn fixed(content: SparseFile) -> SparseFile {
    let size = content.length();
    let footer = sealed(footer(2, size, u64::MAX), 0, 512, 64);
    content.put(size, footer.bytes(0, 512))
}

/// UTF-16 as locators have it.
pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
