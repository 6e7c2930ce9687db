//! The bytes of the virtual disk: what the extents of an image hold, decoded where they are compressed.

mod codec;
mod units;

pub use units::Units;

use alloc::vec::Vec;
use alloc::{format, vec};

use crate::files::not_attached;
use crate::{
    Chain, ChainError, Codec, Error, ErrorKind, Extent, ExtentKind, FileIndex, Image, Mapping, Storage,
    Stream,
};

/// The longest compressed stream that is read: qcow2 stores at most what 13 bits count in sectors of 512 bytes, VMDK at
/// most two grains of a mebibyte.
const MAX_STREAM: u64 = 4 << 20;

/// The longest cluster or grain that is decoded: 2 MiB in qcow2, the same in VMDK.
const MAX_CLUSTER: u64 = 2 << 20;

/// The cluster decoded last: neighbouring parts of it are read one after the other.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Where its stream is.
    at: Option<(FileIndex, u64)>,
    bytes: Vec<u8>,
}

impl<S: Storage> Image<S> {
    /// Fills `buf` with the bytes of an extent that [`extent_at`](Self::extent_at) gave, from `within` bytes behind its
    /// first on, decrypted where they are [encrypted](Self::encrypted): then in whole sectors only. Where nothing is stored it is zeros; so is what lies past the end of a file.
    ///
    /// Memory is bounded: a compressed cluster, and its stream. A stream that does not hold what the extent says is
    /// [corrupt](ErrorKind::Corrupt), as are all that `qemu-img` does not decode.
    pub fn read_extent(&mut self, extent: &Extent, within: u64, buf: &mut [u8]) -> Result<(), Error> {
        if within.checked_add(buf.len() as u64).is_none_or(|end| end > extent.length) {
            return Err(Error::new(ErrorKind::Limit, "offset", "Offset is beyond the end of the extent"));
        }
        match extent.kind {
            ExtentKind::Unallocated { .. } | ExtentKind::Zero { .. } | ExtentKind::Hole { .. } => {
                buf.fill(0);
                Ok(())
            }
            ExtentKind::Data { offset } => {
                let file = self.file_mut(extent.file).ok_or_else(|| not_attached(extent.file))?;
                file.read_at(offset.saturating_add(within), buf)?;
                self.decrypt(extent, within, buf)
            }
            ExtentKind::Compressed { .. } => {
                let Some(stream) = self.stream(extent)? else { return Err(undecodable(extent.file)) };
                self.decode(&stream)?;
                let start = usize::try_from(stream.skip.saturating_add(within)).unwrap_or(usize::MAX);
                let bytes = &self.decoded().bytes;
                let part = bytes.get(start..).and_then(|bytes| bytes.get(..buf.len()));
                buf.copy_from_slice(part.ok_or_else(|| undecodable(stream.file))?);
                Ok(())
            }
        }
    }

    /// Fills `buf` with the bytes of the disk from `offset` on. All of them are below
    /// [`virtual_size`](Self::virtual_size).
    pub fn read(&mut self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            let extent = self.extent_at(offset)?;
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX).min(buf.len());
            let (now, later) = buf.split_at_mut(length);
            self.read_extent(&extent, 0, now)?;
            offset = offset.saturating_add(length as u64);
            buf = later;
        }
        Ok(())
    }

    /// Makes the cluster of `stream` the one that is decoded.
    fn decode(&mut self, stream: &Stream) -> Result<(), Error> {
        let at = Some((stream.file, stream.offset));
        if self.decoded().at == at {
            return Ok(());
        }
        if matches!(stream.codec, Codec::Bzip2 | Codec::Lzfse) {
            let message = "Decoding bzip2 and LZFSE is not supported";
            return Err(
                Error::new(ErrorKind::Unsupported, "compressed cluster", message).in_file(stream.file)
            );
        }
        if stream.length > MAX_STREAM || stream.cluster_len > MAX_CLUSTER {
            let message = format!(
                "A compressed cluster of {} bytes in {} is longer than any that is decoded",
                stream.cluster_len, stream.length
            );
            return Err(Error::new(ErrorKind::Limit, "compressed cluster", message).in_file(stream.file));
        }
        let mut input = vec![0; usize::try_from(stream.length).unwrap_or(0)];
        let file = self.file_mut(stream.file).ok_or_else(|| not_attached(stream.file))?;
        file.read_at(stream.offset, &mut input)?;

        let mut bytes = core::mem::take(&mut self.decoded().bytes);
        self.decoded().at = None;
        bytes.resize(usize::try_from(stream.cluster_len).unwrap_or(0), 0);
        let length =
            codec::decode(stream.codec, &mut input, &mut bytes).ok_or_else(|| undecodable(stream.file))?;
        bytes.truncate(length);
        *self.decoded() = Decoded { at, bytes };
        Ok(())
    }
}

impl<S: Storage> Chain<S> {
    /// Fills `buf` with the bytes of the disk from `offset` on. All of them are below
    /// [`virtual_size`](Self::virtual_size). A layer that is not the [parent](Image::check_parent) of the one above it is
    /// not read.
    pub fn read(&mut self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), ChainError> {
        while !buf.is_empty() {
            let Mapping { extent, layer, .. } = self.extent_at(offset)?;
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX).min(buf.len());
            let (now, later) = buf.split_at_mut(length);
            for (above, pair) in self.layers().windows(2).take(layer).enumerate() {
                if let [image, parent] = pair {
                    image.check_parent(parent).map_err(|error| ChainError { layer: above, error })?;
                }
            }
            match self.layers_mut().get_mut(layer) {
                Some(image) => {
                    image.read_extent(&extent, 0, now).map_err(|error| ChainError { layer, error })?;
                }
                None => now.fill(0),
            }
            offset = offset.saturating_add(length as u64);
            buf = later;
        }
        Ok(())
    }
}

fn undecodable(file: FileIndex) -> Error {
    Error::new(ErrorKind::Corrupt, "compressed cluster", "Compressed cluster cannot be decoded").in_file(file)
}
