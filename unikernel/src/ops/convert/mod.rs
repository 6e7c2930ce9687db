//! `convert`: an image out of others.

mod bitmaps;
mod checks;

use alloc::{boxed::Box, vec::Vec};

use codecs::Method;
use formats::{Chain, write::Writer};
use protocol::{
    ConvertAnswer, ConvertPart, ConvertRequest, ConvertTarget, DiskPart, ErrorKind, ErrorRecord, NewTarget,
};

use crate::{
    files::Files,
    mover::{self, Compress, Copy, Source, SparseSize, StartWrite, Terms},
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
    let mut source = open_sources(request, files)?;
    let mut beyond = false;
    if let Some(DiskPart { start, end }) = request.part {
        beyond = start > end.min(source.size());
        source = source.part(start, end);
    }
    let align = request.align.unwrap_or(SECTOR);
    let size = source.size().checked_next_multiple_of(align).ok_or_else(too_long)?;
    let (mut target, zero_already) = match &request.target {
        ConvertTarget::New(new) => {
            let (driver, values) = checks::options(request, new, tell)?;
            if let Some(wanted) = request.bitmaps {
                bitmaps::check_source(&source, wanted, request.profile)?;
            }
            let target = make(request, new, (driver, &values), size, files)?;
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
    let whole = match request.progress {
        true => source.data_bytes(terms.sparse.is_none())?,
        false => 0,
    };
    let (mut meter, mut moved) = (Meter::new(STEP), 0);
    let mut progress = |more: u64| {
        moved += more;
        let percent = 100.0 * moved as f64 / whole as f64;
        if let Some(progress) = meter.set(percent as f32).filter(|_| request.progress) {
            tell(ConvertPart::Progress(progress));
        }
    };
    let method = target.codec().and_then(mover::method);
    if request.compress && method.is_none() {
        return Err(checks::no_compression());
    }
    // What is stored as streams is so without being asked.
    match method.filter(|method| request.compress || *method == Method::Zlib) {
        Some(method) => {
            Compress::new(&mut *target, terms, method).run(&mut source, &mut progress)?;
        }
        None => Copy::new(&mut *target, terms).run(&mut source, &mut progress)?,
    }
    if request.bitmaps.is_some() {
        bitmaps::copy(&mut source, &mut *target, tell)?;
    }
    target.finish().map_err(source::record)?;
    Ok(ConvertAnswer { size, beyond })
}

fn open_sources<F: Files>(
    request: &ConvertRequest,
    files: &mut F,
) -> Result<Source<F::Storage>, ErrorRecord> {
    let open = |image| source::open(image, &request.secrets, request.profile, files);
    let mut chains: Vec<Chain<F::Storage>> = request.sources.iter().map(open).collect::<Result<_, _>>()?;
    if let Some(snapshot) = &request.snapshot {
        for top in chains.iter_mut().filter_map(|chain| chain.layers_mut().first_mut()) {
            source::load_snapshot(top, snapshot)?;
        }
    }
    Source::new(chains, request.backing).ok_or_else(too_long)
}

fn too_long() -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes")
}

/// Makes the image that is written, for a disk of `size` bytes.
fn make<F: Files<Storage: StartWrite + 'static>>(
    request: &ConvertRequest,
    new: &NewTarget,
    (driver, values): (&Driver, &Values),
    size: u64,
    files: &mut F,
) -> Result<Box<dyn Writer<Storage = F::Storage>>, ErrorRecord> {
    let profile = request.profile;
    let image = NewImage {
        size,
        name: &new.name,
        parent_cid: None,
        secrets: &request.secrets,
        profile,
        chance: new.chance,
        file: &new.file,
        data_file: new.data_file.as_ref(),
    };
    let made = target::create(driver.target()?, values, &image, files);
    made.map_err(|error| checks::not_made(request, new, error))
}
