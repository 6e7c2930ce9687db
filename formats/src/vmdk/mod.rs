//! VMDK: a disk in one sparse file, or in files that a descriptor names. Section names in comments are those of VMware's
//! "Virtual Disk Format 5.0"; checks come in `qemu-img`'s order and in its words where it has some.
//!
//! No file is opened here: `Image::references` names those that are needed, and a name inside a file that was handed
//! in is never looked at, so that there is no recursion.

mod areas;
mod check;
mod cowd;
mod create;
mod descriptor;
mod embedded;
mod hosted;
mod lines;
mod sesparse;
mod sparse;
mod stream;
mod tables;
mod text;
mod types;
mod walk;
mod write;

use alloc::vec;
use alloc::vec::Vec;

pub use create::{Adapter, Create, Layout, Parent, Piece, Subformat, create, extents};
pub use types::{CreateType, ExtentType};
pub use write::{Target, open};

use crate::area::Visit;
use crate::files::{Files, not_attached};
use crate::reader::Reader;
use crate::{BackingFile, Codec, Error, ErrorKind, Extent, FileIndex, Storage, Stream};
use lines::Line;
use sparse::Sparse;
use text::Text;
use walk::Walk;

/// Unit in bytes of the numbers in headers and descriptors.
const SECTOR: u64 = 512;
/// Longest file or disk in bytes: QEMU's `BDRV_MAX_LENGTH`.
const LENGTH_MAX: u64 = (1 << 63) - (1 << 30);

/// A part of the disk that lies in one file or in none.
#[derive(Debug)]
struct Part {
    /// Virtual offsets in bytes of its first byte and of the first byte behind it.
    start: u64,
    end: u64,
    file: FileIndex,
    /// What the descriptor calls it, if one does.
    kind: Option<ExtentType>,
    content: Content,
}

/// How a part lies in its file.
#[derive(Debug)]
enum Content {
    /// In no file: zeros.
    Zero,
    /// As it is, from this file offset in bytes on.
    Flat(u64),
    Sparse(Sparse),
    /// In a sparse file that was not attached. Its header will say how long the part really is.
    Unopened,
}

/// What `info` says of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// The file it is in; the image's own for zeros.
    pub file: FileIndex,
    /// Its type, if a descriptor says it.
    pub kind: Option<ExtentType>,
    /// Bytes of the disk: by the descriptor as long as a sparse file was not attached, then by its header.
    pub virtual_size: u64,
    /// Length of a grain in bytes, if it is a sparse file that was read.
    pub grain_size: Option<u64>,
    /// Whether its grains are compressed.
    pub compressed: bool,
}

/// An open VMDK image.
#[derive(Debug)]
pub struct Vmdk {
    create_type: Option<CreateType>,
    cid: u32,
    parent_cid: u32,
    backing: Option<BackingFile>,
    /// The extent descriptions; none for a sparse file of its own.
    lines: Vec<Line>,
    /// What is wrong with the descriptor inside of a sparse file.
    descriptor_fault: Option<&'static str>,
    references: Vec<Vec<u8>>,
    parts: Vec<Part>,
    walk: Walk,
}

/// Sectors of a file of `length` bytes, the last one whole.
fn file_sectors(length: u64) -> u64 {
    length.div_ceil(SECTOR)
}

/// Whether the first bytes of a file (any number; what is missing counts as zero) are those of a VMDK image: a sparse
/// file's, or a descriptor's up to its `version`, with comments and blank lines before it.
pub(crate) fn probe(head: &[u8]) -> bool {
    if head.starts_with(&hosted::MAGIC) || head.starts_with(&cowd::MAGIC) {
        return true;
    }
    let mut rest = head;
    while let Some(&first) = rest.first() {
        let (line, after) = match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        };
        match first {
            b'#' => rest = after,
            // A blank line has a blank: an empty one is the end of it.
            b' ' if line.strip_suffix(b"\r").unwrap_or(line).iter().all(|&byte| byte == b' ') => rest = after,
            _ => {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return matches!(line, b"version=1" | b"version=2" | b"version=3");
            }
        }
    }
    false
}

impl Vmdk {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let mut reader = Reader::new(storage);
        let (create_type, text, lines, parts) = match magic(&mut reader)? {
            hosted::MAGIC => {
                let sparse = hosted::open(&mut reader)?;
                let create_type = match sparse.entries.compressed() {
                    true => CreateType::StreamOptimized,
                    false => CreateType::MonolithicSparse,
                };
                (Some(create_type), Text::read_embedded(&mut reader)?, Vec::new(), single(sparse))
            }
            cowd::MAGIC => {
                let sparse = cowd::open(&mut reader)?;
                (None, Text::read_embedded(&mut reader)?, Vec::new(), single(sparse))
            }
            _ => {
                let text = Text::read(&mut reader, 0)?;
                let create_type = text.create_type()?;
                let lines = text.extents()?;
                let parts = lay_out(&lines, |_, line| Ok(unopened(line)));
                (Some(create_type), text, lines, parts)
            }
        };
        let descriptor_fault = if lines.is_empty() { embedded::fault(&text) } else { None };
        let backing = text.parent()?;
        let (cid, parent_cid) = (text.cid()?, text.parent_cid()?);
        let references =
            lines.iter().filter(|line| line.kind != ExtentType::Zero).map(|line| line.name.clone()).collect();
        Ok(Self {
            create_type,
            cid,
            parent_cid,
            backing,
            lines,
            descriptor_fault,
            references,
            parts: parts?,
            walk: Walk::new(),
        })
    }

    /// Reads the headers of the files behind [`references`](Self::references).
    pub(crate) fn attach<S: Storage>(&mut self, files: &mut [S]) -> Result<(), Error> {
        if self.references.is_empty() {
            return Ok(());
        }
        let parts = self.opened(files)?;
        if parts
            .iter()
            .any(|part| matches!(&part.content, Content::Sparse(sparse) if sparse.entries.compressed()))
        {
            self.create_type = Some(CreateType::StreamOptimized);
        }
        self.parts = parts;
        self.walk = Walk::new();
        Ok(())
    }

    /// That the first files behind [`references`](Self::references) are what they should be.
    pub(crate) fn check_files<S: Storage>(&self, files: &mut [S]) -> Result<(), Error> {
        self.opened(files).map(|_| ())
    }

    /// The parts of the disk, as far as `files` goes by the headers of the files.
    fn opened<S: Storage>(&self, files: &mut [S]) -> Result<Vec<Part>, Error> {
        lay_out(&self.lines, |file, line| {
            let storage = file.reference().and_then(|position| files.get_mut(position));
            match (line.kind, storage) {
                (ExtentType::Zero | ExtentType::Flat | ExtentType::Vmfs, _) | (_, None) => Ok(unopened(line)),
                (kind, Some(storage)) => {
                    open_sparse(kind, &mut Reader::new(storage)).map_err(|error| error.in_file(file))
                }
            }
        })
    }

    /// How the disk is kept in files, if the image says it.
    pub fn create_type(&self) -> Option<CreateType> {
        self.create_type
    }

    /// Content id.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// Content id that the parent must have for the data of both to fit together.
    pub fn parent_cid(&self) -> u32 {
        self.parent_cid
    }

    /// In what the descriptor inside of a sparse file describes another disk than the one in this file. Nothing here goes by
    /// it; other readers may.
    pub fn descriptor_fault(&self) -> Option<&'static str> {
        self.descriptor_fault
    }

    /// Visits the metadata in the image's own file.
    pub(crate) fn visit_areas<S: Storage>(
        &self,
        storage: &mut S,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        for part in &self.parts {
            match &part.content {
                Content::Sparse(sparse) if part.file == FileIndex::OWN => {
                    areas::visit(storage, sparse, visit)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the disk is made of, in order.
    pub fn extents(&self) -> impl Iterator<Item = ExtentInfo> {
        self.parts.iter().map(|part| {
            let sparse = match &part.content {
                Content::Sparse(sparse) => Some(sparse),
                _ => None,
            };
            ExtentInfo {
                file: part.file,
                kind: part.kind,
                virtual_size: part.end - part.start,
                grain_size: sparse.map(|sparse| sparse.grain_len),
                compressed: sparse.is_some_and(|sparse| sparse.entries.compressed()),
            }
        })
    }

    /// Whether all extents are of one kind and grain, without which QEMU has nothing to say of the image as a whole.
    pub(crate) fn is_uniform(&self) -> bool {
        let shape = |extent: ExtentInfo| (extent.grain_size, extent.compressed);
        let mut shapes = self.extents().map(shape);
        let first = shapes.next();
        shapes.all(|shape| Some(shape) == first)
    }

    pub(crate) fn references(&self) -> &[Vec<u8>] {
        &self.references
    }

    pub(crate) fn backing(&self) -> Option<&BackingFile> {
        self.backing.as_ref()
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// `file_len` gives the length of a file.
    pub(crate) fn max_extents(&self, file_len: impl Fn(FileIndex) -> u64) -> u64 {
        let of_part = |part: &Part| match &part.content {
            Content::Zero | Content::Unopened => 1,
            Content::Flat(_) => 2,
            Content::Sparse(sparse) => {
                let tables = sparse.tables_max(file_len(part.file)).min(sparse.directory_entries);
                (tables * sparse.table_entries).saturating_add(sparse.directory_entries)
            }
        };
        self.parts.iter().map(of_part).fold(0, u64::saturating_add)
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(
        &mut self,
        files: &mut Files<'_, S>,
        offset: u64,
    ) -> Result<Extent, Error> {
        self.walk.extent_at(files, &mut self.parts, offset)
    }

    /// What it takes to decode `extent`, which is compressed, its data at the file offset `offset`.
    pub(crate) fn stream<S: Storage>(
        &self,
        files: &mut Files<'_, S>,
        extent: &Extent,
        offset: u64,
    ) -> Result<Stream, Error> {
        let part = self.parts.get(self.parts.partition_point(|part| part.end <= extent.start));
        let Some(Part { start, file, content: Content::Sparse(sparse), .. }) = part else {
            return Err(not_attached(extent.file));
        };
        let length =
            hosted::stream_len(files.get(*file)?, sparse, offset).map_err(|error| error.in_file(*file))?;
        let (codec, cluster_len) = (Codec::Zlib, sparse.grain_len);
        let skip = extent.start.saturating_sub(*start) % cluster_len;
        Ok(Stream { file: *file, offset, length, codec, cluster_len, skip })
    }
}

/// The first bytes of a file that has any.
fn magic<S: Storage>(reader: &mut Reader<'_, S>) -> Result<[u8; 4], Error> {
    if reader.file_len() == 0 {
        let message = "File is too small, not a valid image";
        return Err(Error::new(ErrorKind::InvalidFormat, "file length", message));
    }
    Ok(reader.record()?)
}

/// A sparse file behind a reference. A descriptor is none.
fn open_sparse<S: Storage>(kind: ExtentType, reader: &mut Reader<'_, S>) -> Result<(u64, Content), Error> {
    let sparse = if kind == ExtentType::SeSparse {
        sesparse::open(reader)?
    } else {
        match magic(reader)? {
            hosted::MAGIC => hosted::open(reader)?,
            cowd::MAGIC => cowd::open(reader)?,
            _ => {
                let message = "Image not in VMDK format";
                return Err(Error::new(ErrorKind::InvalidFormat, "magicNumber", message));
            }
        }
    };
    Ok((sparse.sectors, Content::Sparse(sparse)))
}

/// Sectors and content of an extent as far as the descriptor tells.
fn unopened(line: &Line) -> (u64, Content) {
    let content = match line.kind {
        ExtentType::Zero => Content::Zero,
        ExtentType::Flat | ExtentType::Vmfs => Content::Flat(line.offset),
        ExtentType::Sparse | ExtentType::VmfsSparse | ExtentType::SeSparse => Content::Unopened,
    };
    (line.sectors, content)
}

/// The disk in one sparse file.
fn single(sparse: Sparse) -> Result<Vec<Part>, Error> {
    let end = disk_end(0, sparse.sectors)?;
    let (file, content) = (FileIndex::OWN, Content::Sparse(sparse));
    Ok(vec![Part { start: 0, end, file, kind: None, content }])
}

/// The parts of the disk, one behind the other; `open` gives sectors and content of each.
fn lay_out(
    lines: &[Line],
    mut open: impl FnMut(FileIndex, &Line) -> Result<(u64, Content), Error>,
) -> Result<Vec<Part>, Error> {
    let (mut parts, mut start, mut references) = (Vec::new(), 0, 0);
    for line in lines {
        let file = match line.kind {
            ExtentType::Zero => FileIndex::OWN,
            _ => {
                references += 1;
                FileIndex::of_reference(references - 1).unwrap_or_default()
            }
        };
        let (sectors, content) = open(file, line)?;
        let end = disk_end(start, sectors)?;
        // An empty part of a disk holds none of its bytes.
        parts.push(Part { start, end, file, kind: Some(line.kind), content });
        start = end;
    }
    Ok(parts)
}

fn disk_end(start: u64, sectors: u64) -> Result<u64, Error> {
    let end = sectors.checked_mul(SECTOR).and_then(|length| start.checked_add(length));
    end.filter(|&end| end <= LENGTH_MAX).ok_or_else(|| {
        let message = "Could not refresh total sector count: File too large";
        Error::new(ErrorKind::Limit, "capacity", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_descriptor_starts_with() {
        for (head, expected) in [
            ("KDMV", true),
            ("COWD", true),
            ("VMDK", false),
            ("", false),
            ("version=1\n", true),
            ("version=3\r\nx", true),
            ("version=4\n", false),
            ("version=1", false),
            ("version=1 \n", false),
            ("VERSION=1\n", false),
            ("# Disk DescriptorFile\nversion=1\n", true),
            ("# Disk DescriptorFile\r\n \r\n  \nversion=2\r\n", true),
            ("#\n\nversion=1\n", false),
            ("#\n\r\nversion=1\n", false),
            ("#\n \tversion=1\n", false),
            ("\u{feff}version=1\n", false),
            ("# version=1", false),
        ] {
            assert_eq!(probe(head.as_bytes()), expected, "{head:?}");
        }
    }
}
