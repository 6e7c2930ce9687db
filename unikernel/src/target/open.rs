//! An existing image, open for writing.

use alloc::{boxed::Box, format, string::String, vec, vec::Vec};

use formats::{
    Access, Chain, ExtentKind, Format, Image, Key, OpenOptions, Storage, StorageMut, luks, parallels, qcow,
    qcow2, qed, raw, vdi, vhdx, vmdk, vpc, write::Writer,
};
use protocol::{Chance, ErrorKind, ErrorRecord, ImageSource, QemuVersion, Role, Secret};

use super::random::Random;
use crate::{
    files::Files,
    mover::{is_zero, pieces},
    options::Quoted,
    source::{self, record},
};

/// Most bytes behind the source that are kept with the unit in which it ends: the largest cluster of qcow2.
const TAIL_MAX: u64 = 2 << 20;

/// What an image is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The secrets there are.
    pub secrets: &'a [Secret],
    /// Whose words count.
    pub profile: QemuVersion,
    /// Where new ids come from.
    pub chance: Chance,
    /// Bytes of it that are going to be written, from the start of the disk.
    pub size: u64,
}

/// An image that is open for writing.
pub struct Existing<S> {
    /// The image.
    pub writer: Box<dyn Writer<Storage = S>>,
    /// What it holds behind that which is going to be written, up to the end of the [unit](Writer::unit) there: units are
    /// written whole. Empty if that is zeros.
    pub tail: Vec<u8>,
}

/// Opens the image to be written to. It must stand alone, but for an image below it.
pub fn open<F: Files<Storage: StorageMut + 'static>>(
    image: &ImageSource,
    opening: Opening<'_>,
    files: &mut F,
) -> Result<Existing<F::Storage>, ErrorRecord> {
    let described = source::open_file(image, Access::Metadata, opening.profile, files)?;
    if image.window.is_some() {
        let message = "A part of a file is not written to";
        return Err(ErrorRecord::new(ErrorKind::Unsupported, message));
    }
    let named = described.references().first().map(|name| (Role::Extent, name.as_slice()));
    let named = named.or_else(|| {
        described.data_file().map(|file| (Role::DataFile, file.name.as_deref().unwrap_or_default()))
    });
    if let Some((role, name)) = named {
        let (role, name) = (role.name(), Quoted(name));
        let message = format!("{role} '{name}' is a reference to another file and was not followed");
        return Err(ErrorRecord::new(ErrorKind::ReferenceDenied, message));
    }
    if described.virtual_size() < opening.size {
        return Err(ErrorRecord::new(ErrorKind::Usage, "output file is smaller than input file"));
    }
    let mut why = String::new();
    let key = source::key(image.key_secret.as_deref(), opening.secrets, &mut why);
    let (format, virtual_size) = (described.format(), described.virtual_size());
    let (storage, mut tail) = match format {
        // They are written sector by sector.
        Format::Raw | Format::Luks => (described.into_storage(), Vec::new()),
        _ => tail(described, opening.size, key)?,
    };
    let writer = writer(storage, format, key, opening.chance)?;
    let end = opening.size.next_multiple_of(writer.unit()).min(virtual_size.max(opening.size));
    let length = end - opening.size;
    if length > tail.len() as u64 && !matches!(format, Format::Raw | Format::Luks) {
        let message = format!("Blocks of {} bytes are only written whole", writer.unit());
        return Err(ErrorRecord::new(ErrorKind::Limit, message));
    }
    tail.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    if is_zero(&tail) {
        tail.clear();
    }
    Ok(Existing { writer, tail })
}

/// What the image holds from `size` on, [`TAIL_MAX`] bytes at most, and its file.
fn tail<S: Storage>(image: Image<S>, size: u64, key: Key<'_>) -> Result<(S, Vec<u8>), ErrorRecord> {
    let end = size.next_multiple_of(TAIL_MAX).min(image.virtual_size());
    let length = usize::try_from(end.saturating_sub(size)).unwrap_or(0);
    if length == 0 {
        return Ok((image.into_storage(), Vec::new()));
    }
    let options = OpenOptions { format: Some(image.format()), access: Access::Data(key), encryption: None };
    let mut image = Image::open_with(image.into_storage(), options).map_err(record)?;
    if image.backing().is_some() {
        let mut offset = size;
        while offset < end {
            let extent = image.extent_at(offset).map_err(record)?;
            if matches!(extent.kind, ExtentKind::Unallocated { .. }) {
                let message = "The source ends within a cluster of an image below the target";
                return Err(ErrorRecord::new(ErrorKind::Unsupported, message));
            }
            offset = extent.start + extent.length;
        }
    }
    let mut chain = Chain::new(image);
    let mut tail = vec![0; length];
    pieces::read(&mut chain, size, &mut tail)?;
    let file = chain.into_top().map(Image::into_storage);
    let missing = || ErrorRecord::new(ErrorKind::Io, "The file of the target is gone");
    Ok((file.ok_or_else(missing)?, tail))
}

fn writer<S: StorageMut + 'static>(
    storage: S,
    format: Format,
    key: Key<'_>,
    chance: Chance,
) -> Result<Box<dyn Writer<Storage = S>>, ErrorRecord> {
    let mut random = Random::new(chance.seed);
    Ok(match format {
        Format::Raw => Box::new(raw::open(storage).map_err(record)?),
        Format::Qcow2 => Box::new(qcow2::open(storage, None, key).map_err(record)?),
        Format::Vpc => Box::new(vpc::open(storage).map_err(record)?),
        Format::Vdi => Box::new(vdi::open(storage).map_err(record)?),
        Format::Vhdx => {
            let guids = vhdx::Guids { file_write: random.uuid(), data_write: random.uuid() };
            Box::new(vhdx::open(storage, guids).map_err(record)?)
        }
        Format::Vmdk => Box::new(vmdk::open(storage, Vec::new(), random.number()).map_err(record)?),
        Format::Qcow => Box::new(qcow::open(storage).map_err(record)?),
        Format::Qed => Box::new(qed::open(storage).map_err(record)?),
        Format::Parallels => Box::new(parallels::open(storage).map_err(record)?),
        Format::Luks => Box::new(luks::open(storage, key).map_err(record)?),
        Format::Dmg | Format::Cloop | Format::Bochs => {
            return Err(ErrorRecord::new(ErrorKind::Unsupported, "Image is read-only"));
        }
    })
}
