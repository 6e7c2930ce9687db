//! The length of a qcow2 image.

use alloc::{borrow::ToOwned, string::ToString};

use calc::{
    Length, luks,
    qcow2::{BitmapSpace, DataClusters, Geometry, Granularity},
};
use formats::{Format, Image, Storage};
use protocol::{ErrorKind, ErrorRecord, MeasureAnswer, QemuVersion};

use super::{Source, content::SparseSize, exact, written};
use crate::options::{Compat, Preallocation, Qcow2Options};

/// The answer for a qcow2 image that takes the data of `source`; `exactly` as long as that gets without runs of zeros from
/// there on.
pub fn measure<S: Storage>(
    source: &mut Source<S>,
    options: &Qcow2Options,
    exactly: Option<SparseSize>,
    profile: QemuVersion,
) -> Result<MeasureAnswer, ErrorRecord> {
    let geometry = options.geometry;
    // The length of an existing image is not checked, only what the option `size` says beside it.
    let checked = match source {
        Source::Size(size) => *size,
        Source::Image(_) => options.size,
    };
    if !fits(geometry, checked) {
        return Err(too_large());
    }
    let length = source.length()?;
    let disk = geometry.virtual_size(length).bytes();
    let header =
        options.luks.map_or(0, |luks| luks::length_in_qcow2(luks.key, luks.key_use, geometry.cluster_size()));
    let metadata = header + geometry.metadata(length);
    let required = match exactly {
        Some(sparse) => exact::qcow2(source, options, header, sparse)?,
        None => metadata + data(source, options, disk)?,
    };
    let top = match source {
        Source::Size(_) => None,
        Source::Image(chain) => chain.layers().first(),
    };
    let bitmaps = match top {
        Some(image) if options.compat == Compat::V3 && has_bitmaps(image, profile) => {
            Some(bitmaps(image, geometry, length)?)
        }
        _ => None,
    };
    Ok(MeasureAnswer { required, fully_allocated: metadata + disk, bitmaps })
}

/// Bytes of the clusters that hold data, of `disk` bytes.
fn data<S: Storage>(source: &mut Source<S>, options: &Qcow2Options, disk: u64) -> Result<u64, ErrorRecord> {
    let data = match source {
        Source::Size(_) => 0,
        // What equals the backing file need not be stored, but nobody looks.
        Source::Image(_) if options.has_backing_file => disk,
        Source::Image(chain) => {
            let mut data = DataClusters::new(options.geometry.cluster_size());
            written::ranges(chain, |start, end| data.add(start, end))?;
            data.bytes()
        }
    };
    Ok(match options.preallocation {
        Preallocation::Off | Preallocation::Metadata => data,
        Preallocation::Falloc | Preallocation::Full => disk,
    })
}

/// Why an image of that geometry cannot be as large as that.
pub(super) fn too_large() -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Unsupported, "The image size is too large (try using a larger cluster size)")
}

/// Whether the L1 table for a disk of `size` bytes has a size that is allowed. A `size` that rounds up to 2^64 counts
/// as 0: so it does in `qemu-img`, and no number depends on it.
fn fits(geometry: Geometry, size: u64) -> bool {
    match Length::new(size) {
        Some(length) => geometry.fits(length),
        None => size.checked_next_multiple_of(geometry.cluster_size().bytes()).is_none(),
    }
}

/// Whether the release knows of dirty bitmaps in images of the format.
fn has_bitmaps<S: Storage>(image: &Image<S>, profile: QemuVersion) -> bool {
    image.supports_bitmaps() && (image.format() != Format::Parallels || profile >= QemuVersion::V10_0)
}

/// Bytes of copies of the bitmaps of `image`.
fn bitmaps<S: Storage>(image: &Image<S>, geometry: Geometry, length: Length) -> Result<u64, ErrorRecord> {
    let blame = |why: &str| ErrorRecord {
        field: Some("bitmap directory".to_owned()),
        ..ErrorRecord::new(ErrorKind::Limit, why)
    };
    let mut space = BitmapSpace::new(geometry.cluster_size());
    for bitmap in image.bitmaps().iter().filter(|bitmap| !bitmap.shadowed) {
        let granularity = Granularity::from_bits(bitmap.granularity_bits.into())
            .ok_or_else(|| blame("Bitmap granularity is out of range"))?;
        let name_length = u16::try_from(bitmap.name.len()).map_err(|_| blame("Bitmap name is too long"))?;
        space.add(length, granularity, name_length).map_err(|error| blame(&error.to_string()))?;
    }
    space.bytes().map_err(|error| blame(&error.to_string()))
}
