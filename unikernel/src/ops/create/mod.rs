//! `create`: a new image without data.

use alloc::{format, string::ToString};

use formats::{Chain, Storage, StorageMut, vmdk::Vmdk};
use protocol::{
    BelowNew, CreateAnswer, CreatePart, CreateRequest, ErrorKind, ErrorRecord, QemuVersion::V7_2,
    options::HINT,
};

use crate::{
    files::Files,
    options::{Driver, Values, printed},
    source,
    target::{self, NewImage},
};

/// Makes the image that `request` asks for in its file, and tells of it what `qemu-img` does.
///
/// Checks come in `qemu-img`'s order: the format, its options, the size and the image below, and then, when it was said what
/// is going to be made, what the options mean together.
pub fn run<F: Files<Storage: StorageMut + 'static>>(
    request: &CreateRequest,
    files: &mut F,
    tell: &mut dyn FnMut(CreatePart),
) -> Result<CreateAnswer, ErrorRecord> {
    let profile = request.profile;
    let driver = Driver::for_target(&request.format, profile)?;
    let target = driver.target()?;
    let mut values = values(request, driver)?;
    let below = below(request, files)?;
    let parent_cid = below.as_ref().and_then(|image| image.layers().first()?.vmdk().map(Vmdk::cid));
    let size = size(request, driver, &mut values, below.as_ref(), tell)?;
    tell(CreatePart::Formatting(printed(driver, &values, profile)));
    let new = NewImage {
        size,
        name: &request.name,
        parent_cid,
        strict_stream: false,
        secrets: &request.secrets,
        profile,
        chance: request.chance,
        file: &request.file,
        data_file: request.data_file.as_ref(),
    };
    let mut image = target::create(target, &values, &new, files)?;
    image.finish().map_err(source::record)?;
    Ok(CreateAnswer { size: image.virtual_size() })
}

/// The options, those included that have a word of their own on the command line.
fn values(request: &CreateRequest, driver: &Driver) -> Result<Values, ErrorRecord> {
    let profile = request.profile;
    let list = request.options.as_deref().unwrap_or_default();
    let mut values = Values::parse(driver, list, profile).map_err(|mut error| {
        // The list is not blamed once more as a whole.
        if let Some(end) = error.message.rfind('\n') {
            error.message.truncate(end);
        }
        error
    })?;
    if values.has("size") && request.size.is_some() {
        return Err(usage("The image size must be specified only once"));
    }
    let unsupported = |what: &str| {
        let message = format!("{what} not supported for file format '{}'", driver.name);
        ErrorRecord::new(ErrorKind::Unsupported, message)
    };
    if let Some(size) = request.size {
        values.set(driver, "size", &size.to_string(), profile).ok_or_else(|| unsupported("Size"))?;
    }
    if let Some(name) = &request.backing_file {
        values.set(driver, "backing_file", name, profile).ok_or_else(|| unsupported("Backing file"))?;
    }
    if let Some(format) = &request.backing_format {
        values
            .set(driver, "backing_fmt", format, profile)
            .ok_or_else(|| unsupported("Backing file format"))?;
    }
    match values.text("backing_file") {
        Some(name) if name == request.name => {
            Err(usage("Error: Trying to create an image with the same filename as the backing file"))
        }
        Some("") => Err(usage("Expected backing file name, got empty string")),
        _ => Ok(values),
    }
}

/// The image below, opened even where its size is not needed.
fn below<F: Files>(request: &CreateRequest, files: &mut F) -> Result<Option<Chain<F::Storage>>, ErrorRecord> {
    let below = match &request.backing {
        BelowNew::Refused(error) => Err(error.clone()),
        BelowNew::Image(image) => source::open(image, &request.secrets, request.profile, files).map(Some),
        BelowNew::Unopened => Ok(None),
    };
    below.map_err(|mut error| {
        error.message.push_str(&format!("\n{HINT}Could not open backing image."));
        // What is told is not about the new image.
        error.disk = None;
        error
    })
}

/// The size that is given, or else that of the image below.
fn size<S: Storage>(
    request: &CreateRequest,
    driver: &Driver,
    values: &mut Values,
    below: Option<&Chain<S>>,
    tell: &mut dyn FnMut(CreatePart),
) -> Result<u64, ErrorRecord> {
    let profile = request.profile;
    let format = below.and_then(|chain| chain.layers().first()).map(|image| image.format().name());
    if values.has("backing_file") && !values.has("backing_fmt") {
        let missing = "Backing file specified without backing format";
        match format {
            Some(format) if profile >= V7_2 => {
                return Err(usage(&format!("{missing}\n{HINT}Detected format of {format}.")));
            }
            None if profile >= V7_2 => return Err(usage(missing)),
            Some(format) => {
                tell(CreatePart::Warning(format!(
                    "Deprecated use of backing file without explicit backing format (detected format of {format})"
                )));
                if format != "raw" {
                    let _ = values.set(driver, "backing_fmt", format, profile);
                }
            }
            None => tell(CreatePart::Warning(
                "Deprecated use of unopened backing file without explicit backing format, use of this image \
                 requires potentially unsafe\u{20}format probing"
                    .into(),
            )),
        }
    }
    if !values.has("size")
        && let Some(chain) = below
    {
        let _ = values.set(driver, "size", &chain.virtual_size().to_string(), profile);
    }
    values.number("size").ok_or_else(|| usage("Image creation needs a size parameter"))
}

fn usage(message: &str) -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Usage, message)
}
