//! CRC-32C (Castagnoli), the checksum of everything in a VHDX header section and log.

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a byte in the low end of the register turns it into.
const TABLE: [u32; 256] = table();

#[allow(clippy::cast_possible_truncation, reason = "the index is below 256")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut register = index as u32;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ if register & 1 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[index] = register;
        index += 1;
    }
    table
}

/// A checksum over bytes that come piece by piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32c(u32);

impl Crc32c {
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |register, &byte| {
            let [low, ..] = register.to_le_bytes();
            TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0) ^ register >> 8
        });
    }

    pub(super) fn get(self) -> u32 {
        !self.0
    }
}

/// The checksum of a structure that has it at bytes 4 to 7, which count as zero.
pub(super) fn of_structure(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(bytes.len().min(4));
    let mut crc = Crc32c::new();
    crc.add(head);
    crc.add(&[0; 4]);
    crc.add(rest.get(4..).unwrap_or(&[]));
    crc.get()
}

/// Puts the checksum of a structure into it.
pub(super) fn sign(bytes: &mut [u8]) {
    let checksum = of_structure(bytes);
    if let Some(place) = bytes.get_mut(4..8) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut crc = Crc32c::new();
        crc.add(bytes);
        crc.get()
    }

    /// The vectors of RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn known_sums() {
        assert_eq!(of(b"123456789"), 0xe306_9283);
        assert_eq!(of(b""), 0);
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(of(&[0xff; 32]), 0x62a8_ab43);
        let ascending: [u8; 32] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(of(&ascending), 0x46dd_794e);
    }

    #[test]
    fn the_sum_in_a_structure_does_not_count() {
        assert_eq!(of_structure(b"headABCDrest"), of(b"head\0\0\0\0rest"));
    }
}
