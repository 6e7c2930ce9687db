//! One bit a sector: whether a sector of a differencing image is in this image or in its parent.

use alloc::vec::Vec;

use crate::{Error, Storage};

/// Bytes of a bitmap in memory at a time; a run of bits ends there at the latest.
const CHUNK_LEN: u64 = 4096;

/// Which bit of a byte stands for its first sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BitOrder {
    MostSignificantFirst,
    LeastSignificantFirst,
}

/// Reads bitmaps, a chunk of one at a time.
#[derive(Debug)]
pub(crate) struct SectorBitmap {
    order: BitOrder,
    chunk: Vec<u8>,
    /// File offset of the chunk.
    offset: u64,
}

impl SectorBitmap {
    pub(crate) fn new(order: BitOrder) -> Self {
        Self { order, chunk: Vec::new(), offset: 0 }
    }

    /// The bit number `first` of the bitmap at the file offset `bitmap`, and how many from it on (at least 1, at most
    /// `count`, itself at least 1) are the same.
    pub(crate) fn run<S: Storage>(
        &mut self,
        storage: &mut S,
        bitmap: u64,
        first: u64,
        count: u64,
    ) -> Result<(bool, u64), Error> {
        let offset = bitmap.saturating_add(first / 8 / CHUNK_LEN * CHUNK_LEN);
        if self.chunk.is_empty() || self.offset != offset {
            self.chunk.clear();
            self.chunk.resize(usize::try_from(CHUNK_LEN).unwrap_or(0), 0);
            self.offset = offset;
            let result = storage.read_at(offset, &mut self.chunk);
            if result.is_err() {
                self.chunk.clear();
            }
            result?;
        }
        let within = first % (CHUNK_LEN * 8);
        let end = within.saturating_add(count).min(CHUNK_LEN * 8);
        let set = self.bit(within);
        let mut bit = within + 1;
        while bit < end {
            let whole = if set { 0xff } else { 0 };
            if bit.is_multiple_of(8) && end - bit >= 8 && self.byte(bit) == whole {
                bit += 8;
            } else if self.bit(bit) == set {
                bit += 1;
            } else {
                break;
            }
        }
        Ok((set, bit - within))
    }

    fn byte(&self, bit: u64) -> u8 {
        usize::try_from(bit / 8).ok().and_then(|at| self.chunk.get(at)).copied().unwrap_or(0)
    }

    fn bit(&self, bit: u64) -> bool {
        let mask = match self.order {
            BitOrder::MostSignificantFirst => 0x80 >> (bit % 8),
            BitOrder::LeastSignificantFirst => 1 << (bit % 8),
        };
        self.byte(bit) & mask != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn bits_are_counted_in_either_order() {
        let mut bytes = vec![0u8; 10_000];
        bytes[8..12].copy_from_slice(&[0b1110_0000, 0xff, 0xff, 0b0000_0001]);
        let mut storage = &bytes[..];
        let mut most = SectorBitmap::new(BitOrder::MostSignificantFirst);
        assert_eq!(most.run(&mut storage, 8, 0, 100), Ok((true, 3)));
        assert_eq!(most.run(&mut storage, 8, 1, 1), Ok((true, 1)));
        assert_eq!(most.run(&mut storage, 8, 3, 100), Ok((false, 5)));
        assert_eq!(most.run(&mut storage, 8, 8, 100), Ok((true, 16)));
        assert_eq!(most.run(&mut storage, 8, 24, 100), Ok((false, 7)));
        let mut least = SectorBitmap::new(BitOrder::LeastSignificantFirst);
        assert_eq!(least.run(&mut storage, 8, 0, 100), Ok((false, 5)));
        assert_eq!(least.run(&mut storage, 8, 5, 100), Ok((true, 20)));
        assert_eq!(least.run(&mut storage, 8, 25, 1 << 40), Ok((false, 32768 - 25)));
    }
}
