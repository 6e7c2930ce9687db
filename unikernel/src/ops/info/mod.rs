//! `info`: what an image says of itself. What it names is reported and not followed, but for the images below it where
//! the whole chain is wanted.

mod lists;
mod specific;

use alloc::{borrow::ToOwned, boxed::Box, format};

use formats::{Format, Image, Storage, vmdk::Vmdk};
use protocol::{
    BackingInfo, BlockLimits, ErrorKind, ErrorRecord, ImageInfo, ImageSource, InfoPart, InfoRequest, Text,
};

use crate::{files::Files, source};
use lists::Lists;

/// Longest name of the image below in bytes: so long a path can be in Linux.
const NAME_MAX: usize = 4096;

/// `BDRV_REQUEST_MAX_BYTES` without the part of a cluster at its end: the longest request to zero that QED takes.
const REQUEST_MAX: u64 = i32::MAX as u64;

/// Answers `request` about `files`: the last image of its chain. What is found before goes to `tell`.
pub fn run<F: Files>(
    request: &InfoRequest,
    files: &mut F,
    tell: &mut dyn FnMut(InfoPart),
) -> Result<ImageInfo, ErrorRecord> {
    let mut lists = Lists::new(tell);
    let mut opened = source::open_metadata(&request.source, request.profile, files)?;
    loop {
        lists.of(&mut opened.image).map_err(|error| opened.fault(error))?;
        let info = describe(&opened.image, &opened.source)?;
        if !request.backing_chain {
            return Ok(info);
        }
        match opened.below(request.profile, files)? {
            None => return Ok(info),
            Some(below) => opened = below,
        }
        lists.tell(InfoPart::Image(Box::new(info)));
    }
}

fn describe<S: Storage>(image: &Image<S>, source: &ImageSource) -> Result<ImageInfo, ErrorRecord> {
    let backing = match image.backing() {
        Some(backing) if backing.name.len() > NAME_MAX => {
            let message = format!("Name of the backing file is longer than {NAME_MAX} bytes");
            return Err(ErrorRecord::new(ErrorKind::Limit, message));
        }
        // qcow has no place for it, QED one for "raw" alone; VHD and VHDX parents are of their own format.
        Some(backing) => Some(BackingInfo {
            name: Text(backing.name.clone()),
            format: backing.format.clone().filter(|format| !format.is_empty()).map(Text),
        }),
        None => None,
    };
    Ok(ImageInfo {
        disk: source.file.disk.clone(),
        format: image.format().name().to_owned(),
        virtual_size: image.virtual_size(),
        cluster_size: image.cluster_size(),
        dirty: image.is_dirty(),
        encrypted: image.encrypted(),
        backing,
        specific: specific::of(image),
        limits: limits(image, source.format.is_none()),
    })
}

/// What QEMU's drivers ask of requests.
fn limits<S: Storage>(image: &Image<S>, probed: bool) -> BlockLimits {
    const SECTOR: u32 = 512;
    let cluster_size = image.cluster_size();
    let bytes = BlockLimits { request_alignment: 1, ..BlockLimits::default() };
    let sectors = BlockLimits { request_alignment: SECTOR, ..BlockLimits::default() };
    match image.format() {
        // What was not said to be raw must not become another format by a write of less than a sector.
        Format::Raw if probed => sectors,
        Format::Qcow2 => {
            let extended = image.qcow2().is_some_and(|qcow2| qcow2.header().has_extended_l2());
            BlockLimits {
                write_zeroes_alignment: cluster_size.map(|size| if extended { size / 32 } else { size }),
                discard_alignment: cluster_size,
                ..if image.encrypted() { sectors } else { bytes }
            }
        }
        Format::Vmdk => {
            let grains = image.vmdk().into_iter().flat_map(Vmdk::extents);
            let write_zeroes_alignment = grains.filter_map(|extent| extent.grain_size).max();
            BlockLimits { write_zeroes_alignment, ..bytes }
        }
        Format::Qed => BlockLimits {
            write_zeroes_alignment: cluster_size,
            max_write_zeroes: cluster_size.map(|size| REQUEST_MAX - REQUEST_MAX % size),
            ..sectors
        },
        Format::Raw | Format::Vpc | Format::Vdi => bytes,
        Format::Vhdx
        | Format::Qcow
        | Format::Parallels
        | Format::Luks
        | Format::Bochs
        | Format::Cloop
        | Format::Dmg => sectors,
    }
}

#[cfg(test)]
mod tests;
