//! Tables of damaged images: what is found in each is compared with an expectation and with `qemu-img`.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

use formats::{Error, ErrorKind, ExtentKind, Format, Image};

use super::{FileStorage, Memory, Random, qemu_img, qemu_img_ok, qemu_map, text, walk};

/// A number to be written over an image: offset, length in bytes, value.
pub type Patch = (usize, usize, u64);

/// The byte order of a format's numbers.
#[derive(Clone, Copy)]
pub enum Order {
    Little,
    Big,
}

/// What comes of opening an image and walking it.
#[derive(Clone, Copy)]
pub enum Expect {
    /// It is read, and the map is `qemu-img`'s.
    Read,
    /// It is read, and so it is by `qemu-img`, whose map says nothing.
    ReadUnmapped,
    /// It is refused for this field, in `qemu-img`'s words.
    Refused(ErrorKind, &'static str, &'static str),
    /// It is refused for this field in words of our own; `qemu-img` has these, or none.
    RefusedOtherwise(ErrorKind, &'static str, &'static str, Option<&'static str>),
}

/// Creates an image of a format, `options` being the value of `-o` or nothing.
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

pub fn patched(base: &[u8], order: Order, patches: &[Patch]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for &(offset, length, value) in patches {
        let end = offset + length;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        match order {
            Order::Little => bytes[offset..end].copy_from_slice(&value.to_le_bytes()[..length]),
            Order::Big => bytes[offset..end].copy_from_slice(&value.to_be_bytes()[8 - length..]),
        }
    }
    bytes
}

/// What `qemu-img measure` has against an image: the first line of its complaint without names.
pub fn complaint(format: Format, path: &Path) -> Option<String> {
    // What lies in the rest of a target cluster is not looked at, so that has to be little.
    let target = ["measure", "-O", "qcow2", "-o", "cluster_size=512"];
    let output = qemu_img(&[&target[..], &["-f", format.name(), text(path)]].concat());
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let open = format!("Could not open '{}': ", text(path));
    // It may begin with what it could have been installed with.
    let is_remark = |line: &str| line.starts_with("qemu: module ") || line.starts_with("qemu-img: warning: ");
    let line = said.lines().find(|line| !is_remark(line)).unwrap_or_default();
    Some(line.strip_prefix("qemu-img: ").unwrap_or(line).replace(&open, ""))
}

pub fn open_and_walk(format: Format, path: &Path) -> Result<Vec<super::Line>, Error> {
    walk(&mut Image::open(FileStorage::open(path), Some(format))?)
}

/// Opens and walks one image after the other, each the base with patches.
pub fn check(format: Format, base: &[u8], order: Order, cases: &[(&[Patch], Expect)]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.img");
    for (patches, expected) in cases {
        std::fs::write(&path, patched(base, order, patches)).unwrap();
        check_file(format, &path, *expected, &format!("{patches:x?}"));
    }
}

/// The same of one file.
pub fn check_file(format: Format, path: &Path, expected: Expect, what: &str) {
    let (found, theirs) = (open_and_walk(format, path), complaint(format, path));
    match expected {
        Expect::Read => {
            assert_eq!(theirs, None, "{what}");
            assert_eq!(found, Ok(qemu_map(format.name(), path)), "{what}");
        }
        Expect::ReadUnmapped => {
            assert_eq!(theirs, None, "{what}");
            assert_eq!(found.err(), None, "{what}");
        }
        Expect::Refused(kind, field, message) => {
            // A hint is a line of its own.
            let found = found.map_err(|error| Error { hint: None, ..error });
            assert_eq!(found, Err(Error::new(kind, field, message)), "{what}");
            assert_eq!(theirs.as_deref(), Some(message), "{what}");
        }
        Expect::RefusedOtherwise(kind, field, message, other) => {
            assert_eq!(found, Err(Error::new(kind, field, message)), "{what}");
            assert_eq!(theirs.as_deref(), other, "{what}");
        }
    }
}

/// Opens, walks to the end or to the first error, and counts the steps.
pub fn survive(bytes: &[u8], format: Option<Format>) {
    for open in [Image::open, Image::open_metadata] {
        let storage = Memory { bytes: bytes.to_vec(), allocated: 0, holes: true };
        let Ok(mut image) = open(storage, format) else { continue };
        let (mut offset, mut steps, bound, size) = (0, 0, image.max_extents(), image.virtual_size());
        assert!(size <= i64::MAX as u64 && size.is_multiple_of(512));
        while offset < size {
            let Ok(extent) = image.extent_at(offset) else { break };
            assert!(extent.start == offset && extent.length >= 1 && extent.length <= size - offset);
            if let ExtentKind::Data { offset } | ExtentKind::Compressed { offset, .. } = extent.kind {
                assert!(offset.checked_add(extent.length).is_some());
            }
            offset += extent.length;
            steps += 1;
            assert!(steps <= bound, "more than {bound} steps");
        }
    }
}

/// Flips bytes of `base` in its first `header` bytes and anywhere, cuts it off, and survives it all.
pub fn flips(base: &[u8], format: Format, header: usize, rounds: u32) {
    let mut random = Random(11);
    for round in 0..rounds {
        let mut bytes = base.to_vec();
        for _ in 0..1 + random.below(4) {
            let among = if round % 4 == 0 { base.len() } else { header };
            let at = usize::try_from(random.below(among as u64)).unwrap();
            bytes[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ (1 << random.below(8)),
                _ => random.next().to_le_bytes()[0],
            };
        }
        if random.below(8) == 0 {
            bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap());
        }
        survive(&bytes, Some(format));
    }
}
