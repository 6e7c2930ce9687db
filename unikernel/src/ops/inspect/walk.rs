//! Where the bytes of the disk are: that all of it can be followed, that it is inside the file, no place of which is taken
//! twice, and that what is compressed can be decoded.

use alloc::{format, vec};

use formats::{Area, Codec, Error, Extent, ExtentKind, FileIndex, Format, Image, Storage};
use protocol::{Code, MappingInfo};

use super::{
    findings::Findings,
    space::{Overlaps, Space},
};

/// Bytes of the disk that are decoded, to see that they can be; the last cluster may be over it.
pub const DECODED_MAX: u64 = 64 << 20;

/// Longest cluster that is decoded, in bytes: qcow2's and VMDK's.
const CLUSTER_MAX: u64 = 2 << 20;

/// Unit of the length of files to `qemu-img`.
const SECTOR: u64 = 512;

/// Walks over the mapping. There is none where the tables do not hold together, or where it takes another file; an error
/// is not the image's fault.
pub fn mapping<S: Storage>(
    image: &mut Image<S>,
    findings: &mut Findings,
) -> Result<Option<MappingInfo>, Error> {
    let mut walk = Walk { end: image.storage().len(), space: Space::default(), decoded: 0, findings };
    if let Err(error) = image.visit_areas(|area| walk.area(area)) {
        walk.findings.error(error)?;
    }
    let (mut info, mut offset) = (MappingInfo::default(), 0);
    while offset < image.virtual_size() {
        let extent = match image.extent_at(offset) {
            Ok(extent) => extent,
            Err(error) => {
                walk.findings.error(error)?;
                return Ok(None);
            }
        };
        let sum = match extent.kind {
            ExtentKind::Unallocated { .. } => &mut info.unallocated,
            ExtentKind::Zero { .. } | ExtentKind::Hole { .. } => &mut info.zero,
            ExtentKind::Data { .. } => &mut info.data,
            ExtentKind::Compressed { .. } => &mut info.compressed,
        };
        *sum = sum.saturating_add(extent.length);
        walk.extent(image, &extent)?;
        offset = offset.saturating_add(extent.length.max(1));
    }
    walk.compare(image.format());
    Ok(Some(info))
}

struct Walk<'a> {
    /// Length of the image's own file in bytes.
    end: u64,
    space: Space,
    /// Bytes of the disk that were decoded.
    decoded: u64,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    fn area(&mut self, Area { name, offset, length }: Area) {
        if offset.saturating_add(length) > self.end.next_multiple_of(SECTOR) {
            let message = format!("The {name} at {offset:#x} lies past the end of the file");
            self.findings.add(Code::PastTheEnd, name, message);
        }
        self.space.take(offset, length);
    }

    fn extent<S: Storage>(&mut self, image: &mut Image<S>, extent: &Extent) -> Result<(), Error> {
        if extent.file != FileIndex::OWN {
            return Ok(());
        }
        match extent.kind {
            ExtentKind::Unallocated { .. } | ExtentKind::Zero { offset: None } => {}
            ExtentKind::Data { offset }
            | ExtentKind::Hole { offset }
            | ExtentKind::Zero { offset: Some(offset) } => {
                self.inside(extent, offset, extent.length);
                self.space.take(offset, extent.length);
            }
            ExtentKind::Compressed { offset, .. } => {
                // How long a stream really is its decoder knows. Streams may share sectors, but not begin together; a part
                // of a cluster is not its start.
                self.inside(extent, offset, 1);
                if is_start(image, extent) {
                    self.space.take(offset, 1);
                    self.decode(image, extent)?;
                }
            }
        }
        Ok(())
    }

    fn inside(&mut self, extent: &Extent, offset: u64, length: u64) {
        if offset.saturating_add(length) > self.end.next_multiple_of(SECTOR) {
            let message = format!(
                "Data of the disk at {:#x} is at {offset:#x}, past the end of the file",
                extent.start
            );
            self.findings.add(Code::PastTheEnd, "data", message);
        }
    }

    fn decode<S: Storage>(&mut self, image: &mut Image<S>, extent: &Extent) -> Result<(), Error> {
        let stream = match image.stream(extent) {
            Ok(stream) => stream,
            Err(error) => return self.findings.error(error),
        };
        let decodable = stream.is_some_and(|stream| {
            stream.cluster_len <= CLUSTER_MAX && !matches!(stream.codec, Codec::Bzip2 | Codec::Lzfse)
        });
        if !decodable || self.decoded >= DECODED_MAX {
            let message = "Not all that is compressed was decoded";
            self.findings.add(Code::NotAllDecoded, "compressed cluster", message);
            return Ok(());
        }
        self.decoded = self.decoded.saturating_add(extent.length);
        let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or(0)];
        match image.read_extent(extent, 0, &mut bytes) {
            Ok(()) => Ok(()),
            Err(error) => self.findings.error(error),
        }
    }

    /// Compares all parts with each other. Chunks of a DMG may be the same, and what is raw is itself.
    fn compare(self, format: Format) {
        if matches!(format, Format::Dmg | Format::Raw) {
            return;
        }
        match self.space.overlaps() {
            Overlaps::None => {}
            Overlaps::At(offset) => {
                let message = format!("What is at {offset:#x} in the file is used twice");
                self.findings.add(Code::Overlap, "file", message);
            }
            Overlaps::Unknown => {
                let message = "It is in too many pieces to compare all of them";
                self.findings.add(Code::NotAllCompared, "file", message);
            }
        }
    }
}

/// Whether the extent begins where its cluster does.
fn is_start<S: Storage>(image: &mut Image<S>, extent: &Extent) -> bool {
    image.stream(extent).ok().flatten().is_none_or(|stream| stream.skip == 0)
}
