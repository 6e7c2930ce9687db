//! An existing image, open for writing.

use alloc::{boxed::Box, format, vec::Vec};

use formats::{Format, StorageMut, raw, vdi, vhdx, vmdk, vpc, write::Writer};
use protocol::{Chance, ErrorKind, ErrorRecord, ImageSource, QemuVersion};

use super::random::Random;
use crate::{
    files::Files,
    source::{self, record},
};

/// Opens the image to be written to.
pub fn open<F: Files<Storage: StorageMut + 'static>>(
    image: &ImageSource,
    chance: Chance,
    profile: QemuVersion,
    files: &mut F,
) -> Result<Box<dyn Writer<Storage = F::Storage>>, ErrorRecord> {
    let mut storage = files.open(&image.file)?;
    let format = match &image.format {
        Some(name) => source::format_of(name, profile)?,
        None => formats::probe(&mut storage).map_err(record)?,
    };
    let mut random = Random::new(chance.seed);
    Ok(match format {
        Format::Raw => Box::new(raw::open(storage).map_err(record)?),
        Format::Vpc => Box::new(vpc::open(storage).map_err(record)?),
        Format::Vdi => Box::new(vdi::open(storage).map_err(record)?),
        Format::Vhdx => {
            let guids = vhdx::Guids { file_write: random.uuid(), data_write: random.uuid() };
            Box::new(vhdx::open(storage, guids).map_err(record)?)
        }
        Format::Vmdk => Box::new(vmdk::open(storage, Vec::new(), random.number()).map_err(record)?),
        other => {
            let message = format!("Images of the format '{}' are not written to", other.name());
            return Err(ErrorRecord::new(ErrorKind::Unsupported, message));
        }
    })
}
