//! Opening images to say what they are, one by one: what holds their data is not followed, and what is encrypted stays
//! so.

use alloc::borrow::ToOwned;

use formats::{Access, Image, OpenOptions};
use protocol::{ErrorRecord, ImageSource, QemuVersion};

use super::{Command, below, below::Said, check_depth, layer, record};
use crate::files::Files;

/// An image, opened for what it says of itself.
pub struct Described<S> {
    /// The image.
    pub image: Image<S>,
    /// Where it is.
    pub source: ImageSource,
    /// What was said of the image below it.
    said: Said,
    /// Images above it.
    depth: usize,
}

/// Opens the image in `source`.
pub fn open_metadata<F: Files>(
    source: &ImageSource,
    profile: QemuVersion,
    files: &mut F,
) -> Result<Described<F::Storage>, ErrorRecord> {
    let mut source = source.clone();
    let said = Said::of(&mut source);
    open(source, said, 0, profile, files)
}

/// Opens the image in `source` to check it, with the files that hold the parts of its disk and none below it.
pub fn open_for_check<F: Files>(
    source: &ImageSource,
    profile: QemuVersion,
    files: &mut F,
) -> Result<Image<F::Storage>, ErrorRecord> {
    let said = Said::of(&mut source.clone());
    let blame = |error| blame(error, source);
    let mut image = layer::open_file(source, Access::Check, profile, files).map_err(blame)?;
    said.check(&image).map_err(blame)?;
    layer::attach_extents(&mut image, source, files).map_err(blame)?;
    Ok(image)
}

/// Opens an image anew: after it was repaired, or for something else.
pub fn reopen<S: formats::Storage>(
    image: Image<S>,
    source: &ImageSource,
    access: Access<'_>,
) -> Result<Image<S>, ErrorRecord> {
    let encryption = source.encrypt_format.as_deref();
    let options = OpenOptions { format: Some(image.format()), access, encryption };
    Image::open_with(image.into_storage(), options).map_err(|error| blame(record(error), source))
}

fn open<F: Files>(
    source: ImageSource,
    said: Said,
    depth: usize,
    profile: QemuVersion,
    files: &mut F,
) -> Result<Described<F::Storage>, ErrorRecord> {
    let blame = |error| blame(error, &source);
    let image = layer::open_file(&source, Access::Metadata, profile, files).map_err(blame)?;
    said.check(&image).map_err(blame)?;
    Ok(Described { image, source, said, depth })
}

impl<S: formats::Storage> Described<S> {
    /// Asks for the image below and opens it, if there is to be one.
    pub fn below<F: Files<Storage = S>>(
        self,
        profile: QemuVersion,
        files: &mut F,
    ) -> Result<Option<Self>, ErrorRecord> {
        let Self { image, source, said, depth } = self;
        let command = Command { secrets: &[], profile };
        let found = below::find(&image, &source, said, command, files);
        let Some((below, said)) = found.map_err(|error| blame(error, &source))? else { return Ok(None) };
        check_depth(depth + 1).map_err(|error| blame(error, &source))?;
        open(below, said, depth + 1, profile, files).map(Some)
    }

    /// What is wrong with the image, as it is told to the host.
    pub fn fault(&self, error: formats::Error) -> ErrorRecord {
        blame(record(error), &self.source)
    }
}

/// The failure to open the image in `source`.
fn blame(error: ErrorRecord, source: &ImageSource) -> ErrorRecord {
    ErrorRecord { disk: Some(source.file.disk.to_owned()), ..error }
}
