//! A file in the making: pages that hold something, and holes between them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length of a page in bytes: what file systems commonly allocate at least.
const PAGE: usize = 4096;
const PAGE_LEN: u64 = PAGE as u64;

/// A number in a file: its offset and length in bytes and its byte order.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    at: u64,
    width: usize,
    big_endian: bool,
}

/// A big-endian number of `width` bytes, 1 to 8, at file offset `at`.
pub const fn be(at: u64, width: usize) -> Field {
    Field { at, width, big_endian: true }
}

/// A little-endian number of `width` bytes, 1 to 8, at file offset `at`.
pub const fn le(at: u64, width: usize) -> Field {
    Field { at, width, big_endian: false }
}

/// A file of any length: what was never put is a hole, and so are pages of zeros.
#[derive(Clone, Debug, Default)]
pub struct SparseFile {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
}

impl SparseFile {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes at an offset; the file becomes long enough for them.
    #[must_use]
    pub fn put(mut self, at: u64, bytes: impl AsRef<[u8]>) -> Self {
        let mut rest = bytes.as_ref();
        let mut offset = at;
        while !rest.is_empty() {
            let skip = (offset % PAGE_LEN) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE - skip));
            let old = self.pages.get_mut(&(offset / PAGE_LEN));
            if old.is_some() || now.iter().any(|&byte| byte != 0) {
                let page = self.pages.entry(offset / PAGE_LEN).or_insert_with(|| Box::new([0; PAGE]));
                page[skip..skip + now.len()].copy_from_slice(now);
            }
            offset += now.len() as u64;
            rest = later;
        }
        self.length = self.length.max(offset);
        self
    }

    /// Writes the low bytes of a number into a field.
    #[must_use]
    pub fn set(self, field: Field, value: u64) -> Self {
        let Field { at, width, big_endian } = field;
        match big_endian {
            true => self.put(at, &value.to_be_bytes()[8 - width..]),
            false => self.put(at, &value.to_le_bytes()[..width]),
        }
    }

    /// Cuts the file to a length in bytes, or extends it by a hole.
    #[must_use]
    pub fn with_length(mut self, length: u64) -> Self {
        self.pages.split_off(&length.div_ceil(PAGE_LEN));
        if let Some(page) = self.pages.get_mut(&(length / PAGE_LEN)) {
            page[(length % PAGE_LEN) as usize..].fill(0);
        }
        self.length = length;
        self
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// `length` bytes from `at` on; what is not there is zero.
    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let byte = |offset: u64| {
            self.pages.get(&(offset / PAGE_LEN)).map_or(0, |page| page[(offset % PAGE_LEN) as usize])
        };
        (at..at + length as u64).map(byte).collect()
    }

    /// Writes the file. Where the file system cannot make it as long as it should be, it is half as long as that, or
    /// half of that, and so on, but never shorter than what it holds.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        let held = self.pages.keys().next_back().map_or(0, |page| (page + 1) * PAGE_LEN).min(self.length);
        let mut length = self.length;
        loop {
            match file.set_len(length) {
                Err(error) if length / 2 >= held && length > 1 && is_too_long(&error) => length /= 2,
                result => break result?,
            }
        }
        for (number, page) in &self.pages {
            let start = number * PAGE_LEN;
            let end = usize::try_from((length - start).min(PAGE_LEN)).unwrap_or(PAGE);
            if page[..end].iter().any(|&byte| byte != 0) {
                file.write_all_at(&page[..end], start)?;
            }
        }
        Ok(())
    }
}

fn is_too_long(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput)
}

impl<T: AsRef<[u8]>> From<T> for SparseFile {
    fn from(bytes: T) -> Self {
        Self::new().put(0, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_last_is_there_and_the_rest_is_zero() {
        let file = SparseFile::from("abc").put(4095, "xyz").put(1, [0, 9]).set(be(8, 2), 0x0102);
        assert_eq!(file.bytes(0, 10), [b'a', 0, 9, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((file.bytes(4094, 5), file.length()), (b"\0xyz\0".to_vec(), 4098));
        let cut = file.with_length(4096).with_length(1 << 40);
        assert_eq!((cut.bytes(4095, 2), cut.length()), (b"x\0".to_vec(), 1 << 40));
    }

    #[test]
    fn holes_take_no_space() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        SparseFile::from([1; 100])
            .put(1 << 30, vec![0; 1 << 20])
            .set(le(1 << 31, 4), 7)
            .write(&path)
            .unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), (1 << 31) + 4);
        assert!(metadata.blocks() * 512 <= 64 << 10, "{} blocks", metadata.blocks());
    }

    #[test]
    fn a_file_is_as_long_as_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        SparseFile::from("x").with_length(i64::MAX as u64).write(&path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() >= 1 << 40);
    }
}
