//! New qcow2 images.

use alloc::boxed::Box;

use formats::{StorageMut, qcow2, write::Writer};
use protocol::ErrorRecord;

use super::{NewImage, empty, key, not_encrypted, set_aside};
use crate::{
    files::Files,
    options::{Qcow2Create, Values},
    source::record,
};

/// Makes one.
pub fn create<F: Files<Storage: StorageMut + 'static>>(
    values: &Values,
    new: &NewImage<'_>,
    files: &mut F,
) -> Result<Box<dyn Writer<Storage = F::Storage>>, ErrorRecord> {
    let Qcow2Create { create, preallocation, encryption } = Qcow2Create::new(values, new.size, new.profile)?;
    if encryption.is_some() {
        key(values, "encrypt.", new.secrets)?;
        return Err(not_encrypted());
    }
    let data_file = match (&create.data_file, new.data_file) {
        (Some(_), Some(file)) => Some(empty(file, files)?),
        _ => None,
    };
    let mut image = qcow2::create(empty(new.file, files)?, data_file, &create).map_err(record)?;
    set_aside(&mut image, preallocation)?;
    Ok(Box::new(image))
}
