//! Opening the image that a command reads, with all that it consists of: the files it names are asked for, one by one,
//! and are had or not as the host decides.
//!
//! Checks and questions come in `qemu-img`'s order, so that the first fault found is the one it finds. What names lead
//! to is followed from image to image in a loop: a chain is as long as [`MAX_CHAIN`] at most, whatever the host grants.

mod below;
mod described;
mod layer;
mod metadata;
mod names;
mod snapshot;

use alloc::{borrow::ToOwned, format, string::ToString};

use below::Said;
use formats::{Chain, Image, Storage};
pub use layer::{format_of, key, open_file, password};
pub use metadata::{open_for_check, open_metadata, reopen};
use protocol::{ErrorKind, ErrorRecord, ImageSource, MAX_CHAIN, QemuVersion, Secret, options::HINT};
pub use snapshot::load as load_snapshot;

use crate::{files::Files, options::Quoted};

/// What holds for all files of a command.
#[derive(Clone, Copy)]
struct Command<'a> {
    /// Where keys are.
    secrets: &'a [Secret],
    /// Whose words messages are in.
    profile: QemuVersion,
}

/// Opens the image and those below it. Their keys are some of `secrets`.
pub fn open<F: Files>(
    source: &ImageSource,
    secrets: &[Secret],
    profile: QemuVersion,
    files: &mut F,
) -> Result<Chain<F::Storage>, ErrorRecord> {
    let command = Command { secrets, profile };
    let top = source.file.disk.as_str();
    let mut source = source.clone();
    let mut said = Said::of(&mut source);
    let mut chain = Chain::new(layer::open(&source, command, files).map_err(|error| blame(error, top, 0))?);
    while let Some(above) = chain.layers().last() {
        let depth = chain.layers().len();
        said.check(above).map_err(|error| blame(error, top, depth - 1))?;
        let blame = |error| blame(error, top, depth);
        let Some(next) = below::find(above, &source, said, command, files).map_err(blame)? else { break };
        check_depth(depth).map_err(blame)?;
        (source, said) = next;
        let image = layer::open(&source, command, files).map_err(blame)?;
        check_parent(above, &image).map_err(|error| blame(record(error)))?;
        chain.push(image);
    }
    Ok(chain)
}

/// Whether a chain that has `images` may have one more.
fn check_depth(images: usize) -> Result<(), ErrorRecord> {
    if images < MAX_CHAIN {
        return Ok(());
    }
    Err(ErrorRecord::new(ErrorKind::Limit, format!("The chain of images is longer than {MAX_CHAIN}")))
}

/// Whether a differencing disk has found its parent. With VMDK that is for whoever reads from the parent to check, as
/// `qemu-img` does.
fn check_parent<S: Storage>(image: &Image<S>, parent: &Image<S>) -> Result<(), formats::Error> {
    match image.vmdk() {
        Some(_) => Ok(()),
        None => image.check_parent(parent),
    }
}

/// The failure to open the image on the disk `top`, for what was found `depth` images below it. That a name was not
/// followed needs no words about where.
fn blame(error: ErrorRecord, top: &str, depth: usize) -> ErrorRecord {
    let message = match error.kind {
        ErrorKind::ReferenceDenied => error.message,
        _ => "Could not open backing file: ".repeat(depth) + &error.message,
    };
    ErrorRecord { message, disk: Some(top.to_owned()), ..error }
}

/// A fault of an image, as it is told to the host. What the image has to say in it must not forge a line.
#[allow(clippy::needless_pass_by_value, reason = "it is what errors are mapped with")]
pub fn record(error: formats::Error) -> ErrorRecord {
    let mut message = Quoted(error.message.as_bytes()).to_string();
    if let Some(hint) = error.hint {
        message.push('\n');
        message.push(HINT);
        message.push_str(&hint);
    }
    ErrorRecord { field: Some(error.field.to_owned()), ..ErrorRecord::new(kind(error.kind), message) }
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
