//! Bitmaps of a new image. Section "Bitmaps".

use alloc::collections::BTreeMap;
use core::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

use super::super::bitmaps::{BITMAP_LEN_MAX, DIRTY_TRACKING, Entry, FLAG_AUTO, GRANULARITY_BITS, NAME_MAX};
use super::super::extensions::BITMAPS_MAX;
use super::super::types::Version;
use super::Writer;
use super::bitmaps::set;
use super::pages::Kind;
use crate::write::{NewBitmap, Ranges};
use crate::{Error, ErrorKind, StorageMut};

impl<S: StorageMut> Writer<S> {
    /// Gives a new image a bitmap, as `qemu-img convert --bitmaps` does: clusters with bits in ascending order, then their table.
    ///
    /// `unsupported` are images of version 2, and images that were opened; `limit` and `invalid-format` what a bitmap cannot be.
    pub(super) fn put_bitmap(&mut self, bitmap: &NewBitmap<'_>, ranges: Ranges<'_>) -> Result<(), Error> {
        let version = self.head.as_ref().map(|head| head.version);
        if version != Some(Version::V3) {
            let message = "Cannot store dirty bitmaps in this image";
            return Err(Error::new(ErrorKind::Unsupported, "bitmap directory", message));
        }
        let (name_len, length) = self.check_bitmap(bitmap)?;
        let mut clusters = BTreeMap::new();
        let mut outcome = Ok(());
        ranges(&mut |range| {
            let (start, end) = (range.start, range.end.min(self.shape.size));
            if start < end && outcome.is_ok() {
                let first = start >> bitmap.granularity_bits;
                let bits = first..((end - 1) >> bitmap.granularity_bits) + 1;
                outcome = self.set_new_bits(&mut clusters, bits);
            }
        })?;
        outcome?;
        let cluster = self.shape.cluster();
        let entries = length.div_ceil(cluster);
        let table = self.space.allocate(&mut self.storage, (entries * 8).div_ceil(cluster))?;
        self.space.pages.begin(&mut self.storage, Kind::BitmapTable, table, entries * 8)?;
        for (index, offset) in clusters {
            self.space.pages.set_word(&mut self.storage, Kind::BitmapTable, table + index * 8, offset)?;
        }
        self.end = self.end.max(table + entries * 8);
        let entry = Entry {
            table_offset: U64::new(table),
            table_size: U32::new(u32::try_from(entries).unwrap_or(u32::MAX)),
            flags: U32::new(if bitmap.auto { FLAG_AUTO } else { 0 }),
            kind: DIRTY_TRACKING,
            granularity_bits: bitmap.granularity_bits,
            name_len: U16::new(name_len),
            extra_data_len: U32::ZERO,
        };
        self.directory.1.extend_from_slice(entry.as_bytes());
        self.directory.1.extend_from_slice(bitmap.name);
        let padded = self.directory.1.len().next_multiple_of(8);
        self.directory.1.resize(padded, 0);
        self.directory.0 += 1;
        Ok(())
    }

    /// Length of its name and of its bits, in bytes.
    fn check_bitmap(&self, bitmap: &NewBitmap<'_>) -> Result<(u16, u64), Error> {
        let invalid =
            |message: &'static str| Error::new(ErrorKind::InvalidFormat, "bitmap directory", message);
        let name_len = u16::try_from(bitmap.name.len()).ok().filter(|len| (1..=NAME_MAX).contains(len));
        let name_len = name_len.ok_or_else(|| invalid("Bitmap name is too long or empty"))?;
        if !GRANULARITY_BITS.contains(&bitmap.granularity_bits) {
            return Err(invalid("Granularity is not between 512 bytes and 2 GiB"));
        }
        let length = self.shape.size.div_ceil(1 << bitmap.granularity_bits).div_ceil(64) * 8;
        if length > BITMAP_LEN_MAX {
            let message = "Too much space will be occupied by the bitmap. Use larger granularity";
            return Err(Error::new(ErrorKind::Limit, "bitmap directory", message));
        }
        if self.directory.0 >= BITMAPS_MAX {
            let message = "Maximum number of persistent bitmaps is already reached";
            return Err(Error::new(ErrorKind::Limit, "bitmap directory", message));
        }
        Ok((name_len, length))
    }

    /// Sets bits in clusters that are made when they are first needed: file offsets by position in the table.
    fn set_new_bits(&mut self, clusters: &mut BTreeMap<u64, u64>, bits: Range<u64>) -> Result<(), Error> {
        let cluster_len = self.shape.cluster();
        let per_cluster = cluster_len * 8;
        let mut at = bits.start;
        while at < bits.end {
            let index = at / per_cluster;
            let offset = match clusters.get(&index) {
                Some(&offset) => offset,
                None => {
                    let offset = self.space.allocate(&mut self.storage, 1)?;
                    self.space.pages.begin(&mut self.storage, Kind::Bitmap, offset, cluster_len)?;
                    self.end = self.end.max(offset + cluster_len);
                    clusters.insert(index, offset);
                    offset
                }
            };
            let within = at % per_cluster;
            let stop = bits.end.min((index + 1) * per_cluster);
            let bytes = self.space.pages.get_mut(&mut self.storage, Kind::Bitmap, offset + within / 8)?;
            at += set(bytes, within % 8, stop - at);
        }
        Ok(())
    }

    /// Writes the directory of the bitmaps, if there are any.
    pub(super) fn write_directory(&mut self) -> Result<(), Error> {
        let (count, directory) = core::mem::take(&mut self.directory);
        if count == 0 {
            return Ok(());
        }
        let length = directory.len() as u64;
        let offset = self.space.allocate(&mut self.storage, length.div_ceil(self.shape.cluster()))?;
        self.storage.write_at(offset, &directory)?;
        self.end = self.end.max(offset + length);
        if let Some(head) = &mut self.head {
            head.bitmaps = Some((count, length, offset));
        }
        Ok(())
    }
}
