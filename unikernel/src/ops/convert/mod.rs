//! `convert`: an image out of others.

use alloc::{borrow::ToOwned, boxed::Box, vec::Vec};

use formats::{Chain, qcow2, raw, write::Writer};
use protocol::{ConvertAnswer, ConvertPart, ConvertRequest, ConvertTarget, ErrorKind, ErrorRecord};

use crate::{
    files::Files,
    mover::{self, Compress, Copy, Inline, Source, SparseSize, StartWrite, Terms},
    source,
};

/// Most often that progress is told of: each thousandth of the way.
const STEPS: u64 = 1000;

/// Does what `request` says with `files`, and tells how far it is.
pub fn run<F: Files<Storage: StartWrite + 'static>>(
    request: &ConvertRequest,
    files: &mut F,
    tell: &mut dyn FnMut(ConvertPart),
) -> Result<ConvertAnswer, ErrorRecord> {
    let mut source = open_sources(request, files)?;
    let size = source.size();
    let mut target = target(request, size, files)?;
    let terms = Terms {
        sparse: SparseSize::new(request.sparse),
        zero_already: zero_already(request),
        top_only: request.backing,
    };
    let mut told = 0;
    let mut progress = |done: u64| {
        let step =
            u64::try_from(u128::from(done) * u128::from(STEPS) / u128::from(size.max(1))).unwrap_or(STEPS);
        if request.progress && step > told {
            told = step;
            tell(ConvertPart::Progress { done, total: size });
        }
    };
    match target.codec().and_then(mover::method).filter(|_| request.compress) {
        Some(method) => {
            Compress::new(&mut *target, terms, Inline::new(method)).run(&mut source, &mut progress)?;
        }
        None => Copy::new(&mut *target, terms).run(&mut source, &mut progress)?,
    }
    target.finish().map_err(source::record)?;
    Ok(ConvertAnswer { size })
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
    Source::new(chains, request.backing)
        .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is longer than 2^63 bytes"))
}

fn zero_already(request: &ConvertRequest) -> bool {
    match request.target {
        ConvertTarget::New { .. } => !request.backing,
        ConvertTarget::Existing { zero, .. } => zero,
    }
}

fn target<F: Files<Storage: StartWrite + 'static>>(
    request: &ConvertRequest,
    size: u64,
    files: &mut F,
) -> Result<Box<dyn Writer<Storage = F::Storage>>, ErrorRecord> {
    match &request.target {
        ConvertTarget::New { file, format, .. } if format == "raw" => {
            let file = files.open(file)?;
            Ok(Box::new(raw::create(file, &raw::Create { size }).map_err(source::record)?))
        }
        ConvertTarget::New { file, format, .. } if format == "qcow2" => {
            let file = files.open(file)?;
            let options = qcow2::Create::new(size)
                .ok_or_else(|| ErrorRecord::new(ErrorKind::Limit, "The disk is too long"))?;
            Ok(Box::new(qcow2::create(file, None, &options).map_err(source::record)?))
        }
        _ => Err(ErrorRecord {
            field: Some("format".to_owned()),
            ..ErrorRecord::new(ErrorKind::Unsupported, "Unsupported target")
        }),
    }
}
