//! The header cluster of a new image, as `qemu-img` writes it. Section "Header".

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use super::super::extensions::{
    BACKING_FORMAT, BITMAPS, BitmapsExtension, CRYPTO_HEADER, CryptoHeader, DATA_FILE, END, FEATURE_NAMES,
    Head,
};
use super::super::header::{AUTOCLEAR_BITMAPS, Fields, HEADER_LEN_V2};
use super::super::types::Version;
use crate::{Error, ErrorKind};

/// Smallest cluster that has the feature name table in it.
const FEATURES_ROOM: u64 = 8192;
/// Length of a name in the feature name table in bytes.
const FEATURE_NAME_LEN: usize = 46;
/// Names of features: kind (incompatible, compatible, autoclear), bit, name.
const FEATURES: [(u8, u8, &[u8]); 8] = [
    (0, 0, b"dirty bit"),
    (0, 1, b"corrupt bit"),
    (0, 2, b"external data file"),
    (0, 3, b"compression type"),
    (0, 4, b"extended L2 entries"),
    (1, 0, b"lazy refcounts"),
    (2, 0, b"bitmaps"),
    (2, 1, b"raw external data"),
];

/// What stands in the header cluster.
#[derive(Debug)]
pub(super) struct HeaderCluster {
    pub(super) version: Version,
    /// But for what is derived from the rest: the backing file's place and the header's length.
    pub(super) fields: Fields,
    pub(super) backing: Option<Vec<u8>>,
    pub(super) backing_format: Option<Vec<u8>>,
    pub(super) data_file: Option<Vec<u8>>,
    /// File offset and length in bytes of a LUKS header.
    pub(super) crypto: Option<(u64, u64)>,
    /// Number of bitmaps, length of their directory in bytes and its file offset.
    pub(super) bitmaps: Option<(u32, u64, u64)>,
}

impl HeaderCluster {
    /// The bytes of the cluster, of `cluster` bytes.
    pub(super) fn bytes(&self, cluster: u64) -> Result<Vec<u8>, Error> {
        let length = match self.version {
            Version::V2 => HEADER_LEN_V2 as usize,
            Version::V3 => size_of::<Fields>(),
        };
        let mut bytes = alloc::vec![0; length];
        if let Some(format) = &self.backing_format {
            extend(&mut bytes, BACKING_FORMAT, format);
        }
        if let Some(name) = &self.data_file {
            extend(&mut bytes, DATA_FILE, name);
        }
        if let Some((offset, length)) = self.crypto {
            let pointer = CryptoHeader { offset: U64::new(offset), length: U64::new(length) };
            extend(&mut bytes, CRYPTO_HEADER, pointer.as_bytes());
        }
        if self.version == Version::V3 && cluster >= FEATURES_ROOM {
            let mut table = Vec::new();
            for (kind, bit, name) in FEATURES {
                table.extend([kind, bit]);
                table.extend_from_slice(name);
                table.resize(table.len() + FEATURE_NAME_LEN - name.len(), 0);
            }
            extend(&mut bytes, FEATURE_NAMES, &table);
        }
        if let Some((count, length, offset)) = self.bitmaps {
            let extension = BitmapsExtension {
                nb_bitmaps: U32::new(count),
                reserved: U32::ZERO,
                directory_size: U64::new(length),
                directory_offset: U64::new(offset),
            };
            extend(&mut bytes, BITMAPS, extension.as_bytes());
        }
        extend(&mut bytes, END, &[]);
        let mut fields = self.fields.clone();
        if let Some(name) = &self.backing {
            fields.backing_file_offset = U64::new(bytes.len() as u64);
            fields.backing_file_size = U32::new(u32::try_from(name.len()).unwrap_or(u32::MAX));
            bytes.extend_from_slice(name);
        }
        if self.version == Version::V3 {
            fields.header_length = U32::new(u32::try_from(length).unwrap_or(u32::MAX));
        }
        if self.bitmaps.is_some() {
            fields.autoclear_features |= U64::new(AUTOCLEAR_BITMAPS);
        }
        for (place, byte) in bytes.iter_mut().zip(fields.as_bytes().iter().take(length)) {
            *place = *byte;
        }
        if bytes.len() as u64 > cluster {
            let message = "No space left on device";
            return Err(Error::new(ErrorKind::Unsupported, "backing_file_size", message));
        }
        bytes.resize(usize::try_from(cluster).unwrap_or(0), 0);
        Ok(bytes)
    }
}

/// Puts an extension behind the others.
fn extend(bytes: &mut Vec<u8>, kind: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(Head { kind: U32::new(kind), length: U32::new(length) }.as_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}
