//! Opening the image that a command reads.

use alloc::{borrow::ToOwned, format, string::String};

use formats::{Access, Format, Image, Key, OpenOptions, probe_named_dmg};
use protocol::{ErrorKind, ErrorRecord, ImageSource, QemuVersion, Secret, SecretContent};

use crate::{
    files::Files,
    options::{Driver, Quoted},
};

/// Opens the image, which must stand alone: a name inside it is reported, not followed. Its key is one of `secrets`.
pub fn open<F: Files>(
    source: &ImageSource,
    secrets: &[Secret],
    profile: QemuVersion,
    files: &mut F,
) -> Result<Image<F::Storage>, ErrorRecord> {
    let file = &source.file;
    let blame = |kind, message, field: Option<&str>| ErrorRecord {
        kind,
        message,
        disk: Some(file.disk.clone()),
        field: field.map(ToOwned::to_owned),
    };
    let format = match source.format.as_deref() {
        None => None,
        Some(name) => Some(Format::from_name(name).ok_or_else(|| match Driver::find(name, profile) {
            None => blame(ErrorKind::Usage, format!("Unknown driver '{}'", Quoted(name.as_bytes())), None),
            Some(_) => blame(ErrorKind::Unsupported, format!("Driver '{name}' is not supported"), None),
        })?),
    };
    let wrong = |error: formats::Error| blame(kind(error.kind), error.message, Some(error.field));
    let mut storage = files.open(file)?;
    let format = match format {
        None if file.named_dmg => Some(probe_named_dmg(&mut storage).map_err(wrong)?),
        other => other,
    };
    let mut why = String::new();
    let access = Access::Data(key(source.key_secret.as_deref(), secrets, &mut why));
    let options = OpenOptions { format, access, encryption: source.encrypt_format.as_deref() };
    let image = Image::open_with(storage, options).map_err(wrong)?;
    let reference = |what, name: &[u8], field| {
        let message =
            format!("{what} '{}' is a reference to another file and was not followed", Quoted(name));
        blame(ErrorKind::ReferenceDenied, message, Some(field))
    };
    if let Some(name) = image.references().first() {
        return Err(reference("extent file", name, "extent description"));
    }
    if let Some(data_file) = image.data_file() {
        let name = data_file.name.as_deref().unwrap_or_default();
        return Err(reference("external data file", name, "external data file name"));
    }
    if let Some(backing) = image.backing() {
        let field = match image.format() {
            Format::Vpc | Format::Vhdx => "parent locator",
            Format::Vmdk => "parentFileNameHint",
            _ => "backing_file_offset",
        };
        return Err(reference("backing file", &backing.name, field));
    }
    Ok(image)
}

/// The key that the secret of this id is; if it is none, `why` says why.
fn key<'a>(id: Option<&str>, secrets: &'a [Secret], why: &'a mut String) -> Key<'a> {
    let Some(id) = id else { return Key::None };
    let name = Quoted(id.as_bytes());
    *why = match secrets.iter().find(|secret| secret.id == id).map(|secret| &secret.content) {
        Some(SecretContent::Text(text)) => return Key::Password(text),
        Some(SecretContent::NotText) => format!("Data from secret {name} is not valid UTF-8"),
        Some(SecretContent::Unread) => format!("Secret with id '{name}' has no data"),
        None => format!("No secret with id '{name}'"),
    };
    Key::Unusable(why)
}

/// The class of a failure, as it is told to the host.
pub fn kind(kind: formats::ErrorKind) -> ErrorKind {
    match kind {
        formats::ErrorKind::Io => ErrorKind::Io,
        formats::ErrorKind::InvalidFormat => ErrorKind::InvalidFormat,
        formats::ErrorKind::Unsupported => ErrorKind::Unsupported,
        formats::ErrorKind::Corrupt => ErrorKind::Corrupt,
        formats::ErrorKind::Limit => ErrorKind::Limit,
        formats::ErrorKind::Key => ErrorKind::Usage,
        formats::ErrorKind::ReferenceDenied => ErrorKind::ReferenceDenied,
    }
}
