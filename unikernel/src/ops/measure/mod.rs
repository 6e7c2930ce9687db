//! `measure`: how long a new image will be, of a given size or with the data of an existing image.

mod content;
mod exact;
mod qcow2;
mod written;

use alloc::{format, string::ToString, vec::Vec};

use calc::{Length, luks, raw};
use formats::{Image, Storage};
use protocol::{ErrorKind, ErrorRecord, MeasureAnswer, MeasureRequest, MeasureSubject, QemuVersion};

use crate::{
    files::Files,
    options::{Driver, LuksOptions, Qcow2Options, Target, Values},
    source,
};

/// Answers `request` about `files`.
///
/// The checks are made in `qemu-img`'s order: the image, the target format, its options, what they mean together.
pub fn run<F: Files>(request: &MeasureRequest, files: &mut F) -> Result<MeasureAnswer, ErrorRecord> {
    let profile = request.profile;
    let mut source = Source::new(&request.subject, profile, files)?;
    let driver = Driver::for_target(&request.target_format, profile)?;
    let values = Values::parse(driver, request.options.as_deref().unwrap_or_default(), profile)?;
    let secrets: Vec<&str> = request.secrets.iter().map(AsRef::as_ref).collect();
    match driver.measured()? {
        Target::Raw => Ok(same(raw::length(source.length()?).bytes())),
        Target::Luks => {
            let LuksOptions { key, key_use } = LuksOptions::new(&values, "", &secrets, profile)?;
            Ok(same(luks::image_length(key, key_use, source.length()?)))
        }
        Target::Qcow2 => {
            let options = Qcow2Options::new(&values, &secrets, profile)?;
            qcow2::measure(&mut source, &options, request.exact, profile)
        }
    }
}

/// What is measured.
enum Source<S> {
    Size(u64),
    Image(Image<S>),
}

impl<S: Storage> Source<S> {
    fn new(
        subject: &MeasureSubject,
        profile: QemuVersion,
        files: &mut impl Files<Storage = S>,
    ) -> Result<Self, ErrorRecord> {
        match subject {
            MeasureSubject::Size(size) => Ok(Self::Size(*size)),
            MeasureSubject::Image { source, snapshot } => {
                let image = source::open(source, profile, files)?;
                match snapshot {
                    Some(_) => Err(refuse_snapshot(&image)),
                    None => Ok(Self::Image(image)),
                }
            }
        }
    }

    /// Length of the disk in bytes.
    fn length(&self) -> Result<Length, ErrorRecord> {
        let bytes = match self {
            Self::Size(size) => *size,
            Self::Image(image) => image.virtual_size(),
        };
        Length::new(bytes)
            .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes"))
    }
}

/// Why the snapshot that is asked for is not measured.
fn refuse_snapshot<S: Storage>(image: &Image<S>) -> ErrorRecord {
    let (kind, why) = match image.qcow2() {
        None => (
            ErrorKind::Unsupported,
            format!(
                "Block format '{}' used by device '' does not support temporarily loading internal snapshots",
                image.format().name()
            ),
        ),
        Some(qcow2) if qcow2.header().snapshots().0 == 0 => {
            (ErrorKind::Usage, "Can't find snapshot".to_string())
        }
        Some(_) => (ErrorKind::Unsupported, "Reading internal snapshots is not supported".to_string()),
    };
    ErrorRecord::new(kind, format!("Failed to load snapshot: {why}"))
}

/// The answer for a format whose images are as long empty as full.
fn same(length: u64) -> MeasureAnswer {
    MeasureAnswer { required: length, fully_allocated: length, bitmaps: None }
}

#[cfg(test)]
mod tests;
