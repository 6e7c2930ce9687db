//! Images that are written through their writers and read back with `qemu-img`.

use std::fs::{self, File};
use std::io::ErrorKind::UnexpectedEof;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::write::Writer;
use formats::{Codec, FileIndex, Format, Image, Storage, StorageError, StorageMut};
use miniz_oxide::deflate::compress_to_vec_zlib;

pub use super::FileStorage;
use super::{Random, qemu_img, qemu_img_ok, text};

impl StorageMut for FileStorage {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.write_all_at(bytes, offset).map_err(|_| StorageError)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        self.0.set_len(length).map_err(|_| StorageError)
    }
}

/// A new empty file.
pub fn new_file(path: &Path) -> FileStorage {
    FileStorage(File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap())
}

/// A file as it is, to be written to.
pub fn old_file(path: &Path) -> FileStorage {
    FileStorage(File::options().read(true).write(true).open(path).unwrap())
}

/// Bytes that do not compress, the first of each eight not zero.
fn noise(bytes: &mut [u8], random: &mut Random) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&(random.next() | 1).to_le_bytes()[..chunk.len()]);
    }
}

/// A disk, and the units of it that hold data.
pub struct Disk {
    pub bytes: Vec<u8>,
    pub unit: u64,
}

impl Disk {
    /// A disk of `size` bytes in units of `unit`, some of them data.
    pub fn random(size: u64, unit: u64, random: &mut Random) -> Self {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        for chunk in bytes.chunks_mut(usize::try_from(unit).unwrap()) {
            if random.below(3) != 0 {
                noise(chunk, random);
            }
        }
        Self { bytes, unit }
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn part(&self, offset: u64, length: u64) -> &[u8] {
        let offset = usize::try_from(offset).unwrap();
        &self.bytes[offset..offset + usize::try_from(length).unwrap()]
    }

    /// Runs of units that are data, or are zeros: offset, length, whether they are data.
    pub fn runs(&self) -> Vec<(u64, u64, bool)> {
        let mut runs: Vec<(u64, u64, bool)> = Vec::new();
        let mut offset = 0;
        for chunk in self.bytes.chunks(usize::try_from(self.unit).unwrap()) {
            let (length, data) = (chunk.len() as u64, chunk[0] != 0);
            match runs.last_mut() {
                Some(last) if last.2 == data => last.1 += length,
                _ => runs.push((offset, length, data)),
            }
            offset += length;
        }
        runs
    }

    /// Writes `length` bytes of the disk at `offset`, compressed if the image is.
    pub fn store<W: Writer>(&self, writer: &mut W, mut offset: u64, length: u64) {
        let end = offset + length;
        while offset < end && writer.codec() == Some(Codec::Zlib) {
            let part = writer.unit().min(end - offset);
            let mut stream = compress_to_vec_zlib(self.part(offset, part), 1);
            let place = writer.allocate_compressed(offset, &mut stream).unwrap().unwrap();
            assert_eq!(place.length, stream.len() as u64);
            writer.file(place.file).unwrap().write_at(place.offset, &stream).unwrap();
            offset += part;
        }
        while offset < end {
            let place = writer.allocate(offset, end - offset).unwrap();
            assert!(place.length >= 1 && place.length <= end - offset);
            let mut bytes = self.part(offset, place.length).to_vec();
            writer.encode(offset, &place, &mut bytes);
            writer.file(place.file).unwrap().write_at(place.offset, &bytes).unwrap();
            offset += place.length;
        }
    }

    /// Writes the disk to a new image, from its start to its end.
    pub fn write<W: Writer>(&self, writer: &mut W) {
        for (offset, length, data) in self.runs() {
            if data { self.store(writer, offset, length) } else { writer.zero(offset, length).unwrap() }
        }
        writer.finish().unwrap();
    }

    /// Writes random parts of a disk, of other bytes or zeros, in random order, and is that disk then.
    pub fn scribble<W: Writer>(&mut self, writer: &mut W, random: &mut Random) {
        let units = self.size().div_ceil(self.unit);
        for _ in 0..12 {
            let start = random.below(units) * self.unit;
            let end = (start + (1 + random.below(6)) * self.unit).min(self.size());
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            if random.below(3) == 0 {
                self.bytes[range].fill(0);
                writer.zero(start, end - start).unwrap();
            } else {
                noise(&mut self.bytes[range], random);
                self.store(writer, start, end - start);
            }
        }
        writer.finish().unwrap();
    }
}

/// Whether the image holds the disk: as `qemu-img` reads it, and as it is read here. What comes behind the disk in an image
/// whose size was rounded up is zeros.
pub fn assert_holds(path: &Path, format: &str, disk: &[u8]) {
    let raw = path.with_extension("back");
    qemu_img_ok(&["convert", "-f", format, "-O", "raw", text(path), text(&raw)]);
    assert_same(&fs::read(&raw).unwrap(), disk, path);
    fs::remove_file(raw).unwrap();
    let checked = qemu_img(&["check", "-f", format, text(path)]);
    // 63: the format has no check.
    assert!(
        matches!(checked.status.code(), Some(0 | 63)),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&checked.stdout)
    );
    let mut image = Image::open(FileStorage::open(path), Format::from_name(format)).unwrap();
    if !image.references().is_empty() {
        let names: Vec<_> = image.references().to_vec();
        let files = names
            .iter()
            .map(|name| FileStorage::open(&path.with_file_name(std::str::from_utf8(name).unwrap())));
        image.attach(files.collect()).unwrap();
    }
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    image.read(0, &mut bytes).unwrap();
    assert_same(&bytes, disk, path);
}

/// Whether two disks are the same, `found` being the longer one, and zeros where it is.
pub fn assert_same(found: &[u8], disk: &[u8], path: &Path) {
    assert!(found.len() >= disk.len(), "{}: {} bytes, not {}", path.display(), found.len(), disk.len());
    let (found, behind) = found.split_at(disk.len());
    if found != disk {
        let differs = (0..disk.len()).find(|&at| found[at] != disk[at]);
        panic!("{}: byte {differs:x?} differs", path.display());
    }
    assert!(behind.iter().all(|&byte| byte == 0), "{}", path.display());
}

/// Whether two files are the same but for the ranges of bytes that are left out.
pub fn assert_files(ours: &Path, theirs: &Path, masked: &[std::ops::Range<u64>], what: &str) {
    let (ours, theirs) = (File::open(ours).unwrap(), File::open(theirs).unwrap());
    let length = ours.metadata().unwrap().len();
    assert_eq!(length, theirs.metadata().unwrap().len(), "length: {what}");
    let mut offset = 0;
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    while offset < length {
        // Holes of both are the same.
        let data = |file: &File| rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)).unwrap_or(length);
        let next = data(&ours).min(data(&theirs)) & !0xfff;
        offset = next.max(offset);
        let part = usize::try_from((length - offset).min(1 << 20)).unwrap();
        for (file, bytes) in [(&ours, &mut one), (&theirs, &mut other)] {
            match file.read_exact_at(&mut bytes[..part], offset) {
                Err(error) if error.kind() == UnexpectedEof => panic!("{what}: {error}"),
                read => read.unwrap(),
            }
        }
        let differ = one[..part] != other[..part];
        for at in (0..part).filter(|_| differ) {
            let place = offset + at as u64;
            assert!(
                one[at] == other[at] || masked.iter().any(|range| range.contains(&place)),
                "{what}: byte {place:#x} is {:#x}, not {:#x}",
                one[at],
                other[at]
            );
        }
        offset += part as u64;
    }
}

/// The file that `qemu-img convert` makes of the disk, with its options.
pub fn converted(directory: &Path, name: &str, format: &str, options: &str, disk: &Disk) -> PathBuf {
    let raw = directory.join("disk.raw");
    fs::write(&raw, &disk.bytes).unwrap();
    let path = directory.join(name);
    let mut args = vec!["convert", "-f", "raw", "-O", format];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend([text(&raw), text(&path)]);
    qemu_img_ok(&args);
    path
}

/// A little-endian or other field of a file.
pub fn field<const N: usize>(path: &Path, offset: u64) -> [u8; N] {
    let mut bytes = [0; N];
    FileStorage::open(path).read_at(offset, &mut bytes).unwrap();
    bytes
}

/// The file of an image that lies in one.
pub fn own<W: Writer>(writer: &mut W) -> &mut W::Storage {
    writer.file(FileIndex::OWN).unwrap()
}
