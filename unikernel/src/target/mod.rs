//! A new image by its format's name and options, open for writing: what `create` leaves empty and `convert` fills.

mod luks;
mod open;
mod qcow2;
mod random;
mod vhdx;
mod vmdk;

use alloc::{boxed::Box, format, vec::Vec};

use calc::Length;
use formats::{StorageMut, fill_with_zeros, parallels, qcow, qed, raw, vdi, vpc, write::Writer};
use protocol::{Chance, ErrorKind, ErrorRecord, FileFacts, QemuVersion, Reply, Secret};

pub use self::open::{Existing, Opening, open};
use self::random::Random;
use crate::{
    files::Files,
    options::{self, FilePreallocation, LuksWords, Target, Values},
    source::{self, record},
};

/// Seconds from 1970 to 2000, from which on VHD counts.
const VHD_EPOCH: u64 = 946_684_800;

/// What a new image is made of beside the options of its format.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Name of the file, its directory perhaps in front of it.
    pub name: &'a str,
    /// Content id of the image below, if that is a VMDK image that is known.
    pub parent_cid: Option<u32>,
    /// Whether the tables of a streamOptimized VMDK are behind its grains.
    pub strict_stream: bool,
    /// The secrets there are.
    pub secrets: &'a [Secret],
    /// Whose defaults and words count.
    pub profile: QemuVersion,
    /// Where ids, salts and times come from.
    pub chance: Chance,
    /// The file it is in, or why there is none.
    pub file: &'a Reply,
    /// The file with its data, if the options name one.
    pub data_file: Option<&'a Reply>,
}

/// Whether a new image of these options reads as zeros. What was not written to an encrypted one is noise, where it has a place.
pub fn reads_as_zeros(target: Target, values: &Values) -> bool {
    let encrypted = values.flag("encryption") || values.has("encrypt.format");
    let preallocated = values.text("preallocation").is_some_and(|preallocation| preallocation != "off");
    let noise = matches!(target, Target::Luks) || encrypted && preallocated;
    !noise
}

/// Makes an image. Its options are checked first, then its file is opened and what was in it goes.
pub fn create<S: StorageMut + 'static>(
    target: Target,
    values: &Values,
    new: &NewImage<'_>,
    files: &mut dyn Files<Storage = S>,
) -> Result<Box<dyn Writer<Storage = S>>, ErrorRecord> {
    let &NewImage { size, profile, .. } = new;
    let length = Length::new(size)
        .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes"))?;
    let mut random = Random::new(new.chance.seed);
    match target {
        Target::Raw => {
            let preallocation = options::file_preallocation(values)?;
            let mut image = raw::create(empty(new.file, files)?, &raw::Create { size }).map_err(record)?;
            set_aside(&mut image, preallocation)?;
            Ok(Box::new(image))
        }
        Target::Vpc => {
            options::vpc_image(values, length, profile)?;
            let create = vpc::Create {
                size,
                fixed: values.text("subformat") == Some("fixed"),
                force_size: values.flag("force_size"),
                timestamp: u32::try_from(new.chance.time.saturating_sub(VHD_EPOCH)).unwrap_or(u32::MAX),
                unique_id: random.uuid(),
            };
            Ok(Box::new(vpc::create(empty(new.file, files)?, &create).map_err(record)?))
        }
        Target::Vdi => {
            options::vdi_image(values, length)?;
            let create = vdi::Create {
                size,
                is_static: values.flag("static"),
                uuid: random.uuid(),
                uuid_last_snapshot: random.uuid(),
            };
            Ok(Box::new(vdi::create(empty(new.file, files)?, &create).map_err(record)?))
        }
        Target::Qcow2 => qcow2::create(values, new, &mut random, files),
        Target::Vmdk => vmdk::create(values, length, new, &mut random, files),
        Target::Vhdx => vhdx::create(values, length, new, &mut random, files),
        Target::Qcow => {
            let secrets: Vec<&str> = new.secrets.iter().map(|secret| secret.id.as_str()).collect();
            options::qcow_image(values, length, &secrets, profile)?;
            if values.flag("encryption") || values.has("encrypt.format") {
                key(values, "encrypt.", new.secrets)?;
                return Err(not_encrypted());
            }
            // A file system made of a directory is no image below.
            let backing_file = values.text("backing_file").filter(|&name| name != "fat:");
            let create = qcow::Create { size, backing_file: backing_file.map(str::as_bytes) };
            Ok(Box::new(qcow::create(empty(new.file, files)?, &create).map_err(record)?))
        }
        Target::Qed => {
            options::qed_image(values, length, profile)?;
            let number =
                |name, default| u32::try_from(values.number(name).unwrap_or(default)).unwrap_or(u32::MAX);
            let create = qed::Create {
                size,
                cluster_size: number("cluster_size", 64 << 10),
                table_size: number("table_size", 4),
                backing_file: values.text("backing_file").map(str::as_bytes),
                backing_is_raw: values.text("backing_fmt") == Some("raw"),
            };
            Ok(Box::new(qed::create(empty(new.file, files)?, &create).map_err(record)?))
        }
        Target::Parallels => {
            options::parallels_image(values, length, profile)?;
            let cluster_size = values.number("cluster_size").unwrap_or(1 << 20).next_multiple_of(512);
            let create =
                parallels::Create { size, cluster_size: u32::try_from(cluster_size).unwrap_or(u32::MAX) };
            Ok(Box::new(parallels::create(empty(new.file, files)?, &create).map_err(record)?))
        }
        Target::Luks => {
            let words = LuksWords::new(values, "", profile)?;
            let header = luks::header(&words, key(values, "", new.secrets)?, new, &mut random)?;
            let mut image = formats::luks::create(empty(new.file, files)?, &header, size).map_err(record)?;
            set_aside(&mut image, options::file_preallocation(values)?)?;
            Ok(Box::new(image))
        }
    }
}

/// The format has encryption, and no new image of it is encrypted here.
fn not_encrypted() -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Unsupported, "Encrypted images cannot be made")
}

/// The secret that a new image is encrypted with; names of options have `prefix` in front of them.
fn key<'a>(values: &Values, prefix: &str, secrets: &'a [Secret]) -> Result<&'a str, ErrorRecord> {
    let usage = |message| ErrorRecord::new(ErrorKind::Usage, message);
    let id = values
        .text(&format!("{prefix}key-secret"))
        .ok_or_else(|| usage(format!("Parameter '{prefix}key-secret' is required for cipher")))?;
    source::password(id, secrets).map_err(usage)
}

/// The file of a new image, with nothing in it.
fn empty<S: StorageMut>(file: &Reply, files: &mut dyn Files<Storage = S>) -> Result<S, ErrorRecord> {
    let mut storage = files.open(facts(file)?)?;
    if !storage.is_empty() {
        storage.set_length(0).map_err(|error| record(error.into()))?;
    }
    Ok(storage)
}

fn facts(file: &Reply) -> Result<&FileFacts, ErrorRecord> {
    match file {
        Reply::File(facts) => Ok(facts),
        Reply::Refused(error) => Err(error.clone()),
    }
}

/// Sets space aside for all of the data of an image.
fn set_aside<S: StorageMut>(
    image: &mut impl Writer<Storage = S>,
    preallocation: FilePreallocation,
) -> Result<(), ErrorRecord> {
    let size = image.virtual_size();
    let mut offset = 0;
    while preallocation != FilePreallocation::Off && offset < size {
        let place = image.allocate(offset, size - offset).map_err(record)?;
        let length = place.length.min(size - offset);
        let Some(file) = image.file(place.file) else { break };
        let done = match preallocation {
            FilePreallocation::Full => fill_with_zeros(file, place.offset, length),
            _ => file.set_aside(place.offset, length),
        };
        done.map_err(|error| record(error.into()))?;
        offset += length;
    }
    Ok(())
}
