//! The length of an image of a format that `qemu-img` does not measure.

use calc::{Length, NewImage};
use formats::Storage;
use protocol::{ErrorRecord, MeasureAnswer};

use super::{
    Source,
    content::{self, SparseSize},
    exact, written,
};

/// The answer for `image`, empty so far, when it takes the data of `source`.
///
/// Over a backing file all of the source counts as written: what equals the backing file need not be stored, but nobody
/// looks. `exactly` is the length really, without runs of zeros from there on.
pub fn measure<S: Storage, I: NewImage>(
    source: &mut Source<S>,
    mut image: I,
    exactly: Option<SparseSize>,
    has_backing_file: bool,
) -> Result<MeasureAnswer, ErrorRecord> {
    let fully_allocated = image.fully_allocated();
    let length = source.length()?;
    match (source, exactly) {
        (Source::Size(_), _) => {}
        (Source::Image(_), Some(_)) if has_backing_file => return Err(exact::backing_file()),
        (Source::Image(_), None) if has_backing_file => image.write(Length::default(), length),
        (Source::Image(source), None) => written::ranges(source, |start, end| image.write(start, end))?,
        (Source::Image(source), Some(sparse)) => {
            content::ranges(source, sparse, |start, end| image.write(start, end))?;
        }
    }
    Ok(MeasureAnswer { required: image.length(), fully_allocated, bitmaps: None })
}
