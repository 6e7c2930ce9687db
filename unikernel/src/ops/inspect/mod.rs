//! `inspect`: all that is odd about an image, for somebody to say whether it is safe. Nothing that it names is asked for.
//!
//! Work is bounded by what the file stores, as every walk over an image is, and by the bytes that `walk` decodes at most; memory by
//! the runs that `space` keeps at most.

mod confusion;
mod findings;
mod properties;
mod references;
mod space;
mod walk;

use alloc::{borrow::ToOwned, vec::Vec};

use formats::{Access, Format, Image, Key, OpenOptions, Storage, probe, probe_named_dmg, signatures};
use protocol::{ErrorRecord, InspectAnswer, InspectPart, InspectRequest, SignatureInfo};

use crate::{files::Files, source};
use findings::Findings;

/// Answers `request` about `files`. References go to `tell`.
pub fn run<F: Files<Storage: Clone>>(
    request: &InspectRequest,
    files: &mut F,
    tell: &mut dyn FnMut(InspectPart),
) -> Result<InspectAnswer, ErrorRecord> {
    let facts = &request.source.file;
    let blame = |error: ErrorRecord| ErrorRecord { disk: Some(facts.disk.clone()), ..error };
    let failed = |error: formats::Error| blame(source::record(error));
    let said = request.source.format.as_deref();
    let said = said.map(|name| source::format_of(name, request.profile)).transpose().map_err(blame)?;
    let mut storage = files.open(facts)?;

    let mut findings = Findings::default();
    let found = signatures(&mut storage).map_err(|error| failed(error.into()))?;
    let format = match said {
        Some(format) => format,
        None if facts.named_dmg => probe_named_dmg(&mut storage).map_err(failed)?,
        None => probe(&mut storage).map_err(failed)?,
    };
    confusion::judge(format, &found, is_fixed_vhd(storage.clone()), &mut findings);
    let mut answer = InspectAnswer {
        format: format.name().to_owned(),
        signatures: found.iter().map(|found| signature(*found, storage.len())).collect(),
        ..InspectAnswer::default()
    };
    if let Some(mut image) = open(storage.clone(), format, &mut findings).map_err(failed)? {
        references::tell(&mut image, &mut findings, tell).map_err(failed)?;
        let mut inspected = properties::of(&mut image, &mut findings).map_err(failed)?;
        inspected.content = confusion::content(&mut image, &mut findings);
        inspected.mapping = walk::mapping(&mut image, &mut findings).map_err(failed)?;
        answer.image = Some(inspected);
    }
    answer.findings = findings.into_list();
    Ok(answer)
}

/// Opens the image as who reads its data does, as far as that goes without a key.
fn open<S: Storage + Clone>(
    storage: S,
    format: Format,
    findings: &mut Findings,
) -> Result<Option<Image<S>>, formats::Error> {
    let options = |access| OpenOptions { format: Some(format), access, encryption: None };
    match Image::open_with(storage.clone(), options(Access::Data(Key::None))).err() {
        Some(error) if error.kind != formats::ErrorKind::Key => findings.error(error)?,
        _ => {}
    }
    // What it says of itself counts even where its data cannot be read.
    match Image::open_with(storage, options(Access::Metadata)) {
        Ok(image) => Ok(Some(image)),
        Err(error) => findings.error(error).map(|()| None),
    }
}

/// Whether a file is a fixed VHD to who is told so.
fn is_fixed_vhd<S: Storage>(storage: S) -> bool {
    let image = Image::open_metadata(storage, Some(Format::Vpc));
    let disk_type = image.ok().and_then(|image| image.vpc().map(|vpc| vpc.footer().disk_type()));
    disk_type == Some(formats::vpc::DiskType::Fixed)
}

/// A signature of something `length` bytes long.
fn signature(found: formats::Signature, length: u64) -> SignatureInfo {
    let offset = match found.at {
        formats::Anchor::Start(offset) => offset,
        formats::Anchor::End(distance) => length.saturating_sub(distance),
    };
    SignatureInfo { name: found.name.to_owned(), offset }
}

/// Those at the start: an end is a file's, and moves with it.
fn at_start(found: Vec<formats::Signature>) -> impl Iterator<Item = formats::Signature> {
    found.into_iter().filter(|found| matches!(found.at, formats::Anchor::Start(_)))
}

#[cfg(test)]
mod tests;
