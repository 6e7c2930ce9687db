//! Images upon images: one disk out of an image and those below it.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::{Error, ErrorKind, Extent, ExtentKind, Image, Storage};

/// An image and its backing chain, from the top down. The top decides how long the disk is, and every layer what it
/// does not leave to those below.
#[derive(Debug)]
pub struct Chain<S> {
    /// At least one.
    layers: Vec<Image<S>>,
}

/// A run of bytes of the disk that all come from the same kind of place in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The run as that layer has it, [`ExtentKind::Unallocated`] never. Its file is one of the layer's.
    pub extent: Extent,
    /// The layer, counted from 0 at the top.
    pub layer: usize,
    /// Whether the layer says so itself. Otherwise no layer down to it has anything, and there is none below it, or it
    /// ends before: the run is zeros.
    pub allocated: bool,
}

/// A failure to map the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainError {
    /// The layer at fault, counted from 0 at the top.
    pub layer: usize,
    /// What is wrong with it.
    pub error: Error,
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for ChainError {}

impl<S: Storage> Chain<S> {
    /// The chain of one image.
    pub fn new(top: Image<S>) -> Self {
        Self { layers: vec![top] }
    }

    /// Puts an image below all others.
    pub fn push(&mut self, below: Image<S>) {
        self.layers.push(below);
    }

    /// The images from the top down, at least one.
    pub fn layers(&self) -> &[Image<S>] {
        &self.layers
    }

    /// The images from the top down, to read what a mapping points to.
    pub fn layers_mut(&mut self) -> &mut [Image<S>] {
        &mut self.layers
    }

    /// The image on top.
    pub fn into_top(self) -> Option<Image<S>> {
        self.layers.into_iter().next()
    }

    /// Size of the disk in bytes: that of the top.
    pub fn virtual_size(&self) -> u64 {
        self.layers.first().map_or(0, Image::virtual_size)
    }

    /// An upper bound of the steps that a walk from 0 on takes, each at the end of the last; holes of files may make
    /// it longer. Every step ends where an extent of some layer does, or a layer.
    pub fn max_extents(&self) -> u64 {
        self.layers.iter().fold(0, |sum, image| sum.saturating_add(image.max_extents()).saturating_add(1))
    }

    /// Where the bytes at `offset`, which is below [`virtual_size`](Self::virtual_size), come from, and how many more
    /// from the same place. The next run may be of the same kind.
    pub fn extent_at(&mut self, offset: u64) -> Result<Mapping, ChainError> {
        self.map(offset, Image::extent_at)
    }

    /// What `qemu-img` knows of the bytes at `offset` without reading them: as [`extent_at`](Self::extent_at), but a
    /// layer whose format does not [report block status](Image::reports_block_status) is data from end to end. The
    /// offset of such data is that of the layer's disk and of no file.
    pub fn status_at(&mut self, offset: u64) -> Result<Mapping, ChainError> {
        self.map(offset, |image, offset| match image.reports_block_status() {
            true => image.extent_at(offset),
            false => {
                let rest = image.virtual_size().saturating_sub(offset);
                Ok(Extent::own(offset, rest, ExtentKind::Data { offset }))
            }
        })
    }

    fn map(
        &mut self,
        offset: u64,
        mut extent_at: impl FnMut(&mut Image<S>, u64) -> Result<Extent, Error>,
    ) -> Result<Mapping, ChainError> {
        let mut length = self.virtual_size().saturating_sub(offset);
        let mut layer = 0;
        while let Some(image) = self.layers.get_mut(layer) {
            let extent = extent_at(image, offset).map_err(|error| ChainError { layer, error })?;
            length = length.min(extent.length);
            let ExtentKind::Unallocated { offset: reserved } = extent.kind else {
                return Ok(Mapping { extent: Extent { length, ..extent }, layer, allocated: true });
            };
            let last = !image.can_have_backing();
            match self.layers.get(layer + 1).map(Image::virtual_size) {
                Some(end) if !last && offset < end => length = length.min(end - offset),
                _ => {
                    let extent = Extent { length, kind: ExtentKind::Zero { offset: reserved }, ..extent };
                    return Ok(Mapping { extent, layer, allocated: last });
                }
            }
            layer += 1;
        }
        let error = Error::new(ErrorKind::Limit, "offset", "There is no image");
        Err(ChainError { layer, error })
    }
}
