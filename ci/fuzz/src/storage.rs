//! Files in memory: one whose holes and disk space are made up, as they are the host's word, but a file system may say anything;
//! and one that is written to.

use formats::{ExtentKind, Format, Image, Region, Storage, StorageError, StorageMut};

/// More steps than a fuzzer has time for: a walk that is this long may be longer.
const PATIENCE: u64 = 1 << 20;

/// Bytes at the end of a fuzzer's input that make up the lies.
const LIES: usize = 16;

/// Bytes of one stripe of data or hole.
const STRIPE: u64 = 512;

/// The file.
#[derive(Clone)]
pub struct Liar<'a> {
    bytes: &'a [u8],
    allocated: u64,
    /// Bit n tells whether stripe n (modulo 64) is a hole.
    holes: u64,
}

impl<'a> Liar<'a> {
    /// The file that a fuzzer's input stands for; all of it stored if it is short.
    pub fn new(input: &'a [u8]) -> Self {
        let Some((bytes, lies)) = input.split_last_chunk::<LIES>() else {
            return Self { bytes: input, allocated: input.len() as u64, holes: 0 };
        };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| lies[at + index]));
        Self { bytes, allocated: word(0), holes: word(8) }
    }

    /// A file that tells the truth: all of it is stored.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, allocated: bytes.len() as u64, holes: 0 }
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u64 {
        self.len().div_ceil(STRIPE)
    }
}

impl Storage for Liar<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.allocated
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.bytes.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        assert!(offset < self.len(), "asked about a place past the end");
        let hole = self.holes >> (offset / STRIPE % 64) & 1 == 1;
        let length = (STRIPE - offset % STRIPE).min(self.len() - offset);
        Ok(Region { length, hole })
    }
}

/// Most bytes of a file that is written to.
const LONGEST: u64 = 32 << 20;

/// A file that is written to and does not become long.
#[derive(Clone)]
pub struct Bounded(pub Vec<u8>);

impl Storage for Bounded {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.0.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.0.region_at(offset)
    }
}

impl StorageMut for Bounded {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= LONGEST);
        end.ok_or(StorageError)?;
        self.0.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        if length > LONGEST { Err(StorageError) } else { self.0.set_length(length) }
    }
}

/// Reads an input as an image of `format` and walks it.
pub fn map(input: &[u8], format: Format) {
    if let Ok(mut image) = Image::open(Liar::new(input), Some(format)) {
        assert_eq!(image.format(), format);
        assert!(image.virtual_size() <= i64::MAX as u64 && image.virtual_size().is_multiple_of(512));
        walk(&mut image);
    }
    // What its data needs is not needed to say what it is.
    let _ = Image::open_metadata(Liar::new(input), Some(format));
}

/// Walks an image and checks what is promised of a walk: it is gapless, inside the disk, and ends.
pub fn walk(image: &mut Image<Liar>) {
    let (size, stripes) = (image.virtual_size(), image.storage().stripes());
    // A stripe can cut each run of the mapping once more.
    let most = image.max_extents().saturating_mul(stripes + 1);
    let references = image.references().len() + usize::from(image.data_file().is_some());
    let (mut offset, mut steps) = (0, 0);
    while offset < size {
        let Ok(extent) = image.extent_at(offset) else { break };
        assert_eq!(extent.start, offset, "an extent starts where it was asked for");
        assert!(extent.length >= 1 && extent.length <= size - offset, "an extent lies inside the disk");
        if let ExtentKind::Data { offset: at }
        | ExtentKind::Hole { offset: at }
        | ExtentKind::Zero { offset: Some(at) }
        | ExtentKind::Unallocated { offset: Some(at) } = extent.kind
        {
            assert!(at.checked_add(extent.length).is_some(), "file offsets do not wrap");
        }
        assert!(
            extent.file.reference().is_none_or(|index| index < references),
            "an extent is in one of the image's files"
        );
        if let Ok(Some(stream)) = image.stream(&extent) {
            let end = stream.skip.checked_add(extent.length);
            assert!(end.is_some_and(|end| end <= stream.cluster_len), "a stream holds its extent");
        }
        steps += 1;
        if steps == PATIENCE {
            break;
        }
        assert!(steps <= most, "a walk over {} bytes of file ends", image.storage().len());
        offset += extent.length;
    }
}
