//! Which image is below another: the one that was said to be, or else the one that the image names.

use alloc::{borrow::ToOwned, boxed::Box, string::String};
use core::str;

use formats::{Format, Image, Storage};
use protocol::{Backing, ErrorKind, ErrorRecord, ImageSource, Role};

use super::{
    Command,
    described::{Described, Under},
    layer, names,
    names::Name,
};
use crate::{files::Files, options::Quoted};

/// What is said of the image below an image, other than by that image itself.
pub enum Said {
    /// Nothing.
    Nothing,
    /// That there is none.
    None,
    /// That it is this one.
    Image(Box<ImageSource>),
    /// That it is this one, by a name in the image on the disk `of`.
    Described { described: Box<Described>, of: String },
}

impl Said {
    /// What the command line says.
    pub fn of(source: &mut ImageSource) -> Self {
        match source.backing.take() {
            None => Self::Nothing,
            Some(Backing::None) => Self::None,
            Some(Backing::Image(image)) => Self::Image(image),
        }
    }

    /// Whether there can be such an image below `image`.
    pub fn check<S: Storage>(&self, image: &Image<S>) -> Result<(), ErrorRecord> {
        match self {
            Self::Image(_) | Self::Described { .. } if !image.can_have_backing() => {
                Err(ErrorRecord::new(ErrorKind::Usage, "Driver doesn't support backing files"))
            }
            _ => Ok(()),
        }
    }
}

/// Asks for the image below `image`, which is the one in `source`, if there is to be one. A format that the image has
/// for it counts where the image is described without one, and where its name is the image's own even then.
pub fn find<F: Files>(
    image: &Image<F::Storage>,
    source: &ImageSource,
    said: Said,
    command: Command<'_>,
    files: &mut F,
) -> Result<Option<(ImageSource, Said)>, ErrorRecord> {
    let named = image.backing();
    let field = field(image);
    let hint = || match named.and_then(|named| named.format.as_deref()) {
        None | Some([]) => Ok(None),
        // A file's bytes by another name.
        Some(b"file") => Ok(Some("raw".to_owned())),
        Some(format) => match str::from_utf8(format) {
            Ok(format) => Ok(Some(format.to_owned())),
            Err(_) => {
                let message = alloc::format!("Unknown driver '{}'", Quoted(format));
                Err(ErrorRecord::new(ErrorKind::Usage, message))
            }
        },
    };
    let (described, of, format) = match (said, named) {
        (Said::None, _) | (Said::Nothing, None) => return Ok(None),
        (Said::Image(mut below), _) => {
            if below.format.is_none() {
                below.format = hint()?;
            }
            let said = Said::of(&mut below);
            return Ok(Some((*below, said)));
        }
        (Said::Described { described, of }, _) => {
            let format = match &described.driver {
                Some(driver) => Some(driver.clone()),
                None => hint()?,
            };
            (*described, of, format)
        }
        (Said::Nothing, Some(named)) => {
            let described = match names::backing(&named.name, image.format(), field)? {
                Name::File(file) => Described::file(file),
                Name::Described(described) => described,
            };
            let format = hint()?.or_else(|| described.driver.clone());
            (described, source.file.disk.clone(), format)
        }
    };
    if let Some(format) = &format {
        layer::format_of(format, command.profile)?;
    }
    let Described { file, under, .. } = described;
    let facts = layer::ask(files, file, Role::Backing, &of, format.clone(), field)?;
    let said = match under {
        Under::Unsaid => Said::Nothing,
        Under::None => Said::None,
        Under::Image(described) => Said::Described { described, of },
    };
    Ok(Some((ImageSource::new(facts, format), said)))
}

/// Where an image names the one below it.
fn field<S: Storage>(image: &Image<S>) -> &'static str {
    match image.format() {
        Format::Vpc | Format::Vhdx => "parent locator",
        Format::Vmdk => "parentFileNameHint",
        _ => "backing_file_offset",
    }
}
