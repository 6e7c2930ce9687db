//! `convert`: an image out of others.

mod bitmaps;
mod checks;

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::cell::RefCell;

use codecs::Method;
use formats::{Chain, write::Writer};
use protocol::{
    BelowNew, ConvertAnswer, ConvertPart, ConvertRequest, ConvertTarget, DiskPart, ErrorKind, ErrorRecord,
    NewTarget, Reply,
};

use crate::{
    files::Files,
    mover::{self, Compress, Copy, Salvage, Source, SparseSize, StartWrite, Terms},
    options::{Driver, Values},
    progress::Meter,
    source,
    target::{self, Existing, NewImage, Opening},
};

/// Unit of the length of a disk, in bytes.
const SECTOR: u64 = 512;

/// Percent of the way between two times that progress is told of, as in `qemu-img convert -p`.
const STEP: f32 = 1.0;

/// Does what `request` says with `files`, and tells how far it is.
pub fn run<F: Files<Storage: StartWrite + 'static>>(
    request: &ConvertRequest,
    files: &mut F,
    tell: &mut dyn FnMut(ConvertPart),
) -> Result<ConvertAnswer, ErrorRecord> {
    let tell = RefCell::new(tell);
    let unreadable = |what: String| tell.borrow_mut()(ConvertPart::Unreadable(what));
    let salvage = request.salvage.then_some(&unreadable as &dyn Fn(String));
    let mut source = open_sources(request, salvage, files)?;
    let mut beyond = false;
    if let Some(DiskPart { start, end }) = request.part {
        beyond = start > end.min(source.size());
        source = source.part(start, end);
    }
    let align = request.align.unwrap_or(SECTOR);
    let size = source.size().checked_next_multiple_of(align).ok_or_else(too_long)?;
    let (mut target, zero_already) = match &request.target {
        ConvertTarget::New(new) => {
            let (driver, values) = checks::options(request, new, &mut *tell.borrow_mut())?;
            if let Some(wanted) = request.bitmaps {
                bitmaps::check_source(&source, wanted, request.profile)?;
            }
            let (target, below) = make(request, new, (driver, &values), size, files)?;
            if let Some(below) = below {
                source.set_below(below);
            }
            if request.bitmaps.is_some() {
                bitmaps::check_target(driver.name, &values)?;
            }
            (target, !request.backing && target::reads_as_zeros(driver.target()?, &values))
        }
        ConvertTarget::Existing { image, zero, chance } => {
            if let Some(wanted) = request.bitmaps {
                bitmaps::check_source(&source, wanted, request.profile)?;
                return Err(bitmaps::into_existing());
            }
            let opening =
                Opening { secrets: &request.secrets, profile: request.profile, chance: *chance, size };
            let Existing { writer, tail } = target::open(image, opening, files)
                .map_err(|error| ErrorRecord { disk: Some(image.file.disk.clone()), ..error })?;
            source = source.with_tail(size, tail);
            (writer, *zero)
        }
        ConvertTarget::Refused(error) => return Err(error.clone()),
    };
    if let Some(error) = &request.refused {
        return Err(error.clone());
    }
    let terms = Terms { sparse: SparseSize::new(request.sparse), zero_already, top_only: request.backing };
    let method = target.codec().and_then(mover::method);
    if request.compress && method.is_none() {
        return Err(checks::no_compression());
    }
    // What is stored as streams is so without being asked.
    let method = method.filter(|method| request.compress || *method == Method::Zlib);
    if method.is_some() {
        source.set_unit(target.unit());
    }
    // Who salvages is told of faults once more for this.
    let whole = match request.progress.is_some() || request.salvage {
        true => source.data_bytes(terms.sparse.is_none())?,
        false => 0,
    };
    let mut meter = Meter::new(STEP, request.progress.unwrap_or_default());
    let mut progress = |more: u64| {
        if let Some(progress) = meter.sum(more, whole).filter(|_| request.progress.is_some()) {
            tell.borrow_mut()(ConvertPart::Progress(progress));
        }
    };
    match method {
        Some(method) => {
            Compress::new(&mut *target, terms, method).run(&mut source, &mut progress)?;
        }
        None => Copy::new(&mut *target, terms).run(&mut source, &mut progress)?,
    }
    if request.bitmaps.is_some() {
        bitmaps::copy(&mut source, &mut *target, &mut *tell.borrow_mut())?;
    }
    target.finish().map_err(source::record)?;
    Ok(ConvertAnswer { size, beyond })
}

fn open_sources<'a, F: Files>(
    request: &ConvertRequest,
    salvage: Salvage<'a>,
    files: &mut F,
) -> Result<Source<'a, F::Storage>, ErrorRecord> {
    let open = |image| source::open(image, &request.secrets, request.profile, files);
    let mut chains: Vec<Chain<F::Storage>> = request.sources.iter().map(open).collect::<Result<_, _>>()?;
    if let Some(snapshot) = &request.snapshot {
        for top in chains.iter_mut().filter_map(|chain| chain.layers_mut().first_mut()) {
            source::load_snapshot(top, snapshot)?;
        }
    }
    Source::new(chains, request.backing, salvage).ok_or_else(too_long)
}

/// A new image, and what is below it, if that was opened.
type Made<S> = (Box<dyn Writer<Storage = S>>, Option<Chain<S>>);

fn too_long() -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes")
}

/// Makes the image that is written, for a disk of `size` bytes, and opens what is below it.
fn make<F: Files<Storage: StartWrite + 'static>>(
    request: &ConvertRequest,
    new: &NewTarget,
    (driver, values): (&Driver, &Values),
    size: u64,
    files: &mut F,
) -> Result<Made<F::Storage>, ErrorRecord> {
    let profile = request.profile;
    let not_made = |error| checks::not_made(request, new, error);
    let mut below = match &new.backing {
        BelowNew::Image(image) => source::open(image, &request.secrets, profile, files).map(Some),
        BelowNew::Refused(error) => Err(error.clone()),
        BelowNew::Unopened => Ok(None),
    };
    let mut parent_cid = None;
    // Of the formats only VMDK looks at the image below when one is made; else the new image cannot be opened.
    if driver.name == "vmdk" {
        let parent = below.map_err(not_made)?;
        parent_cid = parent.as_ref().map(checks::cid).transpose().map_err(not_made)?;
        below = Ok(parent);
    }
    let image = NewImage {
        size,
        name: &new.name,
        parent_cid,
        strict_stream: new.strict_stream,
        secrets: &request.secrets,
        profile,
        chance: new.chance,
        file: &new.file,
        data_file: new.data_file.as_ref(),
    };
    let made = target::create(driver.target()?, values, &image, files).map_err(not_made)?;
    let below = below.map_err(|error| {
        let message = format!("Could not open backing file: {}", error.message);
        let disk = match &new.file {
            Reply::File(file) => Some(file.disk.clone()),
            Reply::Refused(_) => None,
        };
        ErrorRecord { message, disk, ..error }
    })?;
    Ok((made, below))
}
