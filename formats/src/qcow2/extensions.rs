//! Section "Header", its extensions.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::header::Header;
use super::types::CryptMethod;
use crate::access::Access;
use crate::crypto::DiskCipher;
use crate::luks::{self, Area, LuksInfo};
use crate::reader::{Reader, c_string};
use crate::{Error, ErrorKind, Storage};

pub(super) const END: u32 = 0;
pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;
pub(super) const FEATURE_NAMES: u32 = 0x6803_f857;
pub(super) const BITMAPS: u32 = 0x2385_2875;
pub(super) const CRYPTO_HEADER: u32 = 0x0537_be77;
pub(super) const DATA_FILE: u32 = 0x4441_5441;

/// Longest name of a backing format plus one: the room QEMU has for it.
const BACKING_FORMAT_ROOM: u32 = 16;
/// Longest name of a data file in bytes: Linux's PATH_MAX. QEMU sets no limit but the cluster.
const DATA_FILE_NAME_MAX: u32 = 4096;
/// Most bitmaps: QEMU's limit.
pub(super) const BITMAPS_MAX: u32 = 65535;
/// Largest bitmap directory in bytes that QEMU takes.
const BITMAP_DIRECTORY_MAX: u64 = 1024 * BITMAPS_MAX as u64;

/// An extension's own header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Head {
    pub(super) kind: U32,
    pub(super) length: U32,
}

/// Section "Full disk encryption header pointer".
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CryptoHeader {
    pub(super) offset: U64,
    pub(super) length: U64,
}

/// Section "Bitmaps extension".
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct BitmapsExtension {
    pub(super) nb_bitmaps: U32,
    pub(super) reserved: U32,
    pub(super) directory_size: U64,
    pub(super) directory_offset: U64,
}

/// Section "Feature name table".
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FeatureName {
    kind: u8,
    bit: u8,
    name: [u8; 46],
}

/// Where the bitmap directory is, as the header extension gives it.
#[derive(Clone, Debug)]
pub(super) struct BitmapDirectory {
    /// Number of bitmaps, 1 to 65535.
    pub(super) count: u32,
    /// File offset in bytes, a multiple of the cluster size.
    pub(super) offset: u64,
    /// Length in bytes, at most 64 MiB less 1 KiB.
    pub(super) length: u64,
}

/// What the LUKS header says, and what it is for.
#[derive(Debug)]
pub(super) struct Encryption {
    /// Where the header is.
    pub(super) area: Area,
    pub(super) info: LuksInfo,
    /// Absent if the image was opened without a key, to say what it is.
    pub(super) decryptor: Option<DiskCipher>,
}

/// What the known extensions say.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) backing_format: Option<Vec<u8>>,
    pub(super) data_file: Option<Vec<u8>>,
    pub(super) bitmaps: Option<BitmapDirectory>,
    pub(super) encryption: Option<Encryption>,
    /// There are bitmaps, but the data changed without them.
    pub(super) stale_bitmaps: bool,
}

/// An extension found on the way through the header: its kind and the length of its data, which comes next.
type Found = Option<(u32, u32)>;

/// Goes to the next extension. `end` is where the last one must end.
fn next<S: Storage>(reader: &mut Reader<'_, S>, end: u64) -> Result<Found, Error> {
    if reader.position() >= end {
        return Ok(None);
    }
    let head: Head = reader.record()?;
    let length = head.length.get();
    if end.checked_sub(reader.position()).is_none_or(|room| u64::from(length) > room) {
        return Err(invalid("Header extension too large"));
    }
    Ok(Some((head.kind.get(), length)).filter(|&(kind, _)| kind != END))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, "header extension", message)
}

impl Extensions {
    pub(super) fn read<S: Storage>(
        reader: &mut Reader<'_, S>,
        header: &Header,
        access: Access<'_>,
    ) -> Result<Self, Error> {
        let (start, end) = header.extension_area();
        reader.seek(start);
        let mut extensions = Self::default();
        while let Some((kind, length)) = next(reader, end)? {
            let data = reader.position();
            match kind {
                BACKING_FORMAT => extensions.backing_format = Some(backing_format(reader, length)?),
                CRYPTO_HEADER => {
                    extensions.encryption = Some(crypto_header(reader, length, header, access)?);
                }
                BITMAPS => match bitmaps(reader, length, header)? {
                    Some(directory) => extensions.bitmaps = Some(directory),
                    None => extensions.stale_bitmaps = true,
                },
                DATA_FILE => extensions.data_file = Some(data_file(reader, length)?),
                _ => {}
            }
            let read = reader.position() - data;
            reader.skip(u64::from(length).next_multiple_of(8).saturating_sub(read));
        }
        Ok(extensions)
    }
}

fn backing_format<S: Storage>(reader: &mut Reader<'_, S>, length: u32) -> Result<Vec<u8>, Error> {
    match usize::try_from(length) {
        Ok(length) if length < BACKING_FORMAT_ROOM as usize => Ok(c_string(reader.bytes(length)?)),
        _ => {
            let room = BACKING_FORMAT_ROOM;
            Err(invalid(format!("ERROR: ext_backing_format: len={length} too large (>={room})")))
        }
    }
}

fn data_file<S: Storage>(reader: &mut Reader<'_, S>, length: u32) -> Result<Vec<u8>, Error> {
    match usize::try_from(length) {
        Ok(length) if length <= DATA_FILE_NAME_MAX as usize => Ok(c_string(reader.bytes(length)?)),
        _ => Err(Error::new(ErrorKind::Limit, "external data file name", "Data file name too long")),
    }
}

fn crypto_header<S: Storage>(
    reader: &mut Reader<'_, S>,
    length: u32,
    header: &Header,
    access: Access<'_>,
) -> Result<Encryption, Error> {
    if header.crypt_method() != CryptMethod::Luks {
        return Err(invalid("CRYPTO header extension only expected with LUKS encryption method"));
    }
    let expected = size_of::<CryptoHeader>();
    if usize::try_from(length) != Ok(expected) {
        return Err(invalid(format!("CRYPTO header extension size {length}, but expected size {expected}")));
    }
    let pointer: CryptoHeader = reader.record()?;
    let offset = pointer.offset.get();
    if !header.cluster_bits().aligned(offset) {
        let cluster_size = header.cluster_bits().size();
        return Err(invalid(format!(
            "Encryption header offset '{offset}' is not a multiple of cluster size '{cluster_size}'"
        )));
    }
    let password = match access {
        Access::Metadata | Access::Check => None,
        Access::Data(key) => Some(key.password("Parameter 'encrypt.key-secret' is required for cipher")?),
    };
    let storage = reader.storage();
    let area = Area { offset, length: pointer.length.get() };
    let luks = luks::Header::read(storage, area)?;
    let decryptor = match password {
        None => None,
        Some(password) => Some(luks.unlock(storage, password)?),
    };
    Ok(Encryption { area, info: LuksInfo::new(&luks), decryptor })
}

fn bitmaps<S: Storage>(
    reader: &mut Reader<'_, S>,
    length: u32,
    header: &Header,
) -> Result<Option<BitmapDirectory>, Error> {
    if usize::try_from(length) != Ok(size_of::<BitmapsExtension>()) {
        return Err(invalid("bitmaps_ext: Invalid extension length"));
    }
    if !header.bitmaps_consistent() {
        return Ok(None);
    }
    let extension: BitmapsExtension = reader.record()?;
    let directory = BitmapDirectory {
        count: extension.nb_bitmaps.get(),
        offset: extension.directory_offset.get(),
        length: extension.directory_size.get(),
    };
    if extension.reserved.get() != 0 {
        return Err(invalid("bitmaps_ext: Reserved field is not zero"));
    }
    if directory.count > BITMAPS_MAX {
        return Err(invalid(format!(
            "bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of {BITMAPS_MAX}",
            directory.count
        )));
    }
    if directory.count == 0 {
        return Err(invalid("found bitmaps extension with zero bitmaps"));
    }
    if !header.cluster_bits().aligned(directory.offset) {
        return Err(invalid("bitmaps_ext: invalid bitmap directory offset"));
    }
    if directory.length > BITMAP_DIRECTORY_MAX {
        return Err(invalid(format!(
            "bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported size ({BITMAP_DIRECTORY_MAX})",
            directory.length
        )));
    }
    Ok(Some(directory))
}

/// The message about incompatible features that are not known: by the names the image itself has for them.
pub(super) fn unsupported_features<S: Storage>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    unknown: u64,
) -> Result<String, Error> {
    let mut rest = unknown;
    let mut names = Vec::new();
    if let Some((start, length)) = feature_names(reader, header) {
        reader.seek(start);
        let mut left = length;
        while rest != 0 && left != 0 {
            let bytes = reader.bytes(size_of::<FeatureName>().min(left))?;
            left -= bytes.len();
            let mut padded = [0; size_of::<FeatureName>()];
            padded[..bytes.len()].copy_from_slice(&bytes);
            let feature: FeatureName = zerocopy::transmute!(padded);
            let name = c_string(feature.name.to_vec());
            if name.is_empty() {
                break;
            }
            let mask = 1u64.checked_shl(u32::from(feature.bit)).unwrap_or(0);
            if feature.kind == 0 && rest & mask != 0 {
                names.push(String::from_utf8_lossy(&name).into_owned());
                rest &= !mask;
            }
        }
    }
    if rest != 0 {
        names.push(format!("Unknown incompatible feature: {rest:x}"));
    }
    Ok(format!("Unsupported qcow2 feature(s): {}", names.join(", ")))
}

/// File offset and length in bytes of the feature name table, as far as the extensions make sense up to there.
fn feature_names<S: Storage>(reader: &mut Reader<'_, S>, header: &Header) -> Option<(u64, usize)> {
    let (start, end) = header.extension_area();
    reader.seek(start);
    let mut table = None;
    while let Ok(Some((kind, length))) = next(reader, end) {
        match kind {
            FEATURE_NAMES => table = Some((reader.position(), usize::try_from(length).ok()?)),
            CRYPTO_HEADER => break,
            _ => {}
        }
        reader.skip(u64::from(length).next_multiple_of(8));
    }
    table
}
