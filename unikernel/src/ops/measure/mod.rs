//! `measure`: how long a new image will be, of a given size or with the data of an existing image.

mod compressed;
mod content;
mod exact;
mod image;
mod qcow2;
mod written;

use alloc::vec::Vec;

use calc::{Length, NewImage, luks, raw};
use formats::{Chain, Storage};
use protocol::{ErrorKind, ErrorRecord, MeasureAnswer, MeasureRequest, MeasureSubject};

use self::content::SparseSize;
use crate::{
    files::Files,
    options::{self, Driver, LuksOptions, Qcow2Options, Target, Values},
    source,
};

/// Answers `request` about `files`.
///
/// The checks are made in `qemu-img`'s order: the image, the target format, its options, what they mean together.
pub fn run<F: Files>(request: &MeasureRequest, files: &mut F) -> Result<MeasureAnswer, ErrorRecord> {
    let profile = request.profile;
    let source = Source::new(request, files)?;
    let driver = Driver::for_target(&request.target_format, profile)?;
    let values = Values::parse(driver, request.options.as_deref().unwrap_or_default(), profile)?;
    let target = driver.measured(request.beyond)?;
    let sparse = request.exact.map(SparseSize::new);
    let streams = request.compress || values.text("subformat") == Some("streamOptimized");
    if let Some(sparse) = sparse.filter(|_| streams) {
        let empty = Source::<F::Storage>::Size(source.length()?.bytes());
        let full = answer(empty, target, &values, request, None)?.fully_allocated;
        return compressed::measure(source, target, &values, request, sparse, full);
    }
    answer(source, target, &values, request, sparse)
}

/// The answer for a target that is not compressed.
fn answer<S: Storage>(
    mut source: Source<S>,
    target: Target,
    values: &Values,
    request: &MeasureRequest,
    sparse: Option<SparseSize>,
) -> Result<MeasureAnswer, ErrorRecord> {
    let profile = request.profile;
    let secrets: Vec<&str> = request.secrets.iter().map(|secret| secret.id.as_str()).collect();
    match target {
        Target::Raw => Ok(same(raw::length(source.length()?).bytes())),
        Target::Luks => {
            let LuksOptions { key, key_use } = LuksOptions::new(values, "", &secrets, profile)?;
            Ok(same(luks::image_length(key, key_use, source.length()?)))
        }
        Target::Qcow2 => {
            let options = Qcow2Options::new(values, &secrets, profile)?;
            qcow2::measure(&mut source, &options, sparse, profile)
        }
        Target::Vmdk => beyond(source, values, sparse, |size| options::vmdk_image(values, size, profile)),
        Target::Vpc => beyond(source, values, sparse, |size| options::vpc_image(values, size, profile)),
        Target::Vhdx => beyond(source, values, sparse, |size| options::vhdx_image(values, size, profile)),
        Target::Vdi => beyond(source, values, sparse, |size| options::vdi_image(values, size)),
        Target::Qcow => {
            beyond(source, values, sparse, |size| options::qcow_image(values, size, &secrets, profile))
        }
        Target::Qed => beyond(source, values, sparse, |size| options::qed_image(values, size, profile)),
        Target::Parallels => {
            beyond(source, values, sparse, |size| options::parallels_image(values, size, profile))
        }
    }
}

/// The answer for a format that `qemu-img` does not measure: for the image that `new_image` makes of a size.
fn beyond<S: Storage, I: NewImage>(
    mut source: Source<S>,
    values: &Values,
    exact: Option<SparseSize>,
    new_image: impl FnOnce(Length) -> Result<I, ErrorRecord>,
) -> Result<MeasureAnswer, ErrorRecord> {
    let image = new_image(source.length()?)?;
    image::measure(&mut source, image, exact, values.has("backing_file"))
}

/// What is measured.
enum Source<S> {
    Size(u64),
    Image(Chain<S>),
}

impl<S: Storage> Source<S> {
    fn new(request: &MeasureRequest, files: &mut impl Files<Storage = S>) -> Result<Self, ErrorRecord> {
        match &request.subject {
            MeasureSubject::Size(size) => Ok(Self::Size(*size)),
            MeasureSubject::Image { source, snapshot } => {
                let mut chain = source::open(source, &request.secrets, request.profile, files)?;
                if let (Some(snapshot), Some(top)) = (snapshot, chain.layers_mut().first_mut()) {
                    source::load_snapshot(top, snapshot)?;
                }
                Ok(Self::Image(chain))
            }
        }
    }

    /// Length of the disk in bytes.
    fn length(&self) -> Result<Length, ErrorRecord> {
        let bytes = match self {
            Self::Size(size) => *size,
            Self::Image(chain) => chain.virtual_size(),
        };
        Length::new(bytes)
            .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes"))
    }
}

/// The answer for a format whose images are as long empty as full.
fn same(length: u64) -> MeasureAnswer {
    MeasureAnswer { required: length, fully_allocated: length, bitmaps: None }
}

#[cfg(test)]
mod tests;
