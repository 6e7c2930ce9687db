//! A stream-optimized image that is written in one pass: header, descriptor, then grains in ascending order with each grain
//! table behind its grains, the directory, a footer, and the end, each behind its marker. Section "Stream-Optimized
//! Compressed Sparse Extents".

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::SECTOR;
use super::create::Create;
use super::hosted::{GRAIN_SECTORS, New, TABLE_ENTRIES_MAX, directory_marker, mark_grain, table_marker};
use super::tables::{too_long, zero_grain};
use crate::write::{Place, blocks_of};
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// Bytes of a grain.
const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
/// Grains of a table.
const TABLE_GRAINS: u64 = TABLE_ENTRIES_MAX as u64;
/// Grain table entry of a grain of zeros.
const ZEROED: u32 = 1;

/// Such an image. Its directory is in memory: 4 bytes for 32 MiB of the disk.
#[derive(Debug)]
pub struct Stream<S> {
    storage: S,
    virtual_size: u64,
    header: New,
    /// Whether there is an image below, so that zeros are to be stored.
    has_parent: bool,
    /// Sectors of the tables behind which there is nothing more, from the first on.
    directory: Vec<U32>,
    /// The table of the grains that come now.
    table: Vec<U32>,
    /// Number of the grain behind the last one.
    next_grain: u64,
    /// File offset of what comes next, in sectors.
    next: u64,
    finished: bool,
}

impl<S: StorageMut> Stream<S> {
    /// The image in `storage`, which has its descriptor.
    pub(super) fn new(mut storage: S, size: u64, create: &Create<'_>) -> Result<Self, Error> {
        let header = New {
            capacity: size / SECTOR,
            compressed: true,
            zeroed_grains: create.zeroed_grains,
            redundant: None,
            directory: None,
            over_head: GRAIN_SECTORS,
        };
        storage.write_at(0, header.bytes().as_bytes())?;
        Ok(Self {
            storage,
            virtual_size: size,
            header,
            has_parent: create.parent.is_some(),
            directory: Vec::new(),
            table: vec![U32::ZERO; usize::try_from(TABLE_GRAINS).unwrap_or(0)],
            next_grain: 0,
            next: header.over_head,
            finished: false,
        })
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    pub(super) fn unit(&self) -> u64 {
        GRAIN
    }

    pub(super) fn storage(&mut self) -> &mut S {
        &mut self.storage
    }

    pub(super) fn allocate_compressed(&mut self, offset: u64, stream: &mut Vec<u8>) -> Result<Place, Error> {
        let grain = self.advance_to(offset, 1)?;
        mark_grain(offset / SECTOR, stream);
        let sector = u32::try_from(self.next).map_err(|_| too_long())?;
        self.set(grain, sector);
        let place = Place { file: FileIndex::OWN, offset: self.next * SECTOR, length: stream.len() as u64 };
        self.next += place.length / SECTOR;
        Ok(place)
    }

    /// Zeros come in order with the grains.
    pub(super) fn zero(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        let (first, count) = blocks_of(offset, length, GRAIN, self.virtual_size)?;
        if !self.has_parent {
            return if first < self.next_grain { Err(out_of_order()) } else { Ok(()) };
        }
        for grain in first..first + count {
            let offset = grain * GRAIN;
            if self.header.zeroed_grains {
                self.advance_to(offset, 1)?;
                self.set(grain, ZEROED);
                continue;
            }
            let mut stream = zero_grain(GRAIN.min(self.virtual_size - offset));
            let place = self.allocate_compressed(offset, &mut stream)?;
            self.storage.write_at(place.offset, &stream)?;
        }
        Ok(())
    }

    /// The number of the grain at `offset`, once the tables of those before it that are full were written.
    fn advance_to(&mut self, offset: u64, length: u64) -> Result<u64, Error> {
        let (grain, _) = blocks_of(offset, length, GRAIN, self.virtual_size)?;
        if grain < self.next_grain || self.finished {
            return Err(out_of_order());
        }
        if grain / TABLE_GRAINS != self.next_grain.saturating_sub(1) / TABLE_GRAINS {
            self.end_table()?;
        }
        self.next_grain = grain + 1;
        Ok(grain)
    }

    fn set(&mut self, grain: u64, sector: u32) {
        let position = usize::try_from(grain % TABLE_GRAINS).ok();
        if let Some(entry) = position.and_then(|position| self.table.get_mut(position)) {
            *entry = sector.into();
        }
    }

    /// Writes the table of the last grain, unless it has none.
    fn end_table(&mut self) -> Result<(), Error> {
        if self.table.iter().all(|entry| entry.get() == 0) {
            return Ok(());
        }
        let number = usize::try_from((self.next_grain - 1) / TABLE_GRAINS).map_err(|_| too_long())?;
        self.directory.resize(number, U32::ZERO);
        let table = core::mem::take(&mut self.table);
        let sector = self.append(&table_marker(TABLE_GRAINS * 4 / SECTOR), table.as_bytes())?;
        self.directory.push(sector);
        self.table = vec![U32::ZERO; table.len()];
        Ok(())
    }

    /// Writes a marker and, behind it, `bytes`, whole sectors; gives their first one.
    fn append(
        &mut self,
        marker: &(impl IntoBytes + zerocopy::Immutable),
        bytes: &[u8],
    ) -> Result<U32, Error> {
        let all = [marker.as_bytes(), bytes].concat();
        self.storage.write_at(self.next * SECTOR, &all)?;
        let sector = u32::try_from(self.next + 1).map_err(|_| too_long())?;
        self.next += all.len() as u64 / SECTOR;
        Ok(sector.into())
    }

    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        self.end_table()?;
        let tables = self.virtual_size.div_ceil(GRAIN).div_ceil(TABLE_GRAINS);
        let sectors = (tables * 4).div_ceil(SECTOR);
        let entries = usize::try_from(sectors * SECTOR / 4).map_err(|_| too_long())?;
        let mut directory = core::mem::take(&mut self.directory);
        directory.resize(entries, U32::ZERO);
        let sector = self.append(&directory_marker(sectors), directory.as_bytes())?;
        let footer = New { directory: Some(sector.get().into()), ..self.header };
        self.storage.write_at(self.next * SECTOR, footer.end_of_stream().as_bytes())?;
        self.finished = true;
        Ok(self.storage.flush()?)
    }
}

fn out_of_order() -> Error {
    let message = "Grains of a stream are written once, in ascending order";
    Error::new(ErrorKind::Unsupported, "grain marker", message)
}
