//! `measure`: how long a new image will be, of a given size or with the data of an existing image.

use alloc::{borrow::ToOwned, format, string::ToString, vec::Vec};

use calc::{
    Length, luks,
    qcow2::{BitmapSpace, DataClusters, Geometry, Granularity},
    raw,
};
use formats::{ExtentKind, Format, Image, Storage};
use protocol::{
    ErrorKind, ErrorRecord, FileFacts, MeasureAnswer, MeasureRequest, MeasureSubject, QemuVersion,
};

use crate::options::{Compat, Driver, LuksOptions, Preallocation, Qcow2Options, Quoted, Target, Values};

/// Answers `request`; `open` gives the storage of the file it names.
///
/// The checks are made in `qemu-img`'s order: the image, the target format, its options, what they mean together.
pub fn run<S: Storage>(
    request: &MeasureRequest,
    open: impl FnOnce(&FileFacts) -> Result<S, ErrorRecord>,
) -> Result<MeasureAnswer, ErrorRecord> {
    let profile = request.profile;
    let mut source = Source::new(&request.subject, profile, open)?;
    let driver = Driver::for_target(&request.target_format, profile)?;
    let values = Values::parse(driver, request.options.as_deref().unwrap_or_default(), profile)?;
    let secrets: Vec<&str> = request.secrets.iter().map(AsRef::as_ref).collect();
    match driver.measured()? {
        Target::Raw => Ok(same(raw::length(source.length()?).bytes())),
        Target::Luks => {
            let LuksOptions { key, key_use } = LuksOptions::new(&values, "", &secrets, profile)?;
            Ok(same(luks::image_length(key, key_use, source.length()?)))
        }
        Target::Qcow2 => {
            let options = Qcow2Options::new(&values, &secrets, profile)?;
            qcow2(&mut source, &options, profile)
        }
    }
}

/// What is measured.
enum Source<S> {
    Size(u64),
    Image(Image<S>),
}

impl<S: Storage> Source<S> {
    fn new(
        subject: &MeasureSubject,
        profile: QemuVersion,
        open: impl FnOnce(&FileFacts) -> Result<S, ErrorRecord>,
    ) -> Result<Self, ErrorRecord> {
        match subject {
            MeasureSubject::Size(size) => Ok(Self::Size(*size)),
            MeasureSubject::Image { file, format, snapshot } => {
                let image = open_image(file, format.as_deref(), profile, open)?;
                match snapshot {
                    Some(_) => Err(refuse_snapshot(&image)),
                    None => Ok(Self::Image(image)),
                }
            }
        }
    }

    /// Length of the disk in bytes.
    fn length(&self) -> Result<Length, ErrorRecord> {
        let bytes = match self {
            Self::Size(size) => *size,
            Self::Image(image) => image.virtual_size(),
        };
        Length::new(bytes)
            .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes"))
    }
}

/// Opens the image, which must stand alone: a name inside it is reported, not followed.
fn open_image<S: Storage>(
    file: &FileFacts,
    format: Option<&str>,
    profile: QemuVersion,
    open: impl FnOnce(&FileFacts) -> Result<S, ErrorRecord>,
) -> Result<Image<S>, ErrorRecord> {
    let blame = |kind, message, field: Option<&str>| ErrorRecord {
        kind,
        message,
        disk: Some(file.disk.clone()),
        field: field.map(ToOwned::to_owned),
    };
    let format = match format {
        None => None,
        Some(name) => Some(Format::from_name(name).ok_or_else(|| match Driver::find(name, profile) {
            None => blame(ErrorKind::Usage, format!("Unknown driver '{}'", Quoted(name.as_bytes())), None),
            Some(_) => blame(ErrorKind::Unsupported, format!("Driver '{name}' is not supported"), None),
        })?),
    };
    let image = Image::open(open(file)?, format)
        .map_err(|error| blame(kind(error.kind), error.message, Some(error.field)))?;
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

/// Why the snapshot that is asked for is not measured.
fn refuse_snapshot<S: Storage>(image: &Image<S>) -> ErrorRecord {
    let (kind, why) = match image.qcow2() {
        None => (
            ErrorKind::Unsupported,
            format!(
                "Block format '{}' used by device '' does not support temporarily loading internal snapshots",
                image.format().name()
            ),
        ),
        Some(qcow2) if qcow2.header().snapshots().0 == 0 => {
            (ErrorKind::Usage, "Can't find snapshot".to_string())
        }
        Some(_) => (ErrorKind::Unsupported, "Reading internal snapshots is not supported".to_string()),
    };
    ErrorRecord::new(kind, format!("Failed to load snapshot: {why}"))
}

fn kind(kind: formats::ErrorKind) -> ErrorKind {
    match kind {
        formats::ErrorKind::Io => ErrorKind::Io,
        formats::ErrorKind::InvalidFormat => ErrorKind::InvalidFormat,
        formats::ErrorKind::Unsupported => ErrorKind::Unsupported,
        formats::ErrorKind::Corrupt => ErrorKind::Corrupt,
        formats::ErrorKind::Limit => ErrorKind::Limit,
        formats::ErrorKind::ReferenceDenied => ErrorKind::ReferenceDenied,
    }
}

/// The answer for a format whose images are as long empty as full.
fn same(length: u64) -> MeasureAnswer {
    MeasureAnswer { required: length, fully_allocated: length, bitmaps: None }
}

fn qcow2<S: Storage>(
    source: &mut Source<S>,
    options: &Qcow2Options,
    profile: QemuVersion,
) -> Result<MeasureAnswer, ErrorRecord> {
    let geometry = options.geometry;
    // The length of an existing image is not checked, only what the option `size` says beside it.
    let checked = match source {
        Source::Size(size) => *size,
        Source::Image(_) => options.size,
    };
    if !fits(geometry, checked) {
        return Err(ErrorRecord::new(
            ErrorKind::Unsupported,
            "The image size is too large (try using a larger cluster size)",
        ));
    }
    let length = source.length()?;
    let disk = geometry.virtual_size(length).bytes();
    let mut data = match &mut *source {
        Source::Size(_) => 0,
        // What equals the backing file need not be stored, but nobody looks.
        Source::Image(_) if options.has_backing_file => disk,
        Source::Image(image) if !image.reports_block_status() => whole(image, geometry),
        Source::Image(image) => data(image, geometry)?,
    };
    if matches!(options.preallocation, Preallocation::Falloc | Preallocation::Full) {
        data = disk;
    }
    let header =
        options.luks.map_or(0, |luks| luks::length_in_qcow2(luks.key, luks.key_use, geometry.cluster_size()));
    let metadata = header + geometry.metadata(length);
    let bitmaps = match source {
        Source::Image(image) if options.compat == Compat::V3 && has_bitmaps(image, profile) => {
            Some(bitmaps(image, geometry, length)?)
        }
        _ => None,
    };
    Ok(MeasureAnswer { required: metadata + data, fully_allocated: metadata + disk, bitmaps })
}

/// Whether the L1 table for a disk of `size` bytes has a size that is allowed. A `size` that rounds up to 2^64 counts
/// as 0: so it does in `qemu-img`, and no number depends on it.
fn fits(geometry: Geometry, size: u64) -> bool {
    match Length::new(size) {
        Some(length) => geometry.fits(length),
        None => size.checked_next_multiple_of(geometry.cluster_size().bytes()).is_none(),
    }
}

/// Bytes of the clusters of the new image that the data of `image` touches.
fn data<S: Storage>(image: &mut Image<S>, geometry: Geometry) -> Result<u64, ErrorRecord> {
    let mut data = DataClusters::new(geometry.cluster_size());
    let (end, format) = (image.virtual_size(), image.format());
    let mut offset = 0;
    while offset < end {
        let extent = image.extent_at(offset).map_err(|error| ErrorRecord {
            field: Some(error.field.to_owned()),
            ..ErrorRecord::new(
                kind(error.kind),
                format!("Unable to get block status: {}", why(format, &error)),
            )
        })?;
        let next = offset.saturating_add(extent.length.max(1)).min(end);
        match extent.kind {
            ExtentKind::Data { .. } | ExtentKind::Compressed { .. } => data.add(at(offset), at(next)),
            ExtentKind::Zero { .. } | ExtentKind::Unallocated => {}
        }
        offset = next;
    }
    Ok(data.bytes())
}

/// Bytes of the clusters of the new image if all of `image` is data.
fn whole<S: Storage>(image: &Image<S>, geometry: Geometry) -> u64 {
    let mut data = DataClusters::new(geometry.cluster_size());
    data.add(at(0), at(image.virtual_size()));
    data.bytes()
}

/// The system's words for why the mapping ends.
fn why(format: Format, error: &formats::Error) -> &'static str {
    match (format, error.kind) {
        (Format::Qed, formats::ErrorKind::Corrupt) => "Invalid argument",
        _ => "Input/output error",
    }
}

/// Whether the release knows of dirty bitmaps in images of the format.
fn has_bitmaps<S: Storage>(image: &Image<S>, profile: QemuVersion) -> bool {
    image.supports_bitmaps() && (image.format() != Format::Parallels || profile >= QemuVersion::V10_0)
}

/// An offset on a disk; none is past [`Length::MAX`], which every disk ends at or before.
fn at(offset: u64) -> Length {
    Length::new(offset).unwrap_or(Length::MAX)
}

/// Bytes of copies of the bitmaps of `image`.
fn bitmaps<S: Storage>(image: &Image<S>, geometry: Geometry, length: Length) -> Result<u64, ErrorRecord> {
    let blame = |why: &str| ErrorRecord {
        field: Some("bitmap directory".to_owned()),
        ..ErrorRecord::new(ErrorKind::Limit, why)
    };
    let mut space = BitmapSpace::new(geometry.cluster_size());
    for bitmap in image.bitmaps() {
        let granularity = Granularity::from_bits(bitmap.granularity_bits.into())
            .ok_or_else(|| blame("Bitmap granularity is out of range"))?;
        let name_length = u16::try_from(bitmap.name.len()).map_err(|_| blame("Bitmap name is too long"))?;
        space.add(length, granularity, name_length).map_err(|error| blame(&error.to_string()))?;
    }
    space.bytes().map_err(|error| blame(&error.to_string()))
}

#[cfg(test)]
mod tests;
