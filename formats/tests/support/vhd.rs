//! What the tests of VHD and VHDX share: images by the reference tools, and files that are mostly another file.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formats::{ExtentKind, Format, Image, Region, Storage, StorageError};

use super::support::{FileStorage, Kind, Random, qemu_img, qemu_img_ok, qemu_io, text, walk};

/// Creates an image of `format`, `options` being the value of `-o` or nothing.
pub fn create_as(format: &str, directory: &Path, name: &str, options: &str, size: &str) -> PathBuf {
    let path = directory.join(name);
    let mut args = vec!["create", "-q", "-f", format];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend([text(&path), size]);
    qemu_img_ok(&args);
    path
}

/// What `qemu-img` has against an image, without its own name and the file's. Nothing if it takes it.
pub fn complaint(format: &str, command: &[&str], path: &Path) -> Option<String> {
    let mut args = command.to_vec();
    args.extend(["-f", format, text(path)]);
    let output = qemu_img(&args);
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut line = said.lines().next().unwrap_or_default();
    line = line.strip_prefix("qemu-img: ").unwrap_or(line);
    let open = format!("Could not open '{}': ", text(path));
    while let Some(rest) = line.strip_prefix(&open) {
        line = rest;
    }
    Some(line.to_owned())
}

/// Writes to random places of a disk of `size` bytes, and reads the image and compares it with `qemu-img convert`.
pub fn scatter(format: &str, path: &Path, size: u64, random: &mut Random) {
    let mut commands = Vec::new();
    for number in 0..12 {
        let offset = random.below(size / 512) * 512;
        let length = ((random.below(96) + 1) * 2048).min(size - offset);
        commands.push(format!("write -P {} {offset} {length}", number + 1));
    }
    qemu_io(format, path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The bytes of the disk by walking the image; what is not in the image is zero.
pub fn disk<S: Storage>(image: &mut Image<S>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    for line in walk(image).unwrap() {
        if let Kind::Data(offset) = line.kind {
            let (start, end) = (line.start as usize, (line.start + line.length) as usize);
            image.storage_mut().read_at(offset, &mut bytes[start..end]).unwrap();
        }
    }
    bytes
}

/// The disk is the one that `qemu-img convert` makes of the image.
pub fn converts_alike(path: &Path, format: Format) {
    let raw = path.with_extension("converted");
    qemu_img_ok(&["convert", "-f", format.name(), "-O", "raw", text(path), text(&raw)]);
    let mut image = Image::open(FileStorage::open(path), Some(format)).unwrap();
    assert_eq!(image.format(), format);
    assert!(disk(&mut image) == std::fs::read(&raw).unwrap(), "{}", path.display());
    std::fs::remove_file(raw).unwrap();
}

/// A file in memory with some bytes changed, cheap to make many of.
#[derive(Clone)]
pub struct Patched<'a> {
    pub base: &'a [u8],
    pub bytes: BTreeMap<usize, u8>,
    pub len: usize,
}

impl<'a> Patched<'a> {
    pub fn new(base: &'a [u8]) -> Self {
        Self { base, bytes: BTreeMap::new(), len: base.len() }
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.extend(bytes.iter().enumerate().map(|(skip, &byte)| (at + skip, byte)));
    }

    pub fn get(&self, at: usize) -> u8 {
        self.bytes.get(&at).or(self.base.get(at)).copied().unwrap_or(0)
    }
}

impl Storage for Patched<'_> {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        buf.fill(0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len);
        let end = start.saturating_add(buf.len()).min(self.len);
        let stored = self.base.get(start..end.min(self.base.len())).unwrap_or(&[]);
        buf[..stored.len()].copy_from_slice(stored);
        for (&at, &byte) in self.bytes.range(start..end) {
            buf[at - start] = byte;
        }
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: self.len() - offset, hole: false })
    }
}

/// Opens, walks to the end or to the first error, and holds the walk to its promises; at most `steps_max` steps.
pub fn survive<S: Storage>(storage: S, format: Format, steps_max: u64) -> bool {
    let Ok(mut image) = Image::open(storage, Some(format)) else { return false };
    let (mut offset, mut steps, bound, size) = (0, 0, image.max_extents(), image.virtual_size());
    while offset < size && steps < steps_max {
        let Ok(extent) = image.extent_at(offset) else { return false };
        assert!(extent.start == offset && extent.length >= 1 && extent.length <= size - offset);
        assert!(!matches!(extent.kind, ExtentKind::Compressed { .. }));
        offset += extent.length;
        steps += 1;
        assert!(steps <= bound, "more than {bound} steps");
    }
    true
}

/// Bytes that are worth changing: those of sectors that do not hold the same byte throughout.
pub fn interesting(base: &[u8]) -> Vec<usize> {
    base.chunks(512)
        .enumerate()
        .filter(|(_, sector)| !sector.iter().all(|&byte| byte == sector[0]))
        .flat_map(|(number, _)| number * 512..(number + 1) * 512)
        .filter(|&at| at < base.len())
        .collect()
}

/// Changes up to four of the bytes at `places`.
pub fn flip(file: &mut Patched<'_>, places: &[usize], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = places[random.below(places.len() as u64) as usize];
        let byte = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => file.get(at) ^ (1 << random.below(8)),
            _ => random.next().to_le_bytes()[0],
        };
        file.put(at, &[byte]);
    }
    if random.below(16) == 0 {
        file.len = random.below(file.len as u64 + 1) as usize;
    }
}
