//! What `qemu-img` tells of an extent, and which neighbours are one extent to it.

use alloc::{string::String, vec::Vec};

use formats::{Chain, ExtentKind, FileIndex, Image, Mapping, Storage};
use protocol::QemuVersion;

/// A file of a chain: a layer, counted from the top, and a file of it. Files that have one name in an image are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    layer: usize,
    index: FileIndex,
}

/// What extents have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Layers above the one that decides.
    pub depth: u32,
    /// Whether a layer says so itself.
    pub present: bool,
    pub zero: bool,
    pub data: bool,
    pub compressed: bool,
    /// Where the offset is one of.
    pub file: Option<File>,
}

/// An extent.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub kind: Kind,
    /// Bytes, at least 1.
    pub length: u64,
    /// Bytes from the start of the file; 0 if the kind has none.
    pub offset: u64,
}

impl Entry {
    /// Takes `next`, which follows, for a part of this extent if it is one to the release (`entry_mergeable`).
    pub fn join(&mut self, next: &Self, profile: QemuVersion) -> bool {
        let (one, two) = (self.kind, next.kind);
        let alike = (one.depth, one.zero, one.data, one.file) == (two.depth, two.zero, two.data, two.file)
            && (one.present == two.present || profile < QemuVersion::V7_2)
            && (one.compressed == two.compressed || profile < QemuVersion::V10_0);
        let follows = one.file.is_none() || self.offset.checked_add(self.length) == Some(next.offset);
        let joined = self.length.checked_add(next.length).filter(|_| alike && follows);
        self.length = joined.unwrap_or(self.length);
        joined.is_some()
    }
}

/// What holds for all extents of each layer.
pub struct Layers(Vec<Layer>);

struct Layer {
    /// Whether offsets are told.
    has_offsets: bool,
    /// For each of its references the first of that name.
    references: Vec<FileIndex>,
}

impl Layers {
    pub fn of<S: Storage>(chain: &Chain<S>) -> Self {
        Self(chain.layers().iter().map(Layer::of).collect())
    }

    /// The extent that `mapping` is, or the first `limit` bytes of it.
    pub fn entry(&self, mapping: &Mapping, limit: u64) -> Entry {
        let extent = mapping.extent;
        let (zero, data, compressed, offset) = match extent.kind {
            ExtentKind::Data { offset } => (false, true, false, Some(offset)),
            ExtentKind::Hole { offset } => (true, true, false, Some(offset)),
            ExtentKind::Compressed { .. } => (false, true, true, None),
            ExtentKind::Zero { offset } | ExtentKind::Unallocated { offset } => (true, false, false, offset),
        };
        let layer = self.0.get(mapping.layer).filter(|layer| layer.has_offsets);
        let place = layer
            .zip(offset)
            .map(|(layer, offset)| (File { layer: mapping.layer, index: layer.file(extent.file) }, offset));
        let depth = u32::try_from(mapping.layer).unwrap_or(u32::MAX);
        let file = place.map(|(file, _)| file);
        Entry {
            kind: Kind { depth, present: mapping.allocated, zero, data, compressed, file },
            length: extent.length.min(limit),
            offset: place.map_or(0, |(_, offset)| offset),
        }
    }

    /// The disk that a file is on.
    pub fn serial(&self, chain: &Chain<crate::file::File>, file: File) -> Option<String> {
        Some(chain.layers().get(file.layer)?.file(file.index)?.disk().into())
    }
}

impl Layer {
    /// Encrypted data is nowhere as it is, but LUKS images say nothing anyway.
    fn of<S: Storage>(image: &Image<S>) -> Self {
        let names = image.references();
        let first = |name| names.iter().position(|other| other == name);
        let references = names.iter().filter_map(|name| FileIndex::of_reference(first(name)?)).collect();
        Self { has_offsets: image.reports_block_status() && !image.encrypted(), references }
    }

    fn file(&self, index: FileIndex) -> FileIndex {
        index.reference().and_then(|position| self.references.get(position)).copied().unwrap_or(index)
    }
}
