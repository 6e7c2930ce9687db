//! New qcow2 images.

use alloc::{borrow::ToOwned, boxed::Box};

use formats::{StorageMut, qcow2, write::Writer};
use protocol::ErrorRecord;

use super::{NewImage, empty, facts, key, luks, random::Random, set_aside};
use crate::{
    files::Files,
    options::{Encryption, Qcow2Create, Values},
    source::record,
};

/// Makes one.
pub fn create<S: StorageMut + 'static>(
    values: &Values,
    new: &NewImage<'_>,
    random: &mut Random,
    files: &mut dyn Files<Storage = S>,
) -> Result<Box<dyn Writer<Storage = S>>, ErrorRecord> {
    let Qcow2Create { mut create, preallocation, keep_data_file, encryption } =
        Qcow2Create::new(values, new.size, new.profile)?;
    if let Some(how) = encryption {
        let password = key(values, "encrypt.", new.secrets)?;
        create.encryption = Some(match how {
            Encryption::Aes => qcow2::Encryption::Aes(password.to_owned()),
            Encryption::Luks(words) => qcow2::Encryption::Luks(luks::header(&words, password, new, random)?),
        });
    }
    let data_file = match (&create.data_file, new.data_file) {
        (Some(_), Some(file)) if keep_data_file => Some(files.open(facts(file)?)?),
        (Some(_), Some(file)) => Some(empty(file, files)?),
        _ => None,
    };
    let mut image = qcow2::create(empty(new.file, files)?, data_file, &create).map_err(record)?;
    set_aside(&mut image, preallocation)?;
    Ok(Box::new(image))
}
