//! Section "Cluster mapping", L2 table entries: what one entry says of its cluster, or of its subclusters.

use zerocopy::big_endian::U64;

use super::header::{Header, SUBCLUSTERS};

/// Bits 9 to 55 of an L1 or L2 entry: a file offset in bytes.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 0 of a standard cluster descriptor: the cluster reads as zeros.
pub(super) const ZERO: u64 = 1;
/// Bit 62: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit 63: the cluster's reference count is 1.
pub(super) const COPIED: u64 = 1 << 63;
/// Unit in bytes of the length of compressed data. Section "Cluster mapping", Compressed Clusters Descriptor.
pub(super) const COMPRESSED_SECTOR: u64 = 512;

/// What an entry says. Offsets are those of the whole cluster in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not in the image; the offset of the space set aside, if any.
    Unallocated(Option<u64>),
    /// Reads as zeros; the offset of the space set aside, if any.
    Zero(Option<u64>),
    Data(u64),
    /// The descriptor, for [`Decoder::compressed`].
    Compressed(u64),
    /// A contradiction in itself.
    Invalid,
}

impl Kind {
    /// What the entry `distance` bytes further on would say if it went on with this one's run.
    pub(super) fn advanced(self, distance: u64) -> Option<Self> {
        match self {
            Self::Unallocated(None) | Self::Zero(None) => Some(self),
            Self::Unallocated(Some(offset)) => Some(Self::Unallocated(Some(offset + distance))),
            Self::Zero(Some(offset)) => Some(Self::Zero(Some(offset + distance))),
            Self::Data(offset) => Some(Self::Data(offset + distance)),
            Self::Compressed(_) | Self::Invalid => None,
        }
    }
}

/// How entries of one image are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    cluster_bits: u32,
    extended: bool,
    data_file: bool,
}

impl Decoder {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            cluster_bits: header.cluster_bits().get(),
            extended: header.has_extended_l2(),
            data_file: header.has_data_file(),
        }
    }

    /// Words of 8 bytes that make an entry.
    pub(super) fn entry_words(self) -> usize {
        if self.extended { 2 } else { 1 }
    }

    /// Parts of a cluster that are told apart: a power of two.
    pub(super) fn subclusters(self) -> u32 {
        if self.extended { SUBCLUSTERS } else { 1 }
    }

    /// What `entry` (of [`entry_words`](Self::entry_words) words) says of the subcluster `first`, and for how many
    /// subclusters of the same cluster.
    #[inline]
    pub(super) fn decode(self, entry: &[U64], first: u32) -> (Kind, u32) {
        let descriptor = entry.first().map_or(0, |word| word.get());
        let offset = descriptor & OFFSET_MASK;
        let rest = self.subclusters() - first;
        if descriptor & COMPRESSED != 0 {
            (Kind::Compressed(descriptor), rest)
        } else if self.extended {
            let bitmap = entry.get(1).map_or(0, |word| word.get());
            self.decode_bitmap(descriptor, bitmap, first)
        } else if descriptor & ZERO != 0 {
            (Kind::Zero((offset != 0).then_some(offset)), rest)
        } else if self.is_data(descriptor) {
            (Kind::Data(offset), rest)
        } else {
            (Kind::Unallocated(None), rest)
        }
    }

    /// Section "Extended L2 Entries".
    fn decode_bitmap(self, descriptor: u64, bitmap: u64, first: u32) -> (Kind, u32) {
        let [z0, z1, z2, z3, a0, a1, a2, a3] = bitmap.to_be_bytes();
        let zero = u32::from_be_bytes([z0, z1, z2, z3]);
        let allocated = u32::from_be_bytes([a0, a1, a2, a3]);
        let offset = descriptor & OFFSET_MASK;
        let has_cluster = self.is_data(descriptor);
        let rest = SUBCLUSTERS - first;
        if if has_cluster { allocated & zero != 0 } else { allocated != 0 } {
            return (Kind::Invalid, rest);
        }
        let (kind, same) = if (zero >> first) & 1 != 0 {
            (Kind::Zero(has_cluster.then_some(offset)), (!(zero >> first)).trailing_zeros())
        } else if (allocated >> first) & 1 != 0 {
            (Kind::Data(offset), (!(allocated >> first)).trailing_zeros())
        } else {
            let reserved = has_cluster.then_some(offset);
            (Kind::Unallocated(reserved), ((zero | allocated) >> first).trailing_zeros())
        };
        (kind, same.min(rest))
    }

    /// Offset 0 is no cluster, but in a data file of its own it is the first one, told by the COPIED bit.
    fn is_data(self, descriptor: u64) -> bool {
        descriptor & OFFSET_MASK != 0 || self.data_file && descriptor & COPIED != 0
    }

    /// Compressed Clusters Descriptor: file offset of the compressed data and the most it can be long.
    pub(super) fn compressed(self, descriptor: u64) -> (u64, u64) {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = descriptor & ((1 << offset_bits) - 1);
        let sectors = (descriptor >> offset_bits) & ((1 << (self.cluster_bits - 8)) - 1);
        (offset, (sectors + 1) * COMPRESSED_SECTOR - offset % COMPRESSED_SECTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(extended: bool, data_file: bool) -> Decoder {
        Decoder { cluster_bits: 16, extended, data_file }
    }

    fn standard(descriptor: u64) -> Kind {
        decoder(false, false).decode(&[U64::new(descriptor)], 0).0
    }

    #[test]
    fn standard_entries() {
        assert_eq!(standard(0), Kind::Unallocated(None));
        assert_eq!(standard(COPIED), Kind::Unallocated(None));
        assert_eq!(standard(1), Kind::Zero(None));
        assert_eq!(standard(COPIED | 0x5_0001), Kind::Zero(Some(0x5_0000)));
        assert_eq!(standard(COPIED | 0x5_0000), Kind::Data(0x5_0000));
        assert_eq!(standard(COMPRESSED | 5), Kind::Compressed(COMPRESSED | 5));
        assert_eq!(decoder(false, true).decode(&[U64::new(COPIED)], 0), (Kind::Data(0), 1));
    }

    #[test]
    fn subclusters_of_one_kind_are_counted() {
        let extended = decoder(true, false);
        let at = |descriptor, zero: u32, allocated: u32, first| {
            let bitmap = u64::from(zero) << 32 | u64::from(allocated);
            extended.decode(&[U64::new(descriptor), U64::new(bitmap)], first)
        };
        assert_eq!(at(0, 0, 0, 3), (Kind::Unallocated(None), 29));
        assert_eq!(at(0, 0xf0, 0, 0), (Kind::Unallocated(None), 4));
        assert_eq!(at(0, 0xf0, 0, 5), (Kind::Zero(None), 3));
        assert_eq!(at(0x5_0000, 0xf0, 0x0f, 0), (Kind::Data(0x5_0000), 4));
        assert_eq!(at(0x5_0000, 0xf0, 0x0f, 4), (Kind::Zero(Some(0x5_0000)), 4));
        assert_eq!(at(0x5_0000, 0xf0, 0x0f, 8), (Kind::Unallocated(Some(0x5_0000)), 24));
        assert_eq!(at(0x5_0000, 0, u32::MAX, 0), (Kind::Data(0x5_0000), 32));
        assert_eq!(at(0x5_0000, 0, 1 << 31, 31), (Kind::Data(0x5_0000), 1));
        assert_eq!(at(0x5_0000, 1 << 31, 1 << 31, 0), (Kind::Invalid, 32));
        assert_eq!(at(0, 0, 1 << 31, 0), (Kind::Invalid, 32));
    }

    #[test]
    fn compressed_data_ends_with_its_last_sector() {
        let descriptor = COMPRESSED | 2 << 54 | 0x5_0123;
        assert_eq!(decoder(false, false).compressed(descriptor), (0x5_0123, 3 * 512 - 0x123));
    }
}
