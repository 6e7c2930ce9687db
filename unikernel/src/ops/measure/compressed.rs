//! The length of a compressed image, which nobody knows who has not compressed it: the image is made, and its data thrown away.

use alloc::{boxed::Box, collections::BTreeMap, format, rc::Rc, vec, vec::Vec};
use core::ops::Range;

use drivers::Landing;
use formats::{FileIndex, Region, Storage, StorageError, StorageMut};
use protocol::{
    Chance, ErrorKind, ErrorRecord, ExtentMap, FileFacts, MeasureAnswer, MeasureRequest, Need, Reply,
};

use super::Source;
use crate::{
    file::File,
    files::Files,
    mover::{self, Compress, SparseSize, StartWrite, Terms},
    ops::compare::StartRead,
    options::{Target, Values},
    source,
    target::{self, NewImage},
};

/// Bytes that are kept together.
const PAGE: u64 = 4096;

/// Most bytes of tables that are kept.
const KEPT_MAX: u64 = 32 << 20;

/// The lengths of the image that takes the data of `source`, compressed: `fully_allocated` is known already.
pub fn measure<S: Storage>(
    source: Source<S>,
    target: Target,
    values: &Values,
    request: &MeasureRequest,
    sparse: SparseSize,
    fully_allocated: u64,
) -> Result<MeasureAnswer, ErrorRecord> {
    let size = source.length()?.bytes();
    let file = Reply::File(facts());
    // Ids and times have the same length all of them.
    let chance = Chance { seed: [0; 32], time: 0, ticks: 0 };
    let new = NewImage {
        size,
        name: "disk.vmdk",
        parent_cid: None,
        strict_stream: false,
        secrets: &request.secrets,
        profile: request.profile,
        chance,
        file: &file,
        data_file: Some(&file),
    };
    let mut image = target::create(target, values, &new, &mut Nowhere)?;
    if let Source::Image(chain) = source {
        let Some(method) = image.codec().and_then(mover::method) else {
            let message = format!("Compression not supported for format '{}'", request.target_format);
            return Err(ErrorRecord::new(ErrorKind::Unsupported, message));
        };
        let mut source = mover::Source::new(vec![chain], false, None)
            .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes"))?;
        let terms = Terms { sparse, zero_already: true, top_only: false };
        Compress::new(&mut *image, terms, method).run(&mut source, &mut |_| {})?;
    }
    image.finish().map_err(source::record)?;
    let files = (0..).map_while(|position| match position {
        0 => Some(FileIndex::OWN),
        _ => FileIndex::of_reference(position - 1),
    });
    let lengths = files.map_while(|file| image.file(file).map(|file| file.len()));
    let required = lengths.fold(0_u64, u64::saturating_add);
    Ok(MeasureAnswer { required, fully_allocated: fully_allocated.max(required), bitmaps: None })
}

/// An empty file.
fn facts() -> FileFacts {
    let extents = ExtentMap::Inline(Vec::new());
    FileFacts { disk: "target".into(), length: 0, allocated: 0, extents, named_dmg: false }
}

/// Makes files that are only as long as if they were there.
struct Nowhere;

impl Files for Nowhere {
    type Storage = File;

    fn open(&mut self, facts: &FileFacts) -> Result<File, ErrorRecord> {
        Ok(File::new(&facts.disk, Tables::default()))
    }

    fn need(&mut self, _: &Need) -> Result<FileFacts, ErrorRecord> {
        Ok(facts())
    }
}

/// A file of which only tables are kept; what is moved into it is zeros to whoever reads it.
#[derive(Debug, Default)]
struct Tables {
    length: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Tables {
    /// Calls `each` for the parts of the `length` bytes at `offset` that are in one page: with its number, the range in it and
    /// that of the bytes.
    fn pages(
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, Range<usize>, Range<usize>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut done = 0;
        while done < length {
            let at = offset.checked_add(done as u64).ok_or(StorageError)?;
            let start = usize::try_from(at % PAGE).map_err(|_| StorageError)?;
            let count = (PAGE as usize - start).min(length - done);
            each(at / PAGE, start..start + count, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

impl Storage for Tables {
    fn len(&self) -> u64 {
        self.length
    }

    fn allocated(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        Self::pages(offset, buf.len(), |page, from, to| {
            let to = buf.get_mut(to).ok_or(StorageError)?;
            match self.pages.get(&page).and_then(|page| page.get(from)) {
                Some(bytes) => to.copy_from_slice(bytes),
                None => to.fill(0),
            }
            Ok(())
        })
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: self.length.saturating_sub(offset).max(1), hole: false })
    }
}

impl StorageMut for Tables {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.length = self.length.max(offset.checked_add(bytes.len() as u64).ok_or(StorageError)?);
        Self::pages(offset, bytes.len(), |page, to, from| {
            let from = bytes.get(from).ok_or(StorageError)?;
            if !self.pages.contains_key(&page) {
                if from.iter().all(|&byte| byte == 0) {
                    return Ok(());
                }
                if self.pages.len() as u64 >= KEPT_MAX / PAGE {
                    return Err(StorageError);
                }
            }
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            page.get_mut(to).ok_or(StorageError)?.copy_from_slice(from);
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        self.length = length;
        Ok(())
    }
}

impl StartWrite for Tables {
    fn start_write(&mut self, offset: u64, _: &Rc<Vec<u8>>, part: Range<usize>) -> Result<(), StorageError> {
        self.length = self.length.max(offset.checked_add(part.len() as u64).ok_or(StorageError)?);
        Ok(())
    }

    fn reap(&mut self, _: bool) -> Result<(), StorageError> {
        Ok(())
    }
}

impl StartRead for Tables {
    fn start_read(&mut self, _: u64, _: &Rc<Landing>, _: Range<usize>) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn finish_reads(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}
