//! A sparse file, of whatever kind: a directory of tables of grains, and how their entries are to be read.

use zerocopy::little_endian::U32;

use super::{LENGTH_MAX, SECTOR};
use crate::{Error, ErrorKind};

/// Most sectors of a grain: QEMU's limit of 1 GiB.
const GRAIN_SECTORS_MAX: u64 = 0x20_0000;
/// Most entries of a directory: QEMU's limit, 64 TiB of the smallest grains.
const DIRECTORY_MAX: u64 = 32 << 20;
/// Grain table entry of a hosted sparse file that stands for zeros, if the header says so.
const GTE_ZEROED: u64 = 1;
/// Top half of a directory entry of a SESPARSE file that has a table.
const SE_TABLE: u64 = 0x1000_0000;

/// Kinds of sparse files, by what their entries mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entries {
    /// 4 bytes: the sector of a table or a grain.
    Sectors {
        /// Whether a grain at sector 1 is one of zeros.
        zeroed_grains: bool,
        /// Bytes in front of a compressed grain's data, if grains are compressed.
        compressed: Option<u64>,
    },
    /// 8 bytes, numbers of tables and grains from the sectors given.
    SeSparse { tables: u64, grains: u64 },
}

/// What a grain table entry says. Offsets are those of the whole grain in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    Unallocated,
    Zero,
    Data(u64),
    Compressed(u64),
    /// No grain could be there.
    Invalid,
}

impl Grain {
    /// What the entry `distance` bytes of the disk further on would say if it went on with this one's run.
    pub(super) fn advanced(self, distance: u64) -> Option<Self> {
        match self {
            Self::Unallocated | Self::Zero => Some(self),
            Self::Data(offset) => Some(Self::Data(offset.checked_add(distance)?)),
            Self::Compressed(_) | Self::Invalid => None,
        }
    }
}

impl Entries {
    /// Words of 4 bytes in an entry.
    pub(super) fn words(self) -> usize {
        match self {
            Self::Sectors { .. } => 1,
            Self::SeSparse { .. } => 2,
        }
    }

    /// Length of an entry in bytes.
    pub(super) fn length(self) -> u64 {
        4 * self.words() as u64
    }

    pub(super) fn compressed(self) -> bool {
        matches!(self, Self::Sectors { compressed: Some(_), .. })
    }

    /// File offset of the table of `table_len` bytes that a directory entry points to: 0 if it points to none, and
    /// nothing if it is no such entry.
    pub(super) fn table(self, entry: &[U32], table_len: u64) -> Option<u64> {
        let value = value(entry);
        match self {
            Self::Sectors { .. } => Some(value * SECTOR),
            Self::SeSparse { .. } if value == 0 => Some(0),
            Self::SeSparse { tables, .. } => {
                let number = value & u64::from(u32::MAX);
                let sector = tables.checked_add(number.checked_mul(table_len)? / SECTOR)?;
                let found = value >> 32 == SE_TABLE && sector <= u64::from(u32::MAX);
                found.then(|| sector * SECTOR)
            }
        }
    }

    /// What a grain table entry says.
    #[inline]
    pub(super) fn grain(self, entry: &[U32], grain_len: u64) -> Grain {
        let value = value(entry);
        match self {
            _ if value == 0 => Grain::Unallocated,
            Self::Sectors { zeroed_grains: true, .. } if value == GTE_ZEROED => Grain::Zero,
            Self::Sectors { compressed: Some(_), .. } => Grain::Compressed(value * SECTOR),
            Self::Sectors { compressed: None, .. } => Grain::Data(value * SECTOR),
            Self::SeSparse { grains, .. } => match value >> 60 {
                1 | 2 => Grain::Zero,
                3 => se_grain(value, grains, grain_len).map_or(Grain::Invalid, Grain::Data),
                _ => Grain::Invalid,
            },
        }
    }
}

/// The number of an allocated grain of a SESPARSE file is rotated: its low 12 bits stand above the other 48.
fn se_grain(value: u64, grains: u64, grain_len: u64) -> Option<u64> {
    let number = (value >> 48 & 0xfff) | (value & 0xffff_ffff_ffff) << 12;
    let first = grains.checked_mul(SECTOR)?;
    first.checked_add(number.checked_mul(grain_len)?).filter(|&offset| offset <= LENGTH_MAX)
}

fn value(entry: &[U32]) -> u64 {
    let word = |index: usize| entry.get(index).map_or(0, |word| u64::from(word.get()));
    word(0) | word(1) << 32
}

/// A sparse file's header, its numbers found to mean something. That the directory lies inside the file is not known
/// from the header alone.
#[derive(Clone, Debug)]
pub(super) struct Sparse {
    /// Sectors of the disk in this file, as yet unchecked.
    pub(super) sectors: u64,
    /// Length of a grain in bytes: 512 to 1 GiB, a multiple of 512 but not always a power of two.
    pub(super) grain_len: u64,
    /// Entries of a grain table, 1 to 4096.
    pub(super) table_entries: u64,
    /// File offset of the directory in bytes, a multiple of 512.
    pub(super) directory: u64,
    /// Entries of the directory.
    pub(super) directory_entries: u64,
    pub(super) entries: Entries,
    /// File offset and length in bytes of the descriptor, by the header; any numbers.
    pub(super) descriptor: (u64, u64),
    /// File offset in bytes of the redundant directory, if there is one.
    pub(super) redundant: Option<u64>,
    /// Whether QEMU does not write to such a file.
    pub(super) read_only: bool,
    /// Whether the directory was found fit to be followed.
    pub(super) checked: bool,
}

/// A sparse file as its header describes it.
pub(super) struct Layout {
    pub(super) sectors: u64,
    pub(super) grain_sectors: u64,
    pub(super) table_entries: u64,
    /// First sector and number of entries of the directory.
    pub(super) directory: (u64, u64),
    pub(super) entries: Entries,
    /// Names of the fields to blame: grain size, directory's offset, directory's size.
    pub(super) fields: [&'static str; 3],
}

impl Sparse {
    pub(super) fn new(layout: &Layout) -> Result<Self, Error> {
        let [grain_field, offset_field, size_field] = layout.fields;
        if layout.grain_sectors == 0 || layout.grain_sectors > GRAIN_SECTORS_MAX {
            let message = "Invalid granularity, image may be corrupt";
            return Err(Error::new(ErrorKind::InvalidFormat, grain_field, message));
        }
        let (directory, directory_entries) = layout.directory;
        if directory_entries > DIRECTORY_MAX {
            return Err(Error::new(ErrorKind::Limit, size_field, "L1 size too big"));
        }
        let length = directory_entries * layout.entries.length();
        let directory = table_offset(directory, length).ok_or_else(|| {
            let message = "Could not read l1 table from extent: Input/output error";
            Error::new(ErrorKind::Corrupt, offset_field, message)
        })?;
        Ok(Self {
            sectors: layout.sectors,
            grain_len: layout.grain_sectors * SECTOR,
            table_entries: layout.table_entries,
            directory,
            directory_entries,
            entries: layout.entries,
            descriptor: (0, 0),
            redundant: None,
            read_only: matches!(layout.entries, Entries::SeSparse { .. }),
            checked: false,
        })
    }

    /// Length of a grain table in bytes.
    pub(super) fn table_len(&self) -> u64 {
        self.table_entries * self.entries.length()
    }

    /// Bytes of the disk that one directory entry covers, at most 2^42.
    pub(super) fn coverage(&self) -> u64 {
        self.table_entries * self.grain_len
    }

    /// Most tables that can lie in a file: two directory entries never share one, and each starts at a sector.
    pub(super) fn tables_max(&self, file_len: u64) -> u64 {
        file_len / self.table_len().next_multiple_of(SECTOR).max(1) + 1
    }

    /// Bytes in front of the data of a compressed grain.
    pub(super) fn marker_len(&self) -> u64 {
        match self.entries {
            Entries::Sectors { compressed: Some(marker), .. } => marker,
            _ => 0,
        }
    }
}

/// File offset in bytes of a table of `length` bytes at `sector`, if a file can be that long.
pub(super) fn table_offset(sector: u64, length: u64) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR)?;
    offset.checked_add(length).filter(|&end| end <= LENGTH_MAX).map(|_| offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(value: u64) -> [U32; 2] {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        [U32::from_bytes([a, b, c, d]), U32::from_bytes([e, f, g, h])]
    }

    #[test]
    fn entries_of_hosted_files() {
        let entries = |zeroed_grains, compressed| Entries::Sectors { zeroed_grains, compressed };
        let grain = |entries: Entries, value| entries.grain(&words(value)[..1], 65536);
        assert_eq!(grain(entries(false, None), 0), Grain::Unallocated);
        assert_eq!(grain(entries(false, None), 1), Grain::Data(512));
        assert_eq!(grain(entries(true, None), 1), Grain::Zero);
        assert_eq!(grain(entries(true, Some(12)), 1), Grain::Zero);
        assert_eq!(grain(entries(true, Some(12)), 2), Grain::Compressed(1024));
        assert_eq!(grain(entries(true, None), 0xffff_ffff), Grain::Data(0xffff_ffff * 512));
        assert_eq!(entries(true, None).table(&words(7)[..1], 2048), Some(7 * 512));
    }

    #[test]
    fn entries_of_se_sparse_files() {
        let entries = Entries::SeSparse { tables: 10, grains: 100 };
        let grain = |value| entries.grain(&words(value), 4096);
        assert_eq!(grain(0), Grain::Unallocated);
        assert_eq!(grain(1), Grain::Invalid);
        assert_eq!(grain(1 << 60), Grain::Zero);
        assert_eq!(grain(2 << 60 | 5), Grain::Zero);
        assert_eq!(grain(3 << 60), Grain::Data(51200));
        assert_eq!(grain(3 << 60 | 5 << 48 | 1), Grain::Data(51200 + 4096 * (4096 + 5)));
        assert_eq!(grain(3 << 60 | 0xffff_ffff_ffff), Grain::Invalid);
        assert_eq!(grain(4 << 60), Grain::Invalid);
        let table = |value| entries.table(&words(value), 32768);
        assert_eq!(table(0), Some(0));
        assert_eq!(table(1), None);
        assert_eq!(table(SE_TABLE << 32), Some(5120));
        assert_eq!(table(SE_TABLE << 32 | 2), Some(5120 + 65536));
        assert_eq!(table(SE_TABLE << 32 | 0xffff_ffff), None);
    }
}
