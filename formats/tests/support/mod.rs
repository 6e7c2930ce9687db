//! What the tests need from the host: files with holes, and the reference tools.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod cases;
pub mod encrypted;
pub mod qcow2;
pub mod vmdk;
pub mod write;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use formats::{Extent, ExtentKind, Image, Region, Storage, StorageError};
use rustix::fs::{SeekFrom, seek};

/// A file of the host.
pub struct FileStorage(pub File);

impl FileStorage {
    pub fn open(path: &Path) -> Self {
        Self(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }
}

impl Storage for FileStorage {
    fn len(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn allocated(&self) -> u64 {
        self.0.metadata().unwrap().blocks() * 512
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(_) => return Err(StorageError),
            }
        }
        buf[done..].fill(0);
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        let (len, at) = (self.len(), |from| seek(&self.0, from).ok());
        let data = at(SeekFrom::Data(offset)).unwrap_or(len);
        if data > offset {
            return Ok(Region { length: data - offset, hole: true });
        }
        let hole = at(SeekFrom::Hole(offset)).unwrap_or(len);
        Ok(Region { length: hole - offset, hole: false })
    }
}

/// A file in memory: stored from end to end, or said to be one hole.
pub struct Memory {
    pub bytes: Vec<u8>,
    pub allocated: u64,
    pub holes: bool,
}

impl Memory {
    pub fn new(bytes: Vec<u8>) -> Self {
        let allocated = (bytes.len() as u64).next_multiple_of(4096);
        Self { bytes, allocated, holes: false }
    }
}

impl Storage for Memory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.allocated
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        buf.fill(0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let length = buf.len().min(self.bytes.len() - start);
        buf[..length].copy_from_slice(&self.bytes[start..start + length]);
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: self.len() - offset, hole: self.holes })
    }
}

fn tool(variable: &str, name: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()))
}

fn run(mut command: Command, args: &[&str]) -> Output {
    command.args(args).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs `qemu-img`, whatever comes of it.
pub fn qemu_img(args: &[&str]) -> Output {
    run(tool("QEMU_IMG", "qemu-img"), args)
}

/// Runs `qemu-img`, which must succeed, and gives its standard output.
pub fn qemu_img_ok(args: &[&str]) -> String {
    let output = qemu_img(args);
    assert!(output.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs commands of `qemu-io` on an image, which must succeed.
pub fn qemu_io(format: &str, path: &Path, commands: &[&str]) {
    qemu_io_on(&["-f", format, text(path)], commands);
}

/// The same on an image that takes more than a name to open.
pub fn qemu_io_on(image: &[&str], commands: &[&str]) {
    let mut command = tool("QEMU_IO", "qemu-io");
    for one in commands {
        command.args(["-c", one]);
    }
    let output = run(command, image);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("failed"), "qemu-io {commands:?}: {said}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Creates an image, `options` being the value of `-o` or nothing.
pub fn create(directory: &Path, name: &str, options: &str, size: &str) -> PathBuf {
    let path = directory.join(name);
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend([text(&path), size]);
    qemu_img_ok(&args);
    path
}

/// Overwrites bytes of an image in memory with big-endian numbers: offset, length of the number in bytes, value.
pub fn patch(bytes: &mut Vec<u8>, patches: &[(usize, usize, u64)]) {
    for &(offset, length, value) in patches {
        let end = offset + length;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(&value.to_be_bytes()[8 - length..]);
    }
}

/// A big-endian number of 8 bytes.
pub fn word(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// What `qemu-img measure` has against an image: the first line of its complaint, without its own name, the file's name
/// and the remarks around a report of corruption. Nothing if it succeeds.
pub fn qemu_complaint(path: &Path) -> Option<String> {
    let output = qemu_img(&["measure", "-f", "qcow2", "-O", "qcow2", text(path)]);
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().next().unwrap_or_default();
    let open = format!("qemu-img: Could not open '{}': ", text(path));
    let corrupt =
        line.strip_prefix("qcow2: Image is corrupt: ").and_then(|line| line.split_once("; further"));
    Some(match (line.strip_prefix(&open), corrupt) {
        (Some(line), _) => line.to_owned(),
        (None, Some((line, _))) => line.to_owned(),
        (None, None) => line.to_owned(),
    })
}

/// One line of a map, neighbours of one kind joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub start: u64,
    pub length: u64,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unallocated,
    /// Known to be zero in this image.
    Zero,
    /// File offset of the first byte.
    Data(u64),
    Compressed,
}

impl Kind {
    pub fn of(kind: ExtentKind) -> Self {
        match kind {
            ExtentKind::Unallocated { .. } => Self::Unallocated,
            ExtentKind::Zero { .. } | ExtentKind::Hole { .. } => Self::Zero,
            ExtentKind::Data { offset } => Self::Data(offset),
            ExtentKind::Compressed { .. } => Self::Compressed,
        }
    }
}

fn push(lines: &mut Vec<Line>, line: Line) {
    if let Some(last) = lines.last_mut() {
        let goes_on = match (last.kind, line.kind) {
            (Kind::Data(first), Kind::Data(next)) => first + last.length == next,
            (first, next) => first == next,
        };
        assert_eq!(last.start + last.length, line.start, "a gap in the map");
        if goes_on {
            last.length += line.length;
            return;
        }
    }
    lines.push(line);
}

/// The map of an image by walking it, the promises of a walk checked on the way.
pub fn walk<S: Storage>(image: &mut Image<S>) -> Result<Vec<Line>, formats::Error> {
    let (mut lines, mut offset, size) = (Vec::new(), 0, image.virtual_size());
    while offset < size {
        let Extent { start, length, kind, .. } = image.extent_at(offset)?;
        assert_eq!(start, offset, "an extent starts where it was asked for");
        assert!(length >= 1 && length <= size - offset, "an extent is neither empty nor too long");
        push(&mut lines, Line { start, length, kind: Kind::of(kind) });
        offset += length;
    }
    Ok(lines)
}

/// The map of an image by `qemu-img map`.
pub fn qemu_map(format: &str, path: &Path) -> Vec<Line> {
    let output = qemu_img_ok(&["map", "-f", format, "--output=json", text(path)]);
    let mut lines = Vec::new();
    for entry in output.lines().filter(|line| line.contains("\"start\"")) {
        let number = |key: &str| -> Option<u64> {
            let rest = entry.split_once(&format!("\"{key}\": "))?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let flag = |key: &str| entry.contains(&format!("\"{key}\": true"));
        let kind = if flag("compressed") {
            Kind::Compressed
        } else if !flag("present") {
            Kind::Unallocated
        } else if flag("zero") {
            Kind::Zero
        } else {
            // Before it said so, it showed compressed data as data without an offset.
            number("offset").map_or(Kind::Compressed, Kind::Data)
        };
        let line = Line { start: number("start").unwrap(), length: number("length").unwrap(), kind };
        if line.length != 0 {
            push(&mut lines, line);
        }
    }
    lines
}

/// A small, seeded source of pseudo-random numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
