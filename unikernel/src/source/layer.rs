//! One image: its file, and those that hold its data.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use formats::{Access, Format, Image, Key, OpenOptions, Storage, probe, probe_named_dmg};
use protocol::{
    ErrorKind, ErrorRecord, FileFacts, ImageSource, Need, QemuVersion, Role, Secret, SecretContent,
};

use super::{Command, names, record};
use crate::{
    files::Files,
    options::{Driver, Quoted},
};

/// Opens the image in `source`, whatever is below it.
pub fn open<F: Files>(
    source: &ImageSource,
    command: Command<'_>,
    files: &mut F,
) -> Result<Image<F::Storage>, ErrorRecord> {
    let mut why = String::new();
    let access = Access::Data(key(source.key_secret.as_deref(), command.secrets, &mut why));
    let mut image = open_file(source, access, command.profile, files)?;
    attach_data_file(&mut image, source, files)?;
    attach_extents(&mut image, source, files)?;
    Ok(image)
}

/// Opens the file of the image in `source`, and none that it names.
pub fn open_file<F: Files>(
    source: &ImageSource,
    access: Access<'_>,
    profile: QemuVersion,
    files: &mut F,
) -> Result<Image<F::Storage>, ErrorRecord> {
    let format = source.format.as_deref().map(|name| format_of(name, profile)).transpose()?;
    let mut storage = files.open(&source.file)?;
    let format = match format {
        None if source.file.named_dmg => Some(probe_named_dmg(&mut storage).map_err(record)?),
        other => other,
    };
    if source.window.is_some() {
        return open_window(source, storage, format);
    }
    let options = OpenOptions { format, access, encryption: source.encrypt_format.as_deref() };
    Image::open_with(storage, options).map_err(record)
}

/// The format of this name.
pub fn format_of(name: &str, profile: QemuVersion) -> Result<Format, ErrorRecord> {
    let error = |kind, message| Err(ErrorRecord::new(kind, message));
    match (Format::from_name(name), Driver::find(name, profile)) {
        (Some(format), _) => Ok(format),
        (None, None) => error(ErrorKind::Usage, format!("Unknown driver '{}'", Quoted(name.as_bytes()))),
        (None, Some(_)) => error(ErrorKind::Unsupported, format!("Driver '{name}' is not supported")),
    }
}

/// The key that the secret of this id is; if it is none, `why` says why.
pub fn key<'a>(id: Option<&str>, secrets: &'a [Secret], why: &'a mut String) -> Key<'a> {
    match id.map(|id| password(id, secrets)) {
        None => Key::None,
        Some(Ok(password)) => Key::Password(password),
        Some(Err(reason)) => {
            *why = reason;
            Key::Unusable(why)
        }
    }
}

/// The text of the secret of this id, or why it is no password.
pub fn password<'a>(id: &str, secrets: &'a [Secret]) -> Result<&'a str, String> {
    let name = Quoted(id.as_bytes());
    match secrets.iter().find(|secret| secret.id == id).map(|secret| &secret.content) {
        Some(SecretContent::Text(text)) => Ok(text),
        Some(SecretContent::NotText) => Err(format!("Data from secret {name} is not valid UTF-8")),
        Some(SecretContent::Unread) => Err(format!("Secret with id '{name}' has no data")),
        None => Err(format!("No secret with id '{name}'")),
    }
}

/// Only raw images can be a part of their file.
fn open_window<S: Storage>(
    source: &ImageSource,
    mut storage: S,
    format: Option<Format>,
) -> Result<Image<S>, ErrorRecord> {
    let (offset, size) = source.window.map_or((0, None), |window| (window.offset, window.size));
    let format = match format {
        Some(format) => format,
        None => probe(&mut storage).map_err(record)?,
    };
    if format == Format::Raw {
        return Image::open_window(storage, offset, size).map_err(record);
    }
    let option = if offset == 0 && size.is_some() { "size" } else { "offset" };
    Err(unknown_option(format, option))
}

fn unknown_option(format: Format, option: &str) -> ErrorRecord {
    let message = format!("Block format '{}' does not support the option '{option}'", format.name());
    ErrorRecord::new(ErrorKind::Usage, message)
}

/// The external data file: the one of the command line, or else the one that the image names.
fn attach_data_file<F: Files>(
    image: &mut Image<F::Storage>,
    source: &ImageSource,
    files: &mut F,
) -> Result<(), ErrorRecord> {
    let facts = match (&source.data_file, image.data_file()) {
        (None, None) => return Ok(()),
        (Some(_), None) if image.qcow2().is_none() => {
            return Err(unknown_option(image.format(), "data-file"));
        }
        (Some(facts), _) => facts.clone(),
        (None, Some(data_file)) => {
            let Some(name) = &data_file.name else {
                let message = "'data-file' is required for this image";
                let field = Some("incompatible_features".to_owned());
                return Err(ErrorRecord { field, ..ErrorRecord::new(ErrorKind::Unsupported, message) });
            };
            let field = "external data file name";
            let name = names::text(name, Role::DataFile, field)?;
            ask(files, name, Role::DataFile, &source.file.disk, None, field)?
        }
    };
    let file = files.open(&facts)?;
    image.attach_data_file(file).map_err(record)
}

/// The files with the parts of the disk, in order: what is wrong with one is told before the next is missing.
pub fn attach_extents<F: Files>(
    image: &mut Image<F::Storage>,
    source: &ImageSource,
    files: &mut F,
) -> Result<(), ErrorRecord> {
    const FIELD: &str = "extent description";
    if image.references().is_empty() {
        return Ok(());
    }
    let mut found = Vec::new();
    for name in image.references() {
        let file = names::text(name, Role::Extent, FIELD)
            .and_then(|name| ask(files, name, Role::Extent, &source.file.disk, None, FIELD))
            .and_then(|facts| files.open(&facts));
        match file {
            Ok(file) => found.push(file),
            Err(error) => {
                image.check_files(&mut found).map_err(record)?;
                return Err(error);
            }
        }
    }
    image.attach(found).map_err(record)
}

/// Asks for a file whose name stands in the `field` of the image on the disk `of`.
pub fn ask<F: Files>(
    files: &mut F,
    name: String,
    role: Role,
    of: &str,
    format: Option<String>,
    field: &str,
) -> Result<FileFacts, ErrorRecord> {
    let need = Need { name, role, of: of.to_owned(), format };
    files.need(&need).map_err(|error| ErrorRecord { field: error.field.or(Some(field.to_owned())), ..error })
}
