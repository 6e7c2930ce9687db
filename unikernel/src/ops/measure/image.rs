//! The length of an image of a format that `qemu-img` does not measure.

use calc::{Length, NewImage};
use formats::Storage;
use protocol::{ErrorRecord, MeasureAnswer};

use super::{
    Source,
    content::{self, SparseSize},
    written,
};

/// The answer for `image`, empty so far, when it takes the data of `source`.
///
/// Over a backing file all of the source counts as written: what equals the backing file need not be stored, but nobody
/// looks. With a `sparse` size, zeros in data are left out as `convert` does.
pub fn measure<S: Storage, I: NewImage>(
    source: &mut Source<S>,
    mut image: I,
    has_backing_file: bool,
    sparse: Option<SparseSize>,
) -> Result<MeasureAnswer, ErrorRecord> {
    let fully_allocated = image.fully_allocated();
    let length = source.length()?;
    match source {
        Source::Size(_) => {}
        Source::Image(_) if has_backing_file => image.write(Length::default(), length),
        Source::Image(source) => match sparse {
            Some(sparse) => content::ranges(source, sparse, |start, end| image.write(start, end))?,
            None => written::ranges(source, |start, end| image.write(start, end))?,
        },
    }
    Ok(MeasureAnswer { required: image.length(), fully_allocated, bitmaps: None })
}
