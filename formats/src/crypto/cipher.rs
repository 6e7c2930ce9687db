//! Block ciphers and the modes they work in.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::marker::PhantomData;

use aes::{Aes128, Aes192, Aes256};
use cast5::Cast5;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit, StreamCipherCore,
};
use ctr::CtrCore;
use ctr::flavors::{Ctr64BE, Ctr128BE, CtrFlavor};
use serpent::Serpent;
use sm4::Sm4;
use twofish::Twofish;

use super::SECTOR;
use crate::{Error, ErrorKind};

/// Length in bytes of the largest block and so of every initialisation vector; ciphers with smaller blocks use its
/// beginning.
pub(super) const BLOCK_MAX: usize = 16;

/// A block cipher without the length of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Aes,
    Cast5,
    Serpent,
    Sm4,
    Twofish,
}

/// A block cipher with keys of a certain length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Algorithm {
    family: Family,
    /// Bytes of a key.
    key_len: usize,
}

/// How one sector is made of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Ecb,
    Cbc,
    Ctr,
    Xts,
}

impl Mode {
    const ALL: [(&'static str, Self); 4] =
        [("ecb", Self::Ecb), ("cbc", Self::Cbc), ("ctr", Self::Ctr), ("xts", Self::Xts)];

    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.as_bytes() == name).map(|&(_, mode)| mode)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|&&(_, mode)| mode == self).map_or("", |&(name, _)| name)
    }

    /// Keys of the cipher that the mode takes.
    pub(crate) fn keys(self) -> u32 {
        if self == Self::Xts { 2 } else { 1 }
    }
}

impl Algorithm {
    /// AES with keys of 128 bits.
    pub(crate) const AES_128: Self = Self { family: Family::Aes, key_len: 16 };

    /// The cipher of this name (`aes`, `cast5` ...) with keys of `key_len` bytes.
    pub(crate) fn find(name: &[u8], key_len: u32) -> Option<Self> {
        let family = match name {
            b"aes" => Family::Aes,
            b"cast5" => Family::Cast5,
            b"serpent" => Family::Serpent,
            b"sm4" => Family::Sm4,
            b"twofish" => Family::Twofish,
            _ => return None,
        };
        let key_len = usize::try_from(key_len).ok()?;
        let known = match family {
            Family::Cast5 | Family::Sm4 => key_len == 16,
            Family::Aes | Family::Serpent | Family::Twofish => matches!(key_len, 16 | 24 | 32),
        };
        known.then_some(Self { family, key_len })
    }

    /// The cipher of QEMU's name ([`name`](Self::name)).
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        if name == "sm4" {
            return Self::find(b"sm4", 16);
        }
        let (family, bits) = name.rsplit_once('-')?;
        let bits: u32 = bits.parse().ok()?;
        if bits.is_multiple_of(8) { Self::find(family.as_bytes(), bits / 8) } else { None }
    }

    /// Its name in a LUKS header.
    pub(crate) fn family_name(self) -> &'static str {
        match self.family {
            Family::Aes => "aes",
            Family::Cast5 => "cast5",
            Family::Serpent => "serpent",
            Family::Sm4 => "sm4",
            Family::Twofish => "twofish",
        }
    }

    /// Bytes of a key.
    pub(crate) fn key_len(self) -> usize {
        self.key_len
    }

    /// QEMU's name: the cipher and the bits of a key.
    pub(crate) fn name(self) -> String {
        match self.family {
            // Its key has but one length, which is not said.
            Family::Sm4 => "sm4".into(),
            _ => format!("{}-{}", self.family_name(), self.key_len * 8),
        }
    }

    /// The cipher that ESSIV encrypts sector numbers with, its key being a digest of `digest_len` bytes: one of the
    /// same family.
    pub(crate) fn for_essiv(self, digest_len: usize) -> Result<Self, Error> {
        let unsupported = |message: String| Err(Error::new(ErrorKind::Unsupported, "cipher-mode", message));
        let family = match self.family {
            Family::Aes => "AES",
            Family::Serpent => "Serpent",
            Family::Twofish => "Twofish",
            Family::Cast5 | Family::Sm4 if digest_len == self.key_len => return Ok(self),
            Family::Cast5 => return unsupported("Cipher cast5-128 not supported with essiv".into()),
            Family::Sm4 => return unsupported("Cipher sm4 not supported with essiv".into()),
        };
        match digest_len {
            16 | 24 | 32 => Ok(Self { key_len: digest_len, ..self }),
            _ => unsupported(format!("No {family} cipher with key size {digest_len} available")),
        }
    }

    /// The cipher in a mode, `key` being a key for each of [`Mode::keys`].
    pub(super) fn sector_cipher(self, mode: Mode, key: &[u8]) -> Result<Box<dyn SectorCipher>, Error> {
        let unsupported = || {
            let message = format!("Unsupported cipher mode {}", mode.name());
            Error::new(ErrorKind::Unsupported, "cipher-mode", message)
        };
        match (self.family, self.key_len) {
            (Family::Aes, 16) => in_mode::<Aes128>(mode, key),
            (Family::Aes, 24) => in_mode::<Aes192>(mode, key),
            (Family::Aes, _) => in_mode::<Aes256>(mode, key),
            (Family::Serpent, _) => in_mode::<Serpent>(mode, key),
            (Family::Twofish, _) => in_mode::<Twofish>(mode, key),
            // Debian's `qemu-img` knows no other mode of it.
            (Family::Sm4, _) if mode == Mode::Ecb => in_mode::<Sm4>(mode, key),
            (Family::Sm4, _) => Err(unsupported()),
            (Family::Cast5, _) => cast5_in_mode(mode, key)?.ok_or_else(unsupported),
        }
    }

    /// The cipher block by block, to encrypt sector numbers.
    pub(super) fn block_cipher(self, key: &[u8]) -> Result<Box<dyn BlockCipher>, Error> {
        Ok(match (self.family, self.key_len) {
            (Family::Aes, 16) => Box::new(keyed::<Aes128>(key)?),
            (Family::Aes, 24) => Box::new(keyed::<Aes192>(key)?),
            (Family::Aes, _) => Box::new(keyed::<Aes256>(key)?),
            (Family::Serpent, _) => Box::new(keyed::<Serpent>(key)?),
            (Family::Twofish, _) => Box::new(keyed::<Twofish>(key)?),
            (Family::Sm4, _) => Box::new(keyed::<Sm4>(key)?),
            (Family::Cast5, _) => Box::new(keyed::<Cast5>(key)?),
        })
    }
}

/// A cipher in a mode, with a key.
pub(super) trait SectorCipher: Send + Sync {
    /// Decrypts a sector or the beginning of one, whole blocks.
    fn decrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]);

    /// Encrypts a sector or the beginning of one, whole blocks.
    fn encrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]);
}

/// A cipher with a key.
pub(super) trait BlockCipher: Send + Sync {
    /// Encrypts the first block of the buffer and leaves the rest as it is.
    fn encrypt_first(&self, buffer: &mut [u8; BLOCK_MAX]);
}

impl<C: BlockCipherEncrypt + Send + Sync> BlockCipher for C {
    fn encrypt_first(&self, buffer: &mut [u8; BLOCK_MAX]) {
        if let Some(block) = Array::slice_as_chunks_mut(buffer).0.first_mut() {
            self.encrypt_block(block);
        }
    }
}

fn keyed<C: KeyInit>(key: &[u8]) -> Result<C, Error> {
    C::new_from_slice(key).map_err(|_| {
        let message = format!("Cipher key length {} is invalid", key.len());
        Error::new(ErrorKind::InvalidFormat, "key-bytes", message)
    })
}

/// What the modes here need of a cipher.
trait Cipher: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync + 'static {}

impl<C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync + 'static> Cipher for C {}

fn in_mode<C: Cipher + BlockSizeUser<BlockSize = U16>>(
    mode: Mode,
    key: &[u8],
) -> Result<Box<dyn SectorCipher>, Error> {
    Ok(match mode {
        Mode::Ecb => Box::new(Ecb(keyed::<C>(key)?)),
        Mode::Cbc => Box::new(Cbc(keyed::<C>(key)?)),
        Mode::Ctr => Box::new(Ctr(keyed::<C>(key)?, PhantomData::<Ctr128BE>)),
        Mode::Xts => {
            let (data, tweak) = key.split_at(key.len() / 2);
            Box::new(Xts { data: keyed::<C>(data)?, tweak: keyed::<C>(tweak)? })
        }
    })
}

/// Nothing for XTS, which is for blocks of 16 bytes.
fn cast5_in_mode(mode: Mode, key: &[u8]) -> Result<Option<Box<dyn SectorCipher>>, Error> {
    Ok(match mode {
        Mode::Ecb => Some(Box::new(Ecb(keyed::<Cast5>(key)?))),
        Mode::Cbc => Some(Box::new(Cbc(keyed::<Cast5>(key)?))),
        Mode::Ctr => Some(Box::new(Ctr(keyed::<Cast5>(key)?, PhantomData::<Ctr64BE>))),
        Mode::Xts => None,
    })
}

/// The blocks of a sector; what is left behind the last whole one is not touched.
fn blocks<C: BlockSizeUser>(sector: &mut [u8]) -> &mut [Block<C>] {
    Array::slice_as_chunks_mut(sector).0
}

/// The beginning of the vector, as long as a block.
fn block<C: BlockSizeUser>(iv: &[u8; BLOCK_MAX]) -> Block<C> {
    Array::slice_as_chunks(iv).0.first().cloned().unwrap_or_default()
}

/// Each block on its own.
struct Ecb<C>(C);

impl<C: Cipher> SectorCipher for Ecb<C> {
    fn decrypt(&self, _: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        self.0.decrypt_blocks(blocks::<C>(sector));
    }

    fn encrypt(&self, _: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        self.0.encrypt_blocks(blocks::<C>(sector));
    }
}

/// Cipher block chaining.
struct Cbc<C>(C);

impl<C: Cipher> SectorCipher for Cbc<C> {
    fn decrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        cbc::Decryptor::inner_iv_init(&self.0, &block::<C>(iv)).decrypt_blocks(blocks::<C>(sector));
    }

    fn encrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        cbc::Encryptor::inner_iv_init(&self.0, &block::<C>(iv)).encrypt_blocks(blocks::<C>(sector));
    }
}

/// A stream from encrypting a counter, which is a big-endian number as long as a block.
struct Ctr<C, F>(C, PhantomData<F>);

impl<C: Cipher, F: CtrFlavor<C::BlockSize> + Send + Sync> SectorCipher for Ctr<C, F> {
    fn decrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        let mut counter = CtrCore::<&C, F>::inner_iv_init(&self.0, &block::<C>(iv));
        counter.apply_keystream_blocks(blocks::<C>(sector));
    }

    fn encrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        self.decrypt(iv, sector);
    }
}

/// XEX with tweaks counted in a field of 2^128 elements (IEEE 1619), for sectors of whole blocks.
struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: Cipher + BlockSizeUser<BlockSize = U16>> Xts<C> {
    /// The tweaks of all blocks of a sector.
    fn tweaks(&self, iv: &[u8; BLOCK_MAX]) -> [u128; SECTOR / BLOCK_MAX] {
        let mut first = block::<C>(iv);
        self.tweak.encrypt_block(&mut first);
        let mut tweaks = [0; SECTOR / BLOCK_MAX];
        let mut next = u128::from_le_bytes(first.into());
        for tweak in &mut tweaks {
            *tweak = next;
            next = times_x(next);
        }
        tweaks
    }
}

/// All blocks at once: processors and implementations work on several in parallel.
impl<C: Cipher + BlockSizeUser<BlockSize = U16>> SectorCipher for Xts<C> {
    fn decrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        let (tweaks, blocks) = (self.tweaks(iv), blocks::<C>(sector));
        mask(blocks, &tweaks);
        self.data.decrypt_blocks(blocks);
        mask(blocks, &tweaks);
    }

    fn encrypt(&self, iv: &[u8; BLOCK_MAX], sector: &mut [u8]) {
        let (tweaks, blocks) = (self.tweaks(iv), blocks::<C>(sector));
        mask(blocks, &tweaks);
        self.data.encrypt_blocks(blocks);
        mask(blocks, &tweaks);
    }
}

/// The product with x in the field of XTS, modulo x^128 + x^7 + x^2 + x + 1.
fn times_x(element: u128) -> u128 {
    let carry = if element >> 127 == 0 { 0 } else { 0x87 };
    (element << 1) ^ carry
}

/// Adds to each block its tweak.
fn mask(blocks: &mut [Array<u8, U16>], tweaks: &[u128]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        let masked = u128::from_le_bytes((*block).into()) ^ tweak;
        *block = masked.to_le_bytes().into();
    }
}
