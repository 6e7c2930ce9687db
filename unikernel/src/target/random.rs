//! Random bytes out of the seed that the host has given.

use sha2::{Digest, Sha256};

/// A stream of bytes that nobody without the seed can tell from noise: SHA-256 of the seed and a counter.
pub struct Random {
    seed: [u8; 32],
    blocks: u64,
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, blocks: 0 }
    }

    /// The next bytes of the stream; what is left of its last block is not used again.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block =
                Sha256::new().chain_update(self.seed).chain_update(self.blocks.to_le_bytes()).finalize();
            chunk.copy_from_slice(block.get(..chunk.len()).unwrap_or_default());
            self.blocks += 1;
        }
    }

    /// Any number.
    pub fn number(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// A UUID of version 4 (RFC 9562, section 5.4).
    pub fn uuid(&mut self) -> [u8; 16] {
        let mut uuid = [0; 16];
        self.fill(&mut uuid);
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_the_same() {
        let mut random = Random::new([7; 32]);
        let (one, two) = (random.uuid(), random.uuid());
        assert_ne!(one, two);
        assert_eq!((one[6] >> 4, one[8] >> 6), (4, 2));
        let mut long = [0; 80];
        random.fill(&mut long);
        assert_ne!(long[..32], long[32..64]);
        let mut other = Random::new([8; 32]);
        assert_ne!(other.uuid(), one);
        assert_eq!(Random::new([7; 32]).uuid(), one);
    }
}
