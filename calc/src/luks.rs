//! LUKS version 1: where the encrypted payload begins.
//!
//! Source: LUKS1 On-Disk Format Specification 1.2.3. The header takes eight sectors here, and the key material of
//! each of the eight key slots begins at a multiple of eight sectors (4096 bytes).

use crate::{Length, qcow2::ClusterSize};

/// Unit of every offset in a LUKS header, in bytes.
const SECTOR: u64 = 512;
/// Key slots of a header (specification, section 2.2: `LUKS_NUMKEYS`).
const SLOTS: u64 = 8;
/// Sectors of the header, and the alignment of key material, in sectors (`LUKS_ALIGN_KEYSLOTS` of 4096 bytes).
const ALIGNMENT: u64 = 8;
/// Anti-forensic stripes of a key slot (`LUKS_STRIPES`).
const STRIPES: u64 = 4000;

/// Bytes of the key of a block cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherKey {
    /// 16 bytes: aes-128, serpent-128, twofish-128, cast5-128, sm4.
    Bits128,
    /// 24 bytes: aes-192, serpent-192, twofish-192.
    Bits192,
    /// 32 bytes: aes-256, serpent-256, twofish-256.
    Bits256,
}

impl CipherKey {
    /// The key in bytes.
    ///
    /// ```
    /// assert_eq!(calc::luks::CipherKey::Bits192.bytes(), 24);
    /// ```
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bits128 => 16,
            Self::Bits192 => 24,
            Self::Bits256 => 32,
        }
    }
}

/// Whether the cipher mode needs one key or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// One key: ecb, cbc, ctr.
    Single,
    /// Two keys of the cipher's length: xts.
    Double,
}

/// Bytes in front of the payload: the header and the key material of eight slots.
///
/// The master key is the cipher's key, twice for xts. It is stored in 4000 stripes a slot, in whole sectors, aligned to
/// 4096 bytes. At most 2,068,480. Source: specification, sections 2.2-2.4; agrees with every size measured from
/// `qemu-img`. Hash, IV generator and iteration count have no influence.
///
/// ```
/// use calc::luks::{CipherKey, KeyUse, payload_offset};
/// // aes-256-xts: 64 bytes * 4000 = 500 sectors, aligned 504; (8 + 8 * 504) * 512.
/// assert_eq!(payload_offset(CipherKey::Bits256, KeyUse::Double), 2_068_480);
/// ```
pub const fn payload_offset(key: CipherKey, key_use: KeyUse) -> u64 {
    let keys = match key_use {
        KeyUse::Single => 1,
        KeyUse::Double => 2,
    };
    let material = (key.bytes() * keys * STRIPES).div_ceil(SECTOR);
    (ALIGNMENT + SLOTS * material.next_multiple_of(ALIGNMENT)) * SECTOR
}

/// Bytes of a LUKS image of a disk of `size` bytes, which is *not* rounded to sectors. Below 2^63 + 2^21.
///
/// As measured from `qemu-img`: an image with data and an empty one take the same.
///
/// ```
/// use calc::{Length, luks::{self, CipherKey, KeyUse}};
/// let one = Length::new(1).unwrap();
/// assert_eq!(luks::image_length(CipherKey::Bits256, KeyUse::Double, one), 2_068_481);
/// ```
pub const fn image_length(key: CipherKey, key_use: KeyUse, size: Length) -> u64 {
    payload_offset(key, key_use) + size.bytes()
}

/// Bytes that the LUKS header takes inside an encrypted qcow2 image: [`payload_offset`] rounded up to whole clusters.
///
/// At most 4 MiB. Source: qcow2 specification, "Full disk encryption header pointer"; the rounding as measured from
/// `qemu-img`.
///
/// ```
/// use calc::{luks::{self, CipherKey, KeyUse}, qcow2::ClusterSize};
/// assert_eq!(luks::length_in_qcow2(CipherKey::Bits256, KeyUse::Double, ClusterSize::DEFAULT), 32 * 65536);
/// ```
pub const fn length_in_qcow2(key: CipherKey, key_use: KeyUse, cluster_size: ClusterSize) -> u64 {
    payload_offset(key, key_use).next_multiple_of(cluster_size.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_those_measured_from_qemu_img() {
        for (key, key_use, payload) in [
            (CipherKey::Bits256, KeyUse::Double, 2_068_480),
            (CipherKey::Bits192, KeyUse::Double, 1_544_192),
            (CipherKey::Bits128, KeyUse::Double, 1_052_672),
            (CipherKey::Bits256, KeyUse::Single, 1_052_672),
            (CipherKey::Bits128, KeyUse::Single, 528_384),
        ] {
            assert_eq!(payload_offset(key, key_use), payload, "{key:?} {key_use:?}");
        }
    }

    #[test]
    fn the_longest_disk_does_not_overflow() {
        let image = image_length(CipherKey::Bits256, KeyUse::Double, Length::MAX);
        assert_eq!(image, (1 << 63) + 2_068_480);
    }
}
