//! Tables of an image that is written to, a bounded part of them in memory.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::FromBytes;
use zerocopy::big_endian::U64;

use crate::{Error, StorageError, StorageMut};

/// Bytes of tables in memory.
const MEMORY: usize = 4 << 20;
/// Longest page in bytes.
const PAGE_MAX: u64 = 64 << 10;
/// Most bytes that are written at once.
const WRITE_MAX: usize = 1 << 20;

/// What is in a page. What comes first is what the next may refer to, so that it is on the disk first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    RefcountBlock,
    RefcountTable,
    L2,
    L1,
    Bitmap,
    BitmapTable,
}

/// All of them, what is referred to first.
const ORDER: [Kind; 6] =
    [Kind::RefcountBlock, Kind::RefcountTable, Kind::L2, Kind::L1, Kind::Bitmap, Kind::BitmapTable];

/// Part of a table.
#[derive(Debug)]
struct Page {
    kind: Kind,
    bytes: Box<[u8]>,
    dirty: bool,
    /// When it was asked for last.
    used: u64,
}

/// Pages of tables: read when they are asked for, and written together, many at once, when there are too many of them. A
/// page is a cluster or a part of one.
#[derive(Debug)]
pub(super) struct Pages {
    /// Bytes of a page: a power of two.
    length: u64,
    /// By file offset.
    pages: BTreeMap<u64, Page>,
    clock: u64,
    /// Whether the file is to be good whenever the writing is interrupted.
    pub(super) durable: bool,
    /// File offset where the L1 table ends, behind which none of its pages is written.
    pub(super) l1_end: u64,
}

impl Pages {
    /// No pages yet, of an image with clusters of `cluster` bytes.
    pub(super) fn new(cluster: u64, durable: bool) -> Self {
        Self { length: cluster.min(PAGE_MAX), pages: BTreeMap::new(), clock: 0, durable, l1_end: u64::MAX }
    }

    fn most(&self) -> usize {
        (MEMORY / usize::try_from(self.length).unwrap_or(MEMORY)).max(8)
    }

    /// The bytes from the file offset `offset` up to the end of their page.
    pub(super) fn get<S: StorageMut>(
        &mut self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
    ) -> Result<&[u8], Error> {
        let (page, skip) = self.page(storage, kind, offset)?;
        Ok(page.bytes.get(skip..).unwrap_or(&[]))
    }

    /// The same bytes, to be changed.
    pub(super) fn get_mut<S: StorageMut>(
        &mut self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
    ) -> Result<&mut [u8], Error> {
        let (page, skip) = self.page(storage, kind, offset)?;
        page.dirty = true;
        Ok(page.bytes.get_mut(skip..).unwrap_or(&mut []))
    }

    /// The number of 8 bytes at the file offset `offset`.
    pub(super) fn word<S: StorageMut>(
        &mut self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
    ) -> Result<u64, Error> {
        let bytes = self.get(storage, kind, offset)?;
        Ok(U64::read_from_prefix(bytes).map_or(0, |(word, _)| word.get()))
    }

    /// Changes the number of 8 bytes at the file offset `offset`.
    pub(super) fn set_word<S: StorageMut>(
        &mut self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
        value: u64,
    ) -> Result<(), Error> {
        if let Some(bytes) = self.get_mut(storage, kind, offset)?.first_chunk_mut() {
            *bytes = value.to_be_bytes();
        }
        Ok(())
    }

    /// Begins `length` bytes, whole pages but for the last, at the file offset `offset` as zeros, whatever is in the file.
    pub(super) fn begin<S: StorageMut>(
        &mut self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
        length: u64,
    ) -> Result<(), Error> {
        let mut at = offset;
        while at < offset.saturating_add(length) {
            self.make_room(storage)?;
            let used = self.tick();
            let bytes = vec![0; usize::try_from(self.length).unwrap_or(0)].into_boxed_slice();
            self.pages.insert(at, Page { kind, bytes, dirty: true, used });
            at += self.length;
        }
        Ok(())
    }

    /// Forgets what there is of `length` bytes at the file offset `offset`, which are no table any more.
    pub(super) fn forget(&mut self, offset: u64, length: u64) {
        let range = offset..offset.saturating_add(length);
        while let Some((&page, _)) = self.pages.range(range.clone()).next() {
            self.pages.remove(&page);
        }
    }

    /// Writes all that was changed, what is referred to before what refers to it.
    pub(super) fn write_back<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        for kind in ORDER {
            if self.write_kind(storage, kind)? && self.durable {
                storage.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what was changed of one kind, neighbours together, and says whether that was anything.
    fn write_kind<S: StorageMut>(&mut self, storage: &mut S, kind: Kind) -> Result<bool, StorageError> {
        let (mut run, mut start, mut any) = (Vec::new(), 0, false);
        for (&offset, page) in self.pages.iter_mut().filter(|(_, page)| page.kind == kind && page.dirty) {
            let end = if kind == Kind::L1 { self.l1_end } else { u64::MAX };
            let length = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let bytes = page.bytes.get(..length).unwrap_or(&page.bytes);
            if start + run.len() as u64 != offset || run.len() + bytes.len() > WRITE_MAX {
                write(storage, start, &run)?;
                run.clear();
                start = offset;
            }
            run.extend_from_slice(bytes);
            any = true;
        }
        write(storage, start, &run)?;
        for page in self.pages.values_mut().filter(|page| page.kind == kind) {
            page.dirty = false;
        }
        Ok(any)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The page that has the byte at `offset`, and where in it that is.
    fn page<S: StorageMut>(
        &mut self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
    ) -> Result<(&mut Page, usize), Error> {
        let skip = offset % self.length;
        let start = offset - skip;
        if !self.pages.contains_key(&start) {
            self.make_room(storage)?;
            let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(0)].into_boxed_slice();
            storage.read_at(start, &mut bytes)?;
            self.pages.insert(start, Page { kind, bytes, dirty: false, used: 0 });
        }
        let used = self.tick();
        let page = self.pages.get_mut(&start).ok_or(StorageError)?;
        page.used = used;
        Ok((page, usize::try_from(skip).unwrap_or(usize::MAX)))
    }

    /// Makes room for one page more: writes all, and forgets the half that was not asked for the longest.
    fn make_room<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        if self.pages.len() < self.most() {
            return Ok(());
        }
        self.write_back(storage)?;
        let mut used: Vec<u64> = self.pages.values().map(|page| page.used).collect();
        let middle = used.len() / 2;
        let (_, &mut median, _) = used.select_nth_unstable(middle);
        self.pages.retain(|_, page| page.used >= median);
        Ok(())
    }
}

fn write<S: StorageMut>(storage: &mut S, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
    if bytes.is_empty() { Ok(()) } else { storage.write_at(offset, bytes) }
}
