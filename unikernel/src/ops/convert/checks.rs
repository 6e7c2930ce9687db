//! What `qemu-img convert` checks between the sources and the new image, in its order.

use alloc::{borrow::ToOwned, format, string::String};

<<<<<<< HEAD
use formats::{Chain, Image, Storage, vmdk::Vmdk};
=======
>>>>>>> b4b17c6 (Copy bitmaps, and keep data files that are to be kept)
use protocol::{ConvertPart, ConvertRequest, ErrorKind, ErrorRecord, NewTarget, QemuVersion};

use crate::options::{Driver, Values};

/// Formats that can be written compressed.
const COMPRESSED: [&str; 3] = ["qcow2", "qcow", "vmdk"];

/// The driver and the options of a new image, once nothing is wrong with what is asked for.
pub fn options(
    request: &ConvertRequest,
    new: &NewTarget,
    tell: &mut dyn FnMut(ConvertPart),
) -> Result<(&'static Driver, Values), ErrorRecord> {
    let profile = request.profile;
    let driver = Driver::for_target(&new.format, profile).map_err(|error| match request.part {
        // `dd` does not say which.
        Some(_) if Driver::find(&new.format, profile).is_none() => {
            ErrorRecord::new(error.kind, "Unknown file format")
        }
        _ => error,
    })?;
    let list = new.options.as_deref().unwrap_or_default();
    let mut values = Values::parse(driver, list, profile).map_err(|mut error| {
        // The list is not blamed once more as a whole.
        if let Some(end) = error.message.rfind('\n') {
            error.message.truncate(end);
        }
        error
    })?;
    for (what, name, value) in [
        ("Backing file", "backing_file", &new.backing_file),
        ("Backing file format", "backing_fmt", &new.backing_format),
    ] {
        if let Some(value) = value {
            let message = || format!("{what} not supported for file format '{}'", driver.name);
            values.set(driver, name, value, profile).ok_or_else(|| unsupported(message()))?;
        }
    }
    if values.text("backing_file") == Some("") {
        return Err(ErrorRecord::new(ErrorKind::Usage, "Expected backing file name, got empty string"));
    }
    if values.has("backing_file") {
        if request.sources.len() > 1 {
            let message = "Having a backing file for the target makes no sense when concatenating multiple input images";
            return Err(unsupported(message.to_owned()));
        }
        if !values.has("backing_fmt") {
            if profile >= QemuVersion::V7_2 {
                let message = "Use of backing file requires explicit backing format";
                return Err(ErrorRecord::new(ErrorKind::Usage, message));
            }
            let text = "Deprecated use of backing file without explicit backing format";
            tell(ConvertPart::Warning(text.to_owned()));
        }
    }
    if values.flag("keep_data_file") && values.has("data_file") {
        let message = "'keep_data_file=on' is for new images that nothing is copied into";
        return Err(unsupported(message.to_owned()));
    }
    if request.compress {
        check_compression(driver, &values)?;
    }
    Ok((driver, values))
}

fn check_compression(driver: &Driver, values: &Values) -> Result<(), ErrorRecord> {
    if !COMPRESSED.contains(&driver.name) {
        return Err(no_compression());
    }
    if values.flag("encryption") || values.has("encrypt.format") {
        return Err(unsupported("Compression and encryption not supported at the same time".to_owned()));
    }
    match values.text("preallocation") {
        None | Some("off") => Ok(()),
        Some(_) => {
            Err(unsupported("Compression and preallocation not supported at the same time".to_owned()))
        }
    }
}

/// That the format of the target cannot be written compressed.
pub fn no_compression() -> ErrorRecord {
    unsupported("Compression not supported for this file format".to_owned())
}

<<<<<<< HEAD
/// Whether the sources have bitmaps that can be copied.
pub fn bitmaps_of<S: Storage>(source: &Source<'_, S>) -> Result<(), ErrorRecord> {
    let has = |chain: &Chain<S>| chain.layers().first().is_some_and(Image::supports_bitmaps);
    match source.chains().len() {
        1 if source.chains().all(has) => Ok(()),
        1 => Err(unsupported("Source lacks bitmap support".to_owned())),
        _ => Err(unsupported("Copying bitmaps only possible with single source".to_owned())),
    }
}

/// Whether the format of the target can have bitmaps.
pub fn bitmaps_in(format: &str) -> Result<(), ErrorRecord> {
    match format {
        "qcow2" => Ok(()),
        _ => Err(unsupported(format!("Format driver '{format}' does not support bitmaps"))),
    }
}

/// The content id of what is below a new VMDK image.
pub fn cid<S: Storage>(below: &Chain<S>) -> Result<u32, ErrorRecord> {
    let vmdk = below.layers().first().and_then(Image::vmdk);
    vmdk.map(Vmdk::cid).ok_or_else(|| unsupported("backing_file must be a vmdk image".to_owned()))
}

=======
>>>>>>> b4b17c6 (Copy bitmaps, and keep data files that are to be kept)
/// The failure to make the image.
pub fn not_made(request: &ConvertRequest, new: &NewTarget, error: ErrorRecord) -> ErrorRecord {
    let doing = match request.part {
        Some(_) => "creating output image".to_owned(),
        None => format!("converting {}", new.format),
    };
    let message = format!("{}: error while {doing}: {}", new.name, error.message);
    ErrorRecord { message, disk: None, ..error }
}

fn unsupported(message: String) -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Unsupported, message)
}
