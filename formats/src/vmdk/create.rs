//! New images, as `qemu-img create` makes them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::hosted::{DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS, GRAIN_SECTORS, New, TABLE_ENTRIES_MAX};
use super::stream::Stream;
use super::tables::Tables;
use super::write::Target;
use super::{CreateType, SECTOR, descriptor};
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// The longest extent of a disk that is split, in bytes.
const SPLIT: u64 = 2 << 30;
/// Sectors of a grain table.
const TABLE_SECTORS: u64 = TABLE_ENTRIES_MAX as u64 * 4 / SECTOR;
/// Most grains of a sparse extent. `qemu-img` has their number wrap at 2^32.
const GRAINS_MAX: u64 = (1 << 32) - 1;

/// How the disk is laid out in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subformat {
    /// One sparse extent, with the descriptor inside.
    #[default]
    MonolithicSparse,
    /// One sparse extent, its grains compressed one by one.
    StreamOptimized(Layout),
    /// A descriptor, and an extent that is the disk.
    MonolithicFlat,
    /// A descriptor, and sparse extents of 2 GiB of the disk each.
    TwoGbMaxExtentSparse,
    /// A descriptor, and extents that are 2 GiB of the disk each.
    TwoGbMaxExtentFlat,
}

/// Where the tables of a stream-optimized image are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// In front of the grains, which come in any order: as `qemu-img` writes it.
    #[default]
    TablesFirst,
    /// Each grain table behind its grains, which come in ascending order, the directory and a footer at the end, each behind
    /// its marker. Section "Stream-Optimized Compressed Sparse Extents": what importers that read the file as a stream ask for.
    Stream,
}

impl Subformat {
    /// What the descriptor calls it.
    pub const fn create_type(self) -> CreateType {
        match self {
            Self::MonolithicSparse => CreateType::MonolithicSparse,
            Self::StreamOptimized(_) => CreateType::StreamOptimized,
            Self::MonolithicFlat => CreateType::MonolithicFlat,
            Self::TwoGbMaxExtentSparse => CreateType::TwoGbMaxExtentSparse,
            Self::TwoGbMaxExtentFlat => CreateType::TwoGbMaxExtentFlat,
        }
    }

    /// Whether the extents are parts of the disk as they stand.
    pub const fn is_flat(self) -> bool {
        matches!(self, Self::MonolithicFlat | Self::TwoGbMaxExtentFlat)
    }

    /// Whether the extents are files beside the image's own.
    pub const fn has_extents(self) -> bool {
        !matches!(self, Self::MonolithicSparse | Self::StreamOptimized(_))
    }

    const fn is_split(self) -> bool {
        matches!(self, Self::TwoGbMaxExtentSparse | Self::TwoGbMaxExtentFlat)
    }
}

/// The disk controller that the descriptor names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adapter {
    /// `ide`: 16 heads.
    #[default]
    Ide,
    /// `lsilogic`: 255 heads, as the others.
    LsiLogic,
    /// `buslogic`
    BusLogic,
    /// `legacyESX`
    LegacyEsx,
}

impl Adapter {
    /// The controller's name, as it stands in the descriptor.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::LsiLogic => "lsilogic",
            Self::BusLogic => "buslogic",
            Self::LegacyEsx => "legacyESX",
        }
    }

    pub(super) const fn heads(self) -> u64 {
        match self {
            Self::Ide => 16,
            Self::LsiLogic | Self::BusLogic | Self::LegacyEsx => 255,
        }
    }
}

/// The image below a new one.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Its file name, as the new image is to have it.
    pub name: &'a [u8],
    /// Its content id.
    pub cid: u32,
}

/// What a new VMDK image is to be. Names and versions stand in its descriptor as they are here.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// Size of the disk in bytes, rounded up to a sector of 512. In one sparse extent at most 256 TiB less a grain.
    pub size: u64,
    /// How the disk is laid out in files.
    pub subformat: Subformat,
    /// The disk controller.
    pub adapter: Adapter,
    /// Version of the virtual hardware: `4`, with `compat6` `6`.
    pub hardware_version: &'a str,
    /// Version of VMware's tools: `2147483647`; without one there is no line for it.
    pub tools_version: Option<&'a str>,
    /// Whether a grain may be known to be zeros. Flat extents have no grains.
    pub zeroed_grains: bool,
    /// The image below. Flat extents have none.
    pub parent: Option<Parent<'a>>,
    /// Content id.
    pub cid: u32,
    /// File name of the image, its folder perhaps in front of it.
    pub name: &'a [u8],
}

/// A part of the disk, in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// File name, without a folder: the file is in that of the image.
    pub name: Vec<u8>,
    /// Bytes of the disk that it holds: whole sectors.
    pub size: u64,
}

/// The files beside the image's own in which the disk is going to be, in order: none for one that is in the image's own.
pub fn extents(create: &Create<'_>) -> Result<Vec<Piece>, Error> {
    if create.subformat.has_extents() { pieces(create) } else { Ok(Vec::new()) }
}

/// The parts of the disk, in order.
fn pieces(create: &Create<'_>) -> Result<Vec<Piece>, Error> {
    let size = size(create)?;
    let name = create.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let dot = name.iter().rposition(|&byte| byte == b'.').unwrap_or(name.len());
    let (stem, ending) = name.split_at_checked(dot).unwrap_or((name, b""));
    let longest = if create.subformat.is_split() { SPLIT } else { size };
    let mut pieces = Vec::new();
    let mut start = 0;
    // An empty disk has an empty extent in the image's own file, and none beside it.
    while start < size || pieces.is_empty() && !create.subformat.has_extents() {
        let number = pieces.len() + 1;
        let middle = match create.subformat {
            Subformat::MonolithicSparse | Subformat::StreamOptimized(_) => String::new(),
            Subformat::MonolithicFlat => "-flat".into(),
            Subformat::TwoGbMaxExtentSparse => format!("-s{number:03}"),
            Subformat::TwoGbMaxExtentFlat => format!("-f{number:03}"),
        };
        let piece = longest.min(size - start);
        pieces.push(Piece { name: [stem, middle.as_bytes(), ending].concat(), size: piece });
        start += piece;
    }
    Ok(pieces)
}

/// Size of the disk in bytes, if there can be one.
fn size(create: &Create<'_>) -> Result<u64, Error> {
    let refused = |message| Err(Error::new(ErrorKind::Unsupported, "createType", message));
    if create.subformat.is_flat() && create.parent.is_some() {
        return refused("Flat image can't have backing file");
    }
    if create.subformat.is_flat() && create.zeroed_grains {
        return refused("Flat image can't enable zeroed grain");
    }
    let longest = match create.subformat {
        Subformat::MonolithicSparse | Subformat::StreamOptimized(_) => GRAINS_MAX * GRAIN_SECTORS * SECTOR,
        Subformat::MonolithicFlat => super::LENGTH_MAX,
        // More files than are read again.
        Subformat::TwoGbMaxExtentSparse | Subformat::TwoGbMaxExtentFlat => {
            super::lines::EXTENTS_MAX as u64 * SPLIT
        }
    };
    create.size.checked_next_multiple_of(SECTOR).filter(|&size| size <= longest).ok_or_else(|| {
        let message = "The image size is too large for file format 'vmdk'";
        Error::new(ErrorKind::Limit, "capacity", message)
    })
}

/// Makes `storage` a VMDK image of zeros, in `files` that are those of [`extents`], in that order. All of them are empty.
///
/// # Errors
///
/// A disk that is too long, what a flat image cannot have, more or fewer files than extents, a descriptor that is longer than
/// the place for it, and failures of the storage.
pub fn create<S: StorageMut>(
    mut storage: S,
    mut files: Vec<S>,
    create: &Create<'_>,
) -> Result<Target<S>, Error> {
    let size = size(create)?;
    let pieces = pieces(create)?;
    let text = descriptor::text(create, size, &pieces);
    let header = |bytes: u64, compressed: bool| new_header(bytes, compressed, create.zeroed_grains);
    let offset = match create.subformat {
        _ if create.subformat.has_extents() => {
            if files.len() != pieces.len() {
                let message = format!("{} files in place of {}", files.len(), pieces.len());
                return Err(Error::new(ErrorKind::ReferenceDenied, "extent description", message));
            }
            for ((position, file), piece) in files.iter_mut().enumerate().zip(&pieces) {
                if create.subformat.is_flat() {
                    file.set_length(piece.size)?;
                } else {
                    let index = FileIndex::of_reference(position).unwrap_or_default();
                    header(piece.size, false).write(file).map_err(|error| error.in_file(index))?;
                }
            }
            0
        }
        Subformat::StreamOptimized(Layout::Stream) => DESCRIPTOR_SECTOR * SECTOR,
        subformat => {
            header(size, subformat != Subformat::MonolithicSparse).write(&mut storage)?;
            DESCRIPTOR_SECTOR * SECTOR
        }
    };
    if offset != 0 && text.len() as u64 > DESCRIPTOR_SECTORS * SECTOR {
        let message = "Descriptor is longer than the place for it";
        return Err(Error::new(ErrorKind::Limit, "descriptorSize", message));
    }
    storage.write_at(offset, &text)?;
    if create.subformat == Subformat::StreamOptimized(Layout::Stream) {
        return Ok(Target::Stream(Stream::new(storage, size, create)?));
    }
    Tables::of_new(storage, files, create.parent.is_some(), create.cid, size)
        .map(|tables| Target::Tables(Box::new(tables)))
}

/// A sparse file with all of its tables in front of its grains, as yet empty.
struct NewSparse {
    header: New,
    tables: u64,
    directory_sectors: u64,
}

fn new_header(size: u64, compressed: bool, zeroed_grains: bool) -> NewSparse {
    let capacity = size.div_ceil(SECTOR);
    let tables = capacity.div_ceil(GRAIN_SECTORS).div_ceil(TABLE_ENTRIES_MAX.into());
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let redundant = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS;
    let directory = redundant + directory_sectors + tables * TABLE_SECTORS;
    let over_head = (directory + directory_sectors + tables * TABLE_SECTORS).next_multiple_of(GRAIN_SECTORS);
    let (redundant, directory) = (Some(redundant), Some(directory));
    let header = New { capacity, compressed, zeroed_grains, redundant, directory, over_head };
    NewSparse { header, tables, directory_sectors }
}

impl NewSparse {
    fn write<S: StorageMut>(&self, storage: &mut S) -> Result<(), Error> {
        storage.write_at(0, self.header.bytes().as_bytes())?;
        for directory in [self.header.redundant, self.header.directory].into_iter().flatten() {
            let first = directory + self.directory_sectors;
            let mut number = 0;
            while number < self.tables {
                let end = self.tables.min(number + CHUNK);
                let sectors = (number..end).map(|number| first + number * TABLE_SECTORS);
                let entries: Option<Vec<[u8; 4]>> =
                    sectors.map(|sector| u32::try_from(sector).ok().map(u32::to_le_bytes)).collect();
                let entries = entries.ok_or_else(|| {
                    Error::new(ErrorKind::Limit, "gdOffset", "Grain tables do not fit into the file")
                })?;
                storage.write_at(directory * SECTOR + number * 4, entries.as_flattened())?;
                number = end;
            }
        }
        Ok(storage.set_length(self.header.over_head * SECTOR)?)
    }
}

/// Entries of a directory that are written at once.
const CHUNK: u64 = 1 << 18;
