//! Existing images that are opened for writing.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::Qcow2;
use super::super::header::TABLE_ENTRY_LEN;
use super::super::l1::{L1, TablePlace};
use super::super::types::{Compression, Version};
use super::bitmaps::Tracked;
use super::encrypted::Cipher;
use super::pages::Pages;
use super::space::{Geometry, Space};
use super::{Shape, Writer};
use crate::access::{Access, Key};
use crate::check::{Release, Repair, Terms};
use crate::files::not_attached;
use crate::{Codec, Error, ErrorKind, FileIndex, Storage, StorageMut};

/// Bytes that the repair of an image that was not closed may take.
const REPAIR_MEMORY: usize = 16 << 20;
/// The release whose repair that is.
const RELEASE: Release = Release { major: 10, minor: 0 };

/// Opens an image for writing, with its data file if it has one, and a key if it is encrypted.
///
/// As `qemu-img` does: an image that is marked as corrupt is refused, one whose refcounts may be stale is repaired first, and
/// what of autoclear features is not known is cleared. Bitmaps that are kept up to date are, from here on; they are not of use if
/// writing is not [finished](crate::write::Writer::finish).
pub fn open<S: StorageMut>(mut storage: S, data_file: Option<S>, key: Key<'_>) -> Result<Writer<S>, Error> {
    let mut image = Qcow2::open(&mut storage, Access::Data(key), None)?;
    if image.header.is_corrupt() {
        let message = "Image is corrupt; cannot be opened read/write";
        return Err(Error::new(ErrorKind::Corrupt, "incompatible_features", message));
    }
    if image.header.is_dirty() {
        let terms = Terms { release: RELEASE, memory: REPAIR_MEMORY };
        let broken = Qcow2::open(&mut storage, Access::Check, None)?;
        broken.repair(&mut storage, Repair::All, &terms, &mut |_| {})?;
        image = Qcow2::open(&mut storage, Access::Data(key), None)?;
        if image.header.is_dirty() || image.header.is_corrupt() {
            let message = "Could not repair dirty image: Input/output error";
            return Err(Error::new(ErrorKind::Corrupt, "incompatible_features", message));
        }
    }
    if image.header.has_data_file() && data_file.is_none() {
        return Err(not_attached(FileIndex::DATA_FILE));
    }
    L1::new(&image.header, TablePlace::active(&image.header)).check(&mut storage, &image.header)?;
    let reserved = reserved(&mut storage, &image)?;
    if let Some((offset, features)) = image.header.autocleared() {
        storage.write_at(offset, &features.to_be_bytes())?;
        storage.flush()?;
    }
    let cipher = image.decryptor.take().map(|cipher| Cipher::new(image.header.crypt_method(), cipher));
    let writer = Writer::opened(storage, data_file, &image, reserved)?;
    Ok(Writer { cipher, ..writer })
}

impl<S: StorageMut> Writer<S> {
    fn opened(
        mut storage: S,
        data_file: Option<S>,
        image: &Qcow2,
        reserved: Vec<Range<u64>>,
    ) -> Result<Self, Error> {
        let header = &image.header;
        let shape = Shape::of(image);
        let bits = shape.cluster_bits;
        let geometry = Geometry {
            cluster_bits: bits,
            refcount_order: header.refcount_order(),
            compressed_end: 1 << shape.sectors_shift(),
        };
        let (table_len, table_offset) = header.refcount_table();
        let table = table_offset >> bits..(table_offset + table_len) >> bits;
        let (l1_entries, l1_offset) = header.l1_table();
        let l1_entries = u64::from(l1_entries);
        let mut pages = Pages::new(shape.cluster(), true);
        pages.l1_end = l1_offset + l1_entries * TABLE_ENTRY_LEN;
        let file_end = storage.len().div_ceil(shape.cluster());
        let mut space = Space::new(pages, geometry, table, file_end);
        space.reserve(&mut storage, reserved)?;
        let bitmaps = match &image.bitmap_directory {
            Some(directory) => Tracked::begin(&mut storage, directory.offset, directory.length)?,
            None => Vec::new(),
        };
        Ok(Self {
            storage,
            data_file,
            shape,
            space,
            l1_offset,
            l1_entries,
            table: None,
            end: 0,
            untouched: shape.size,
            head: None,
            bitmaps,
            directory: (0, Vec::new()),
            cipher: None,
        })
    }
}

impl Shape {
    fn of(image: &Qcow2) -> Self {
        let header = &image.header;
        let entry_len = header.l2_entry_len();
        let codec = match header.compression_type() {
            _ if header.has_data_file() || header.crypt_method().is_encrypted() => None,
            Compression::Zlib => Some(Codec::Deflate),
            Compression::Zstd => Some(Codec::Zstd),
        };
        let shape = Self {
            cluster_bits: header.cluster_bits().get(),
            entry_len,
            size: header.virtual_size(),
            slice: 0,
            has_zero_clusters: header.version() == Version::V3,
            has_backing: image.backing.is_some(),
            data_file: header.has_data_file(),
            data_file_raw: header.data_file_raw(),
            codec,
        };
        Self { slice: shape.slice_for(), ..shape }
    }
}

/// Clusters that have metadata in them which does not move: nothing else may be written there, whatever refcounts say.
fn reserved<S: Storage>(storage: &mut S, image: &Qcow2) -> Result<Vec<Range<u64>>, Error> {
    let bits = image.header.cluster_bits().get();
    let mut reserved = Vec::new();
    let mut add = |offset: u64, length: u64| {
        if length > 0 {
            let end = offset.saturating_add(length).min(i64::MAX as u64);
            reserved.push(offset >> bits..end.div_ceil(1 << bits));
        }
    };
    image.visit_areas(storage, &mut |area| {
        // These may move.
        if !matches!(area.name, "refcount table" | "L2 table") {
            add(area.offset, area.length);
        }
    })?;
    if let Some(directory) = &image.bitmap_directory {
        add(directory.offset, directory.length);
    }
    for bitmap in &image.bitmaps {
        add(bitmap.table.0, u64::from(bitmap.table.1) * TABLE_ENTRY_LEN);
    }
    if let Some(area) = image.luks_area {
        add(area.offset, area.length);
    }
    Ok(reserved)
}
