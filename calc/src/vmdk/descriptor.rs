//! The length of a descriptor in a file of its own.
//!
//! It has the names of the extents in it, which begin as the name of the image does; here that is `disk.vmdk`, so that
//! extents are `disk-flat.vmdk`, or `disk-s001.vmdk` and on.

use super::{SECTOR, SPLIT, Subformat};
use crate::Length;

/// The text, its variable parts left out. The two content ids are 8 digits each; `qemu-img` draws the first and
/// leaves leading zeros out, one descriptor in 16 is a byte shorter for that.
const TEXT: &str = "# Disk DescriptorFile\nversion=1\nCID=00000000\nparentCID=ffffffff\ncreateType=\"\"\n\
    \n# Extent description\n\
    \n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"\"\nddb.geometry.cylinders = \"\"\n\
    ddb.geometry.heads = \"\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"\"\n";
const TOOLS_VERSION: &str = "ddb.toolsVersion = \"\"\n";
const PARENT: &str = "parentFileNameHint=\"\"\n";
/// An extent, the number of its sectors left out.
const SPARSE_EXTENT: &str = "RW  SPARSE \"disk-s.vmdk\"\n";
const FLAT_EXTENT: &str = "RW  FLAT \"disk-f.vmdk\" 0\n";
const WHOLE_EXTENT: &str = "RW  FLAT \"disk-flat.vmdk\" 0\n";

/// The disk controller that the descriptor names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adapter {
    /// `ide`: 16 heads.
    #[default]
    Ide,
    /// `lsilogic`: 255 heads, as the others.
    LsiLogic,
    /// `buslogic`
    BusLogic,
    /// `legacyESX`
    LegacyEsx,
}

impl Adapter {
    /// The controller's name, as it stands in the descriptor and in the option `adapter_type`.
    ///
    /// ```
    /// assert_eq!(calc::vmdk::Adapter::LegacyEsx.name(), "legacyESX");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::LsiLogic => "lsilogic",
            Self::BusLogic => "buslogic",
            Self::LegacyEsx => "legacyESX",
        }
    }

    const fn heads(self) -> u64 {
        match self {
            Self::Ide => 16,
            Self::LsiLogic | Self::BusLogic | Self::LegacyEsx => 255,
        }
    }
}

/// The name that the descriptor and the option `subformat` have.
pub(super) const fn name(subformat: Subformat) -> &'static str {
    match subformat {
        Subformat::MonolithicSparse => "monolithicSparse",
        Subformat::StreamOptimized => "streamOptimized",
        Subformat::MonolithicFlat => "monolithicFlat",
        Subformat::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
        Subformat::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
    }
}

/// How much `qemu-img` writes when it gives the image another content id, which it does with the first data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// Whole sectors.
    #[default]
    Sectors,
    /// 20 sectors: before 7.2.
    Embedded,
}

/// What the length of a descriptor depends on: texts by their lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The disk controller.
    pub adapter: Adapter,
    /// Bytes of the version of the virtual hardware.
    pub hardware_version: u32,
    /// Bytes of the version of VMware's tools; absent where there is no line for it.
    pub tools_version: Option<u32>,
    /// Bytes of the name of the backing file.
    pub backing_name: Option<u32>,
    /// What becomes of it when data is written.
    pub rewrite: Rewrite,
}

impl Default for Descriptor {
    /// Hardware version `4`, tools version `2147483647`.
    fn default() -> Self {
        Self {
            adapter: Adapter::Ide,
            hardware_version: 1,
            tools_version: Some(10),
            backing_name: None,
            rewrite: Rewrite::Sectors,
        }
    }
}

impl Descriptor {
    /// Bytes of the file. Below 2^44.
    pub(super) fn length(&self, disk: Length, subformat: Subformat, written: bool) -> u64 {
        let text = self.text(disk.bytes(), subformat);
        match self.rewrite {
            _ if !written => text,
            Rewrite::Sectors => text.next_multiple_of(SECTOR),
            Rewrite::Embedded => text.max(20 * SECTOR),
        }
    }

    fn text(&self, disk: u64, subformat: Subformat) -> u64 {
        let heads = self.adapter.heads();
        let line = |text: &str, value: u32| bytes(text) + u64::from(value);
        bytes(TEXT)
            + bytes(name(subformat))
            + self.backing_name.map_or(0, |name| line(PARENT, name))
            + extents(disk, subformat)
            + u64::from(self.hardware_version)
            + digits(disk / (63 * heads * SECTOR))
            + digits(heads)
            + bytes(self.adapter.name())
            + self.tools_version.map_or(0, |version| line(TOOLS_VERSION, version))
    }
}

/// Bytes of the lines about the extents.
fn extents(disk: u64, subformat: Subformat) -> u64 {
    let line = match subformat {
        Subformat::MonolithicFlat => WHOLE_EXTENT,
        Subformat::TwoGbMaxExtentFlat => FLAT_EXTENT,
        _ => SPARSE_EXTENT,
    };
    if disk == 0 {
        return 0;
    }
    if subformat == Subformat::MonolithicFlat {
        return bytes(line) + digits(disk / SECTOR);
    }
    let count = disk.div_ceil(SPLIT);
    let last = disk - (count - 1) * SPLIT;
    count * bytes(line) + (count - 1) * digits(SPLIT / SECTOR) + digits(last / SECTOR) + numbers(count)
}

/// Digits of the numbers from 1 to `count`, with 3 digits at least. Of 2^33 extents at most.
fn numbers(count: u64) -> u64 {
    // One digit more for each number from 1000, from 10000, ... on.
    let more: u64 = (3..11).map(|power| count.saturating_sub(10_u64.pow(power) - 1)).sum();
    3 * count + more
}

/// Decimal digits of a number.
fn digits(number: u64) -> u64 {
    number.checked_ilog10().map_or(1, |log| u64::from(log) + 1)
}

const fn bytes(text: &str) -> u64 {
    text.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_extents_grow_with_their_numbers() {
        assert_eq!((numbers(1), numbers(999), numbers(1000), numbers(10_000)), (3, 2997, 3001, 39_002));
        assert_eq!((digits(0), digits(9), digits(10), digits(u64::MAX)), (1, 1, 2, 20));
    }

    #[test]
    fn a_descriptor_is_as_long_as_measured() {
        let of =
            |size: u64, subformat| Descriptor::default().length(Length::new(size).unwrap(), subformat, false);
        // Measured with the name t.img, which is four bytes shorter.
        assert_eq!(of(5 << 30, Subformat::TwoGbMaxExtentFlat), 409 + 3 * 4);
        assert_eq!(of(5 << 30, Subformat::MonolithicFlat), 344 + 4);
        assert_eq!(of(5 << 30, Subformat::TwoGbMaxExtentSparse), 411 + 3 * 4);
        assert_eq!(of(0, Subformat::TwoGbMaxExtentSparse), 314);
    }
}
