//! Hosted sparse files (`KDMV`), uncompressed and stream-optimized. Section "Hosted Sparse Extents".

use alloc::format;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::sparse::{Entries, Layout, Sparse, table_offset};
use super::text::Text;
use super::{SECTOR, file_sectors};
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"KDMV";
/// Newest version that is known; 2 and 3 read like 1. One of 3 that is not compressed may be tracked by VMware, which would
/// not learn of what is written.
const VERSION_MAX: u32 = 3;
/// Most entries of a grain table: QEMU's limit. The specification says 512 always.
pub(super) const TABLE_ENTRIES_MAX: u32 = 512;
/// Flag: the newlines in the header tell whether it was transferred as text.
const FLAG_NEWLINES: u32 = 1;
/// Flag: there is a redundant grain directory.
const FLAG_REDUNDANT: u32 = 1 << 1;
/// Flag: a grain table entry of 1 is a grain of zeros.
const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
/// Flag: grains are compressed.
const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers stand before compressed grains.
const FLAG_MARKERS: u32 = 1 << 17;
/// `compressAlgorithm`: deflate in a zlib stream.
const DEFLATE: u16 = 1;
/// `gdOffset` of a header whose directory came to be known only at the end: a footer has it.
const DIRECTORY_AT_END: u64 = u64::MAX;
/// Bytes of the marker before a compressed grain: sector and length of the data.
const GRAIN_MARKER_LEN: u64 = 12;
/// `type` of the marker before a grain table.
const MARKER_TABLE: u32 = 1;
/// `type` of the marker before a grain directory.
const MARKER_DIRECTORY: u32 = 2;
/// `type` of the marker before a footer.
const MARKER_FOOTER: u32 = 3;
/// `type` of the marker at the end of the stream.
const MARKER_END: u32 = 0;

/// Sectors of a grain of a new file.
pub(super) const GRAIN_SECTORS: u64 = 128;
/// First sector of the descriptor of a new file, and how many it takes.
pub(super) const DESCRIPTOR_SECTOR: u64 = 1;
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;
/// "singleEndLineChar" and what follows it.
const NEWLINES: &[u8; 4] = b"\n \r\n";
const SECTOR_LEN: usize = 512;

/// The header, without its padding.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: [u8; 4],
    version: U32,
    flags: U32,
    capacity: U64,
    grain_size: U64,
    descriptor_offset: U64,
    descriptor_size: U64,
    num_gtes_per_gt: U32,
    rgd_offset: U64,
    gd_offset: U64,
    over_head: U64,
    unclean_shutdown: u8,
    newlines: [u8; 4],
    compress_algorithm: U16,
}

/// The sector of the header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Sector {
    header: Fields,
    padding: [u8; 433],
}

/// A marker that is followed by metadata.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Marker {
    value: U64,
    size: U32,
    kind: U32,
    padding: [u8; 496],
}

/// The last three sectors of a stream.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Footer {
    footer_marker: Marker,
    header: Fields,
    padding: [u8; 433],
    end_marker: Marker,
}

/// What the header of a new file says. Offsets are sectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct New {
    /// Sectors of the disk in the file.
    pub(super) capacity: u64,
    /// Whether grains are compressed, with markers in front of them.
    pub(super) compressed: bool,
    pub(super) zeroed_grains: bool,
    /// The redundant directory, if there is one.
    pub(super) redundant: Option<u64>,
    /// The directory; `None` if a footer has it.
    pub(super) directory: Option<u64>,
    /// The first grain.
    pub(super) over_head: u64,
}

impl New {
    /// The header, as it lies in the file.
    fn fields(&self) -> Fields {
        let flag = |set: bool, flags: u32| if set { flags } else { 0 };
        Fields {
            magic: MAGIC,
            version: match self {
                New { compressed: true, .. } => 3,
                New { zeroed_grains: true, .. } => 2,
                _ => 1,
            }
            .into(),
            flags: (FLAG_NEWLINES
                | flag(self.redundant.is_some(), FLAG_REDUNDANT)
                | flag(self.zeroed_grains, FLAG_ZEROED_GRAINS)
                | flag(self.compressed, FLAG_COMPRESSED | FLAG_MARKERS))
            .into(),
            capacity: self.capacity.into(),
            grain_size: GRAIN_SECTORS.into(),
            descriptor_offset: DESCRIPTOR_SECTOR.into(),
            descriptor_size: DESCRIPTOR_SECTORS.into(),
            num_gtes_per_gt: TABLE_ENTRIES_MAX.into(),
            rgd_offset: self.redundant.unwrap_or(0).into(),
            gd_offset: self.directory.unwrap_or(DIRECTORY_AT_END).into(),
            over_head: self.over_head.into(),
            unclean_shutdown: 0,
            newlines: *NEWLINES,
            compress_algorithm: if self.compressed { DEFLATE } else { 0 }.into(),
        }
    }

    /// The bytes of the header's sector.
    pub(super) fn bytes(&self) -> impl IntoBytes + Immutable {
        Sector { header: self.fields(), padding: [0; 433] }
    }

    /// The bytes of the end of a stream: footer and end, with their markers.
    pub(super) fn end_of_stream(&self) -> impl IntoBytes + Immutable {
        Footer {
            footer_marker: marker(1, MARKER_FOOTER),
            header: self.fields(),
            padding: [0; 433],
            end_marker: marker(0, MARKER_END),
        }
    }
}

/// A marker of `sectors` of metadata.
fn marker(sectors: u64, kind: u32) -> Marker {
    Marker { value: sectors.into(), size: U32::ZERO, kind: kind.into(), padding: [0; 496] }
}

/// What stands before a grain table of `sectors`.
pub(super) fn table_marker(sectors: u64) -> impl IntoBytes + Immutable {
    marker(sectors, MARKER_TABLE)
}

/// What stands before a grain directory of `sectors`.
pub(super) fn directory_marker(sectors: u64) -> impl IntoBytes + Immutable {
    marker(sectors, MARKER_DIRECTORY)
}

/// Puts the marker of the grain at the sector `sector` of the disk before its `stream`, and zeros behind it up to a whole
/// sector.
pub(super) fn mark_grain(sector: u64, stream: &mut Vec<u8>) {
    let length = u32::try_from(stream.len()).unwrap_or(u32::MAX);
    stream.splice(..0, sector.to_le_bytes().into_iter().chain(length.to_le_bytes()));
    stream.resize(stream.len().next_multiple_of(SECTOR_LEN), 0);
}

fn invalid(field: &'static str, message: impl Into<alloc::string::String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

/// Reads and checks the header, or the footer that stands for it.
pub(super) fn open<S: Storage>(reader: &mut Reader<'_, S>) -> Result<Sparse, Error> {
    reader.seek(0);
    let mut header: Fields = reader.record()?;
    if header.magic != MAGIC {
        return Err(invalid("magicNumber", "Image not in VMDK format"));
    }
    if header.capacity.get() == 0 && header.descriptor_offset.get() != 0 {
        return Err(refuse_descriptor(reader, header.descriptor_offset.get()));
    }
    if header.gd_offset.get() == DIRECTORY_AT_END {
        header = footer(reader)?;
    }
    check(reader, &header)
}

/// A header without capacity makes QEMU read the file as a descriptor, which may name any file as a part of the disk.
fn refuse_descriptor<S: Storage>(reader: &mut Reader<'_, S>, sector: u64) -> Error {
    let Some(offset) = table_offset(sector, 0) else {
        return invalid("descriptorOffset", "Could not read from file: Input/output error");
    };
    match Text::read(reader, offset).and_then(|text| text.create_type()) {
        Err(error) => error,
        Ok(_) => invalid("capacity", "Sparse header without capacity stands before a descriptor"),
    }
}

fn footer<S: Storage>(reader: &mut Reader<'_, S>) -> Result<Fields, Error> {
    let end = file_sectors(reader.file_len()) * SECTOR;
    let Some(start) = end.checked_sub(size_of::<Footer>() as u64) else {
        return Err(invalid("footer", "Failed to read footer: Input/output error"));
    };
    reader.seek(start);
    let footer: Footer = reader.record()?;
    let markers = footer.footer_marker.size.get() == 0
        && footer.footer_marker.kind.get() == MARKER_FOOTER
        && footer.end_marker.value.get() == 0
        && footer.end_marker.size.get() == 0
        && footer.end_marker.kind.get() == MARKER_END;
    if footer.header.magic != MAGIC || !markers {
        return Err(invalid("footer", "Invalid footer"));
    }
    Ok(footer.header)
}

fn check<S: Storage>(reader: &Reader<'_, S>, header: &Fields) -> Result<Sparse, Error> {
    let version = header.version.get();
    if version > VERSION_MAX {
        let message = format!("Unsupported VMDK version {version}");
        return Err(Error::new(ErrorKind::Unsupported, "version", message));
    }
    let table_entries = header.num_gtes_per_gt.get();
    if table_entries > TABLE_ENTRIES_MAX {
        return Err(invalid("numGTEsPerGT", "L2 table size too big"));
    }
    let grain_sectors = header.grain_size.get();
    // QEMU counts what a table covers in 32 bits.
    let covered = u64::from(table_entries).wrapping_mul(grain_sectors);
    if covered & u64::from(u32::MAX) == 0 {
        return Err(invalid("grainSize", "L1 entry size is invalid"));
    }
    let over_head = header.over_head.get();
    if file_sectors(reader.file_len()) < over_head {
        let expected = over_head.wrapping_mul(SECTOR).cast_signed();
        let message = format!("File truncated, expecting at least {expected} bytes");
        return Err(Error::new(ErrorKind::Corrupt, "overHead", message));
    }
    let compressed = header.compress_algorithm.get() == DEFLATE;
    let flags = header.flags.get();
    let marker_len = if flags & FLAG_MARKERS != 0 { GRAIN_MARKER_LEN } else { 0 };
    let directory_entries = header.capacity.get().div_ceil(covered.max(1));
    let mut sparse = Sparse::new(&Layout {
        sectors: header.capacity.get(),
        grain_sectors,
        table_entries: table_entries.into(),
        directory: (header.gd_offset.get(), directory_entries),
        entries: Entries::Sectors {
            zeroed_grains: flags & FLAG_ZEROED_GRAINS != 0,
            compressed: compressed.then_some(marker_len),
        },
        fields: ["grainSize", "gdOffset", "capacity"],
    })?;
    sparse.descriptor = (
        header.descriptor_offset.get().saturating_mul(SECTOR),
        header.descriptor_size.get().saturating_mul(SECTOR),
    );
    let redundant = header.rgd_offset.get();
    if flags & FLAG_REDUNDANT != 0 {
        let Some(offset) = table_offset(redundant, directory_entries * 4) else {
            let message = "Could not read l1 backup table from extent: Input/output error";
            return Err(Error::new(ErrorKind::Corrupt, "rgdOffset", message));
        };
        sparse.redundant = Some(offset);
    }
    sparse.read_only = version == VERSION_MAX && !compressed;
    Ok(sparse)
}

/// Bytes of the compressed grain at the file offset `offset`: what the marker before it says or, without markers, a
/// grain's length, which is what QEMU takes in that case.
pub(super) fn stream_len<S: Storage>(storage: &mut S, sparse: &Sparse, offset: u64) -> Result<u64, Error> {
    let file_len = storage.len();
    let length = if sparse.marker_len() == 0 {
        sparse.grain_len.min(file_len.saturating_sub(offset))
    } else {
        let mut size = U32::ZERO;
        storage.read_at(offset.saturating_sub(size_of::<U32>() as u64), size.as_mut_bytes())?;
        u64::from(size.get())
    };
    let fits = offset.checked_add(length).is_some_and(|end| end <= file_len);
    if length == 0 || length > 2 * sparse.grain_len || !fits {
        let message = format!("Compressed grain at {offset:#x} cannot be {length} bytes long");
        return Err(Error::new(ErrorKind::Corrupt, "grain marker", message));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_the_specification_puts_them() {
        use core::mem::offset_of;
        assert_eq!(size_of::<Fields>(), 79);
        assert_eq!(size_of::<Footer>(), 3 * 512);
        assert_eq!(offset_of!(Fields, capacity), 12);
        assert_eq!(offset_of!(Fields, num_gtes_per_gt), 44);
        assert_eq!(offset_of!(Fields, gd_offset), 56);
        assert_eq!(offset_of!(Fields, compress_algorithm), 77);
        assert_eq!(offset_of!(Footer, end_marker), 1024);
    }
}
