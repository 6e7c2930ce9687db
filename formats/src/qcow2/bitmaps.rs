//! Section "Bitmaps": the directory of persistent dirty bitmaps. Their tables and bits are not read.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::extensions::BitmapDirectory;
use super::header::Header;
use crate::reader::{Reader, c_string};
use crate::{Error, ErrorKind, Storage};

/// Largest directory in bytes that is read, so that the names in memory stay bounded; QEMU reads up to 64 MiB.
const DIRECTORY_MAX: u64 = 1 << 20;
/// Largest bitmap table in entries: QEMU's limit.
const TABLE_SIZE_MAX: u32 = 0x800_0000;
/// Largest bitmap in bytes of the file: QEMU's limit.
pub(super) const BITMAP_LEN_MAX: u64 = 0x2000_0000;
/// Granularity, as a power of two. Section "Bitmap directory": the values that QEMU supports.
pub(super) const GRANULARITY_BITS: core::ops::RangeInclusive<u8> = 9..=31;
/// Longest name in bytes. QEMU's limit.
pub(super) const NAME_MAX: u16 = 1023;
/// Type of a dirty tracking bitmap, the only one.
pub(super) const DIRTY_TRACKING: u8 = 1;
pub(super) const FLAG_IN_USE: u32 = 1;
pub(super) const FLAG_AUTO: u32 = 1 << 1;

/// The fixed part of a directory entry; extra data and name follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) table_offset: U64,
    pub(super) table_size: U32,
    pub(super) flags: U32,
    pub(super) kind: u8,
    pub(super) granularity_bits: u8,
    pub(super) name_len: U16,
    pub(super) extra_data_len: U32,
}

/// A dirty bitmap stored in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Name: up to 1023 bytes, none of them NUL.
    pub name: Vec<u8>,
    /// log2 of the virtual bytes that one bit stands for, 9 to 31.
    pub granularity_bits: u8,
    /// Whether it was not saved properly and its bits mean nothing.
    pub in_use: bool,
    /// Whether it is to be kept up to date automatically.
    pub auto: bool,
    /// Whether another one before it has its name. It is in use then, and only listed.
    pub shadowed: bool,
    /// File offset in bytes of its table, a multiple of the cluster size, and entries of the table, at least 1.
    pub(super) table: (u64, u32),
}

impl Bitmap {
    /// Virtual bytes that one bit stands for, 512 to 2^31.
    pub fn granularity(&self) -> u64 {
        1 << self.granularity_bits
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, "bitmap directory", message)
}

/// Reads the directory.
pub(super) fn read<S: Storage>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    directory: &BitmapDirectory,
) -> Result<Vec<Bitmap>, Error> {
    if directory.length == 0 {
        return Err(invalid("Requested bitmap directory size is zero"));
    }
    if directory.length > DIRECTORY_MAX {
        let message = "Requested bitmap directory size is too big";
        return Err(Error::new(ErrorKind::Limit, "bitmap directory", message));
    }
    let end = directory.offset.saturating_add(directory.length);
    if end > reader.file_len() {
        let message = "Bitmap directory lies beyond the end of the file";
        return Err(Error::new(ErrorKind::Corrupt, "bitmap directory", message));
    }
    reader.seek(directory.offset);
    let mut found = Vec::new();
    while reader.position() < end {
        let room = end - reader.position();
        if room < size_of::<Entry>() as u64 {
            return Err(invalid("Broken bitmap directory"));
        }
        if u64::from(directory.count) == found.len() as u64 {
            return Err(invalid("More bitmaps found than specified in header extension"));
        }
        let entry: Entry = reader.record()?;
        let length = size_of::<Entry>() as u64
            + u64::from(entry.name_len.get())
            + u64::from(entry.extra_data_len.get());
        if length.next_multiple_of(8) > room {
            return Err(invalid("Broken bitmap directory"));
        }
        if entry.extra_data_len.get() != 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "bitmap directory",
                "Bitmap extra data is not supported",
            ));
        }
        let name = reader.bytes(usize::from(entry.name_len.get()))?;
        reader.align_to_8(directory.offset);
        if !satisfies_constraints(&entry, header) {
            let name = c_string(name);
            let name = String::from_utf8_lossy(&name);
            return Err(invalid(format!("Bitmap '{name}' doesn't satisfy the constraints")));
        }
        found.push((entry, c_string(name)));
    }
    if u64::from(directory.count) != found.len() as u64 {
        return Err(invalid("Less bitmaps found than specified in header extension"));
    }
    load(header, found)
}

fn satisfies_constraints(entry: &Entry, header: &Header) -> bool {
    let cluster_bits = header.cluster_bits();
    let flags = entry.flags.get();
    let length = u64::from(entry.table_size.get()) << cluster_bits.get();
    let fields_are_valid = entry.table_size.get() != 0
        && entry.table_offset.get() != 0
        && cluster_bits.aligned(entry.table_offset.get())
        && entry.table_size.get() <= TABLE_SIZE_MAX
        && GRANULARITY_BITS.contains(&entry.granularity_bits)
        && flags & !(FLAG_IN_USE | FLAG_AUTO) == 0
        && entry.name_len.get() <= NAME_MAX
        && entry.kind == DIRTY_TRACKING;
    fields_are_valid
        && length <= BITMAP_LEN_MAX
        && (flags & FLAG_IN_USE != 0 || header.virtual_size() <= (length * 8) << entry.granularity_bits)
}

/// Turns directory entries into bitmaps. A name that is already taken is an error, unless the later bitmap is of no
/// use anyway.
fn load(header: &Header, found: Vec<(Entry, Vec<u8>)>) -> Result<Vec<Bitmap>, Error> {
    let mut names = BTreeSet::new();
    let mut bitmaps = Vec::with_capacity(found.len());
    for (entry, name) in found {
        let in_use = entry.flags.get() & FLAG_IN_USE != 0;
        let taken = !names.insert(name.clone());
        let shown = || String::from_utf8_lossy(&name).into_owned();
        if taken && !in_use {
            return Err(invalid(format!("Bitmap already exists: {}", shown())));
        }
        let bytes = header.virtual_size().div_ceil(1 << entry.granularity_bits).div_ceil(64) * 8;
        let table_size = bytes.div_ceil(header.cluster_bits().size());
        if !in_use && u64::from(entry.table_size.get()) != table_size {
            return Err(invalid(format!("Could not read bitmap '{}' from image: Invalid argument", shown())));
        }
        let auto = entry.flags.get() & FLAG_AUTO != 0;
        bitmaps.push(Bitmap {
            name,
            granularity_bits: entry.granularity_bits,
            in_use,
            auto,
            shadowed: taken,
            table: (entry.table_offset.get(), entry.table_size.get()),
        });
    }
    Ok(bitmaps)
}
