//! The bytes of the virtual disk: what the extents of an image hold, decoded where they are compressed.

mod codec;
mod units;

pub use units::Units;

use alloc::vec;
use alloc::vec::Vec;

use crate::files::not_attached;
use crate::{
    Chain, ChainError, Error, ErrorKind, Extent, ExtentKind, FileIndex, Image, Mapping, Storage, Stream,
};

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
        stream.check()?;
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
            let mapping = self.extent_at(offset)?;
            let length = usize::try_from(mapping.extent.length).unwrap_or(usize::MAX).min(buf.len());
            let (now, later) = buf.split_at_mut(length);
            self.read_mapping(&mapping, now)?;
            offset = offset.saturating_add(length as u64);
            buf = later;
        }
        Ok(())
    }

    /// Fills `buf` with the first bytes of what [`extent_at`](Self::extent_at) gave, as [`read`](Self::read) does.
    pub fn read_mapping(&mut self, mapping: &Mapping, buf: &mut [u8]) -> Result<(), ChainError> {
        let image = self.source_of(mapping)?;
        image.read_extent(&mapping.extent, 0, buf).map_err(|error| ChainError { layer: mapping.layer, error })
    }

    /// What it takes to decode what [`extent_at`](Self::extent_at) gave, if that is compressed, and the image that it is in.
    pub fn stream(&mut self, mapping: &Mapping) -> Result<Option<(Stream, &mut Image<S>)>, ChainError> {
        let image = self.source_of(mapping)?;
        let stream = image.stream(&mapping.extent);
        let stream = stream.map_err(|error| ChainError { layer: mapping.layer, error })?;
        Ok(stream.map(|stream| (stream, image)))
    }

    /// The image that a mapping leads to, once all above it are known to lie upon the right ones.
    fn source_of(&mut self, mapping: &Mapping) -> Result<&mut Image<S>, ChainError> {
        let layer = mapping.layer;
        for (above, pair) in self.layers().windows(2).take(layer).enumerate() {
            if let [image, parent] = pair {
                image.check_parent(parent).map_err(|error| ChainError { layer: above, error })?;
            }
        }
        self.layers_mut().get_mut(layer).ok_or_else(|| {
            let error = Error::new(ErrorKind::Limit, "layer", "There is no such image");
            ChainError { layer, error }
        })
    }
}

fn undecodable(file: FileIndex) -> Error {
    Error::new(ErrorKind::Corrupt, "compressed cluster", "Compressed cluster cannot be decoded").in_file(file)
}
