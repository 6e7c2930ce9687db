//! Images whose tables are in front of the grains, and flat ones.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::little_endian::U32;

use super::hosted::mark_grain;
use super::sparse::{Entries, Sparse};
use super::text::{EMBEDDED_LEN, EMBEDDED_OFFSET};
use super::{Content, Part, SECTOR, Vmdk, descriptor};
use crate::table_mut::TableMut;
use crate::write::{Blocks, Place, blocks_of};
use crate::{Codec, Error, ErrorKind, FileIndex, StorageMut};

/// Grain table entry of a grain of zeros.
const ZEROED: u32 = 1;

/// Such an image.
#[derive(Debug)]
pub struct Tables<S> {
    own: S,
    attached: Vec<S>,
    virtual_size: u64,
    unit: u64,
    parts: Vec<Part>,
    /// File offset in bytes of the next grain in each part, in whole grains; in compressed ones in whole sectors.
    next: Vec<u64>,
    /// The tables of one part, and which it is.
    cursor: Option<(usize, Cursor)>,
    compressed: bool,
    /// Whether there is an image below, so that zeros are to be stored.
    has_parent: bool,
    /// Content id of what is written.
    cid: u32,
    /// Whether something was written.
    changed: bool,
    /// From here on the disk is zeros.
    written: u64,
}

/// The directories of a sparse file, and the table of a part of its grains.
#[derive(Debug)]
struct Cursor {
    directory: TableMut<U32>,
    redundant: Option<TableMut<U32>>,
    table: TableMut<U32>,
    /// Number of the table.
    number: Option<u64>,
}

/// The grains of a part, and the file that they are in.
struct Grains<'a, S> {
    storage: &'a mut S,
    sparse: &'a Sparse,
    cursor: &'a mut Cursor,
    next: &'a mut u64,
}

/// What becomes of an attempt to store a grain as it is among others that are compressed.
pub(super) fn compressed_only() -> Error {
    Error::new(ErrorKind::Unsupported, "compressAlgorithm", "Grains of this image are compressed")
}

/// What becomes of a grain that has no place below the highest one.
pub(super) fn too_long() -> Error {
    Error::new(ErrorKind::Limit, "grain table", "File is too long for another grain")
}

/// `length` zeros, compressed.
pub(super) fn zero_grain(length: u64) -> Vec<u8> {
    let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
    miniz_oxide::deflate::compress_to_vec_zlib(&zeros, 6)
}

impl<S: StorageMut> Tables<S> {
    /// A new image, with all of its files.
    pub(super) fn of_new(
        own: S,
        attached: Vec<S>,
        has_parent: bool,
        cid: u32,
        size: u64,
    ) -> Result<Self, Error> {
        if size > 0 {
            return Ok(Self { has_parent, written: 0, ..Self::with(own, attached, cid, true)? });
        }
        // Such an image is made and not read again.
        Ok(Self {
            own,
            attached,
            virtual_size: 0,
            unit: SECTOR,
            parts: Vec::new(),
            next: Vec::new(),
            cursor: None,
            compressed: false,
            has_parent,
            cid,
            changed: false,
            written: 0,
        })
    }

    pub(super) fn open(own: S, attached: Vec<S>, cid: u32) -> Result<Self, Error> {
        Self::with(own, attached, cid, false)
    }

    fn with(mut own: S, mut attached: Vec<S>, cid: u32, compressed: bool) -> Result<Self, Error> {
        let mut image = Vmdk::open(&mut own)?;
        if attached.len() != image.references().len() {
            let message = alloc::format!("{} files in place of {}", attached.len(), image.references().len());
            return Err(Error::new(ErrorKind::ReferenceDenied, "extent description", message));
        }
        image.attach(&mut attached)?;
        let mut target = Self {
            virtual_size: image.virtual_size(),
            written: image.virtual_size(),
            has_parent: image.backing.is_some(),
            own,
            attached,
            unit: SECTOR,
            next: Vec::new(),
            parts: image.parts,
            cursor: None,
            compressed: false,
            cid,
            changed: false,
        };
        for position in 0..target.parts.len() {
            target.admit(position, compressed)?;
        }
        Ok(target)
    }

    /// Finds out whether a part can be written to, and where the next grain of it would be.
    fn admit(&mut self, position: usize, compressed: bool) -> Result<(), Error> {
        let Some(part) = self.parts.get(position) else { return Ok(()) };
        let refused =
            |field, message| Err(Error::new(ErrorKind::Unsupported, field, message).in_file(part.file));
        let (file, mut next) = (part.file, 0);
        if let Content::Sparse(sparse) = &part.content {
            if sparse.entries.compressed() && !compressed {
                return refused("compressAlgorithm", "Image with compressed grains is not written to");
            }
            if sparse.read_only || !matches!(sparse.entries, Entries::Sectors { .. }) {
                return refused("version", "VMDK version 3 must be read only");
            }
            if !sparse.grain_len.is_power_of_two() || !part.start.is_multiple_of(sparse.grain_len) {
                return refused(
                    "grainSize",
                    "Grains are no power of two, or not where those of the disk are",
                );
            }
            self.unit = self.unit.max(sparse.grain_len);
            self.compressed |= sparse.entries.compressed();
            next = sparse.grain_len;
        } else if matches!(part.content, Content::Zero | Content::Unopened) {
            return refused("extent description", "Extent of zeros is not written to");
        }
        if next > 0 {
            let length = self.storage(file)?.len();
            next = length.checked_next_multiple_of(next).ok_or_else(too_long)?;
        }
        self.next.push(next);
        Ok(())
    }

    fn storage(&mut self, file: FileIndex) -> Result<&mut S, Error> {
        self.file(file).ok_or_else(|| crate::files::not_attached(file))
    }

    /// Position of the part that holds the byte at `offset` of the disk.
    fn part_at(&self, offset: u64) -> usize {
        self.parts.partition_point(|part| part.end <= offset)
    }

    /// The grains of the part at `position`, if it has any.
    fn grains(&mut self, position: usize) -> Result<Option<Grains<'_, S>>, Error> {
        if self.cursor.as_ref().is_some_and(|(at, _)| *at != position) {
            self.write_back()?;
        }
        let Self { own, attached, parts, next, cursor, .. } = self;
        let (Some(part), Some(next)) = (parts.get(position), next.get_mut(position)) else { return Ok(None) };
        let Content::Sparse(sparse) = &part.content else { return Ok(None) };
        let storage = match part.file.reference() {
            None => own,
            Some(position) => {
                attached.get_mut(position).ok_or_else(|| crate::files::not_attached(part.file))?
            }
        };
        let (_, cursor) = cursor.get_or_insert_with(|| (position, Cursor::new(sparse)));
        Ok(Some(Grains { storage, sparse, cursor, next }))
    }

    /// Writes the tables that are in memory.
    fn write_back(&mut self) -> Result<(), Error> {
        let Some((position, mut cursor)) = self.cursor.take() else { return Ok(()) };
        let file = self.parts.get(position).map_or(FileIndex::OWN, |part| part.file);
        Ok(cursor.table.write_back(self.storage(file)?)?)
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    pub(super) fn unit(&self) -> u64 {
        self.unit
    }

    pub(super) fn codec(&self) -> Option<Codec> {
        self.compressed.then_some(Codec::Zlib)
    }

    pub(super) fn file(&mut self, file: FileIndex) -> Option<&mut S> {
        match file.reference() {
            None => Some(&mut self.own),
            Some(position) => self.attached.get_mut(position),
        }
    }

    pub(super) fn allocate(&mut self, offset: u64, length: u64) -> Result<Place, Error> {
        blocks_of(offset, length, self.unit, self.virtual_size)?;
        if self.compressed {
            return Err(compressed_only());
        }
        self.changed = true;
        let position = self.part_at(offset);
        let Some(&Part { start, end, file, ref content, .. }) = self.parts.get(position) else {
            return Err(too_long());
        };
        let (within, length) = (offset - start, length.min(end - offset));
        if let Content::Flat(first) = content {
            let offset = first.checked_add(within).ok_or_else(too_long)?;
            self.written = self.written.max(start + within + length);
            return Ok(Place { file, offset, length });
        }
        let Some(mut grains) = self.grains(position)? else { return Err(too_long()) };
        let grain_len = grains.stride();
        let run = grains.take_run(within / grain_len, length.div_ceil(grain_len))?;
        let length = length.min(run.blocks * grain_len);
        self.written = self.written.max(offset + length);
        Ok(Place { file, offset: run.offset, length })
    }

    pub(super) fn allocate_compressed(
        &mut self,
        offset: u64,
        stream: &mut Vec<u8>,
    ) -> Result<Option<Place>, Error> {
        blocks_of(offset, 1, self.unit, self.virtual_size)?;
        if !self.compressed {
            return Ok(None);
        }
        self.changed = true;
        let rest = self.virtual_size - offset;
        let Some(mut grains) = self.grains(0)? else { return Err(compressed_only()) };
        let (grain, whole) = (offset / grains.stride(), rest >= grains.stride());
        if grains.place(grain)?.is_some() {
            let message = "Compressed grain cannot be written a second time";
            return Err(Error::new(ErrorKind::Unsupported, "grain marker", message));
        }
        mark_grain(offset / SECTOR, stream);
        let place = grains.take(grain)?;
        let length = stream.len() as u64;
        // What a grain takes that is not whole is cleared by QEMU before it is written.
        let end = if whole { place + length } else { place + length.max(grains.stride()) };
        *grains.next = end;
        self.written = self.written.max(offset + 1);
        Ok(Some(Place { file: FileIndex::OWN, offset: place, length }))
    }

    pub(super) fn zero(&mut self, mut offset: u64, length: u64) -> Result<(), Error> {
        blocks_of(offset, length, self.unit, self.virtual_size)?;
        let end = if self.has_parent { offset + length } else { (offset + length).min(self.written) };
        while offset < end {
            let position = self.part_at(offset);
            let Some(part) = self.parts.get(position) else { return Err(too_long()) };
            let (start, part_end) = (part.start, part.end.min(end));
            self.zero_in(position, offset - start, part_end - offset)?;
            offset = part_end;
        }
        Ok(())
    }

    /// The same within the part at `position`, at the offset `within` in it.
    fn zero_in(&mut self, position: usize, within: u64, length: u64) -> Result<(), Error> {
        let Some(part) = self.parts.get(position) else { return Ok(()) };
        if let Content::Flat(first) = part.content {
            let (file, place) = (part.file, first.checked_add(within).ok_or_else(too_long)?);
            self.changed = true;
            return Ok(self.storage(file)?.write_zeros(place, length)?);
        }
        let (has_parent, start, compressed) = (self.has_parent, part.start, self.compressed);
        let Some(mut grains) = self.grains(position)? else { return Ok(()) };
        let (grain_len, zeroed) = (grains.stride(), grains.zeroed());
        let mut changed = false;
        for grain in within / grain_len..(within + length).div_ceil(grain_len) {
            let length = grain_len.min(within + length - grain * grain_len);
            let entry = grains.entry(grain)?;
            let is_zero = zeroed && entry == ZEROED;
            match grains.place(grain)? {
                None if is_zero || !has_parent => continue,
                Some(_) if compressed => return Err(compressed_only()),
                _ if zeroed => grains.set(grain, ZEROED)?,
                Some(place) => grains.clear(place, length)?,
                None if compressed => {
                    let mut stream = zero_grain(length);
                    let place = self.allocate_compressed(start + grain * grain_len, &mut stream)?;
                    let place = place.map_or(0, |place| place.offset);
                    self.own.write_at(place, &stream)?;
                    let Some(again) = self.grains(position)? else { return Ok(()) };
                    grains = again;
                }
                None => {
                    let place = grains.take(grain)?;
                    grains.clear(place, length)?;
                }
            }
            changed = true;
        }
        self.changed |= changed;
        Ok(())
    }

    /// Files end behind their last grain, all of it, even if the disk ends inside of it.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if self.changed {
            for position in 0..self.parts.len() {
                let end = self.next.get(position).copied().unwrap_or(0);
                let file = self.parts.get(position).map_or(FileIndex::OWN, |part| part.file);
                let storage = self.storage(file)?;
                if storage.len() < end {
                    storage.set_length(end)?;
                }
                storage.flush()?;
            }
            self.write_back()?;
            let embedded = self.parts.first().is_some_and(|part| part.file == FileIndex::OWN);
            let (offset, length) =
                if embedded { (EMBEDDED_OFFSET, Some(EMBEDDED_LEN as u64)) } else { (0, None) };
            descriptor::set_cid(&mut self.own, offset, length, self.cid)?;
            self.changed = false;
        }
        for file in self.attached.iter_mut().chain([&mut self.own]) {
            file.flush()?;
        }
        Ok(())
    }
}

impl Cursor {
    fn new(sparse: &Sparse) -> Self {
        let directory = |offset| TableMut::new(offset, sparse.directory_entries);
        Self {
            directory: directory(sparse.directory),
            redundant: sparse.redundant.map(directory),
            table: TableMut::new(0, sparse.table_entries),
            number: None,
        }
    }
}

impl<S: StorageMut> Grains<'_, S> {
    /// Whether a grain can be known to be zeros.
    fn zeroed(&self) -> bool {
        matches!(self.sparse.entries, Entries::Sectors { zeroed_grains: true, .. })
    }

    /// Goes to the table of a grain, and gives its position there.
    fn seek(&mut self, grain: u64) -> Result<u64, Error> {
        let Self { storage, sparse, cursor, .. } = self;
        let (number, position) = (grain / sparse.table_entries, grain % sparse.table_entries);
        if cursor.number == Some(number) {
            return Ok(position);
        }
        let file_len = storage.len();
        let offset = |entry: Option<U32>| {
            let offset = entry.map_or(0, |entry| u64::from(entry.get()) * SECTOR);
            (offset != 0 && offset + sparse.table_len() <= file_len).then_some(offset)
        };
        let Some(table) = offset(cursor.directory.get(*storage, number)?) else {
            let message = alloc::format!("Grain table {number} is not in the file");
            return Err(Error::new(ErrorKind::Corrupt, "grain directory", message));
        };
        let copy = match &mut cursor.redundant {
            Some(redundant) => offset(redundant.get(*storage, number)?),
            None => None,
        };
        cursor.table.move_to(*storage, table, copy)?;
        cursor.number = Some(number);
        Ok(position)
    }

    fn entry(&mut self, grain: u64) -> Result<u32, Error> {
        let position = self.seek(grain)?;
        Ok(self.cursor.table.get(self.storage, position)?.map_or(0, U32::get))
    }

    fn set(&mut self, grain: u64, entry: u32) -> Result<(), Error> {
        let position = self.seek(grain)?;
        Ok(self.cursor.table.set(self.storage, position, entry.into())?)
    }
}

impl<S: StorageMut> Blocks for Grains<'_, S> {
    fn stride(&self) -> u64 {
        self.sparse.grain_len
    }

    fn place(&mut self, grain: u64) -> Result<Option<u64>, Error> {
        let entry = self.entry(grain)?;
        if entry == 0 || entry == ZEROED && self.zeroed() {
            return Ok(None);
        }
        let place = u64::from(entry) * SECTOR;
        if place >= (*self.next).max(self.storage.len()) {
            let message = alloc::format!("Grain {grain} at {place:#x} is not in the file");
            return Err(Error::new(ErrorKind::Corrupt, "grain table", message));
        }
        Ok(Some(place))
    }

    fn next_free(&self) -> Option<u64> {
        Some(*self.next)
    }

    fn take(&mut self, grain: u64) -> Result<u64, Error> {
        let place = *self.next;
        let sector = u32::try_from(place / SECTOR).map_err(|_| too_long())?;
        self.set(grain, sector)?;
        *self.next = place + self.stride();
        Ok(place)
    }

    fn clear(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        Ok(self.storage.write_zeros(offset, length)?)
    }
}
