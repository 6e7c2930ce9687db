//! VHD images, which `qemu-img` calls vpc: footer copy, dynamic header, block allocation table (BAT), blocks behind
//! their sector bitmaps, footer; or the disk and a footer.
//!
//! Source: Microsoft's Virtual Hard Disk Image Format Specification 1.0, "CHS calculation" in its appendix included;
//! the choices are those measured from `qemu-img`.

use crate::{Length, NewImage, blocks::Blocks};

const SECTOR: u64 = 512;
/// Bytes of a block's data.
const BLOCK: u64 = 2 << 20;
/// Bytes of the sector bitmap in front of a block's data: a bit a sector.
const BITMAP: u64 = BLOCK / SECTOR / 8;
/// Bytes in front of the BAT: the copy of the footer, and the dynamic header.
const HEADERS: u64 = 512 + 1024;
const FOOTER: u64 = 512;
/// Most sectors that cylinders, heads and sectors can express.
const MAX_GEOMETRY: u64 = 65535 * 16 * 255;

/// The longest disk `qemu-img` makes an image for, in bytes: 2040 GiB.
pub const MAX_SIZE: u64 = 2040 << 30;

/// Whether blocks come to be when they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They do.
    Dynamic,
    /// All of the disk is there from the start, and nothing else but a footer.
    Fixed,
}

/// What becomes of a size that cylinders, heads and sectors do not express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The disk grows to the next one they do.
    Geometry,
    /// The disk has the size asked for (`force_size`).
    Forced,
}

/// A VHD image that is being written.
///
/// ```
/// use calc::{Length, NewImage, vpc::{Image, Kind, Size}};
/// let gibibyte = Length::new(1 << 30).unwrap();
/// let image = Image::new(gibibyte, Kind::Dynamic, Size::Geometry).unwrap();
/// assert_eq!(image.disk().bytes(), 1_073_995_776); // 2081 cylinders, 16 heads, 63 sectors
/// assert_eq!(image.length(), 1536 + 2560 + 512); // 513 blocks
/// assert_eq!(Image::new(gibibyte, Kind::Fixed, Size::Forced).unwrap().length(), (1 << 30) + 512);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    kind: Kind,
    data: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors; `None` above [`MAX_SIZE`].
    ///
    /// ```
    /// use calc::{Length, vpc::{Image, Kind, MAX_SIZE, Size}};
    /// let image = |size| Image::new(Length::new(size).unwrap(), Kind::Dynamic, Size::Geometry);
    /// assert!(image(MAX_SIZE).is_some() && image(MAX_SIZE + 1).is_none());
    /// ```
    pub fn new(size: Length, kind: Kind, rule: Size) -> Option<Self> {
        let asked = size.sectors();
        if asked.bytes() > MAX_SIZE {
            return None;
        }
        let sectors = asked.bytes() / SECTOR;
        let grown = match rule {
            Size::Geometry => round_to_geometry(sectors),
            Size::Forced => MAX_GEOMETRY,
        };
        // The largest geometry stands for "look at the size instead".
        let disk = if grown == MAX_GEOMETRY { asked } else { Length::new(grown * SECTOR)? };
        Some(Self { disk, kind, data: Blocks::new(BLOCK) })
    }
}

impl NewImage for Image {
    fn disk(&self) -> Length {
        self.disk
    }

    fn empty(&self) -> Self {
        Self { data: self.data.empty(), ..*self }
    }

    fn write(&mut self, start: Length, end: Length) {
        self.data.write(start, end);
    }

    fn length(&self) -> u64 {
        match self.kind {
            Kind::Fixed => self.disk.bytes() + FOOTER,
            Kind::Dynamic => {
                let table = (self.disk.bytes().div_ceil(BLOCK) * 4).next_multiple_of(SECTOR);
                HEADERS + table + self.data.count() * (BITMAP + BLOCK) + FOOTER
            }
        }
    }
}

/// The fewest sectors, not below `sectors`, that a geometry has; the largest geometry for what none has.
fn round_to_geometry(sectors: u64) -> u64 {
    let sectors = sectors.min(MAX_GEOMETRY);
    // A geometry leaves out less than a cylinder: 255 sectors for each of 16 heads.
    (sectors..).map(geometry).find(|&expressed| expressed >= sectors).unwrap_or(MAX_GEOMETRY)
}

/// Sectors of the geometry that the specification gives a disk of so many sectors: at most those, usually fewer.
fn geometry(sectors: u64) -> u64 {
    let sectors = sectors.min(MAX_GEOMETRY);
    let (per_track, heads) = if sectors >= 65535 * 16 * 63 {
        (255, 16)
    } else {
        let tracks = sectors / 17;
        let heads = tracks.div_ceil(1024).max(4);
        match tracks {
            _ if tracks < heads * 1024 && heads <= 16 => (17, heads),
            _ if sectors / 31 < 16 * 1024 => (31, 16),
            _ => (63, 16),
        }
    };
    sectors / per_track / heads * heads * per_track
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        for (sectors, expressed) in [
            (0, 0),
            (1, 68),
            (2048, 2108),
            (20480, 20536),
            (2 << 20, 2_097_648),
            (MAX_GEOMETRY, MAX_GEOMETRY),
            (MAX_GEOMETRY + 1, MAX_GEOMETRY),
        ] {
            assert_eq!(round_to_geometry(sectors), expressed, "{sectors}");
        }
    }

    #[test]
    fn a_geometry_is_found_for_every_size() {
        for sectors in (0..MAX_GEOMETRY).step_by(99_991).chain([65535 * 16 * 63 - 1, 65535 * 16 * 63]) {
            let rounded = round_to_geometry(sectors);
            assert!(rounded >= sectors && rounded - sectors < 16 * 255, "{sectors}");
            assert_eq!(round_to_geometry(rounded), rounded, "{sectors}");
        }
    }
}
