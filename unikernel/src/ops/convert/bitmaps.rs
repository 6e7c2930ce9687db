//! Persistent bitmaps of a source that the new image gets, too (`--bitmaps`).

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use formats::{
    Chain, Image, Storage, StorageMut,
    qcow2::Bitmap,
    write::{NewBitmap, Writer},
};
use protocol::{
    Bitmaps, ConvertPart, ErrorKind, ErrorRecord,
    QemuVersion::{self, V5_2},
    options::HINT,
};

use crate::{
    mover::Source,
    options::{Quoted, Values},
    source::record,
};

/// Whether the source has bitmaps that can be copied, and all of them are consistent that are to be copied.
pub fn check_source<S: Storage>(
    source: &Source<S>,
    wanted: Bitmaps,
    profile: QemuVersion,
) -> Result<(), ErrorRecord> {
    let has = |chain: &Chain<S>| chain.layers().first().is_some_and(Image::supports_bitmaps);
    match source.chains().len() {
        1 if source.chains().all(has) => {}
        1 => return Err(unsupported("Source lacks bitmap support".to_owned())),
        _ => return Err(unsupported("Copying bitmaps only possible with single source".to_owned())),
    }
    let mut bitmaps = source.chains().filter_map(|chain| chain.layers().first()).flat_map(Image::bitmaps);
    match bitmaps.find(|bitmap| bitmap.in_use) {
        Some(bitmap) if wanted == Bitmaps::All => Err(inconsistent(bitmap, profile)),
        _ => Ok(()),
    }
}

fn inconsistent(bitmap: &Bitmap, profile: QemuVersion) -> ErrorRecord {
    let name = Quoted(&bitmap.name);
    let message = match profile {
        V5_2 => format!(
            "Failed to populate bitmap {name}: Bitmap '{name}' is inconsistent and cannot be used\n{HINT}Try \
             block-dirty-bitmap-remove to delete this bitmap from disk"
        ),
        _ => format!(
            "Cannot copy inconsistent bitmap '{name}'\n{HINT}Try --skip-broken-bitmaps, or use 'qemu-img bitmap \
             --remove' to delete it"
        ),
    };
    ErrorRecord::new(ErrorKind::Corrupt, message)
}

/// Whether the new image can have bitmaps.
pub fn check_target(format: &str, values: &Values) -> Result<(), ErrorRecord> {
    match (format, values.text("compat")) {
        ("qcow2", None | Some("1.1" | "v3")) => Ok(()),
        _ => Err(unsupported(format!("Format driver '{format}' does not support bitmaps"))),
    }
}

/// That there is an image which would get them.
pub fn into_existing() -> ErrorRecord {
    unsupported("Bitmaps are only copied into new images".to_owned())
}

/// Copies all that are consistent.
pub fn copy<S: Storage, T: StorageMut>(
    source: &mut Source<S>,
    target: &mut dyn Writer<Storage = T>,
    tell: &mut dyn FnMut(ConvertPart),
) -> Result<(), ErrorRecord> {
    let Some(image) = source.top_mut() else { return Ok(()) };
    let bitmaps: Vec<Bitmap> = image.bitmaps().to_vec();
    for bitmap in bitmaps {
        let name = Quoted(&bitmap.name);
        if bitmap.in_use {
            tell(ConvertPart::Warning(format!("Skipping inconsistent bitmap '{name}'")));
            continue;
        }
        let new =
            NewBitmap { name: &bitmap.name, granularity_bits: bitmap.granularity_bits, auto: bitmap.auto };
        let added = target.add_bitmap(&new, &mut |visit| image.visit_bitmap(&bitmap.name, visit).map(|_| ()));
        added.map_err(|error| {
            let error = record(error);
            ErrorRecord { message: format!("Failed to create bitmap {name}: {}", error.message), ..error }
        })?;
    }
    Ok(())
}

fn unsupported(message: String) -> ErrorRecord {
    ErrorRecord::new(ErrorKind::Unsupported, message)
}
