//! A qcow2 image that is anything is opened for writing, and written to: that does not panic and ends, places of data are in the
//! file and not over its header, and an image without faults has none afterwards.
#![no_main]

use formats::{
    Access, Format, Image, Key, OpenOptions,
    check::{Release, Terms},
    qcow2::open,
    write::Writer,
};
use instar_fuzz::storage::Bounded;
use libfuzzer_sys::fuzz_target;

const TERMS: Terms = Terms { release: Release { major: 11, minor: 1 }, memory: 1 << 24 };

/// Whether the image is without faults, if the check comes to an end. What counts as used behind the end of the file is a leak
/// once the file is longer.
fn is_sound(bytes: &[u8]) -> bool {
    let options = OpenOptions { format: Some(Format::Qcow2), access: Access::Check, encryption: None };
    let Ok(mut image) = Image::open_with(bytes, options) else { return false };
    let found = image.check(&TERMS, &mut |_| {});
    matches!(found, Ok(Some(found)) if found.corruptions + found.check_errors == 0)
}

/// Writes as the script says; an error ends it.
fn write(writer: &mut impl Writer, script: &[u8]) -> Option<()> {
    let (unit, size) = (writer.unit(), writer.virtual_size());
    for step in script.chunks_exact(3) {
        let clusters = size.div_ceil(unit);
        let first = u64::from(step[1]) * clusters / 256;
        let start = first * unit;
        let end = size.min((first + 1 + u64::from(step[2] % 16)) * unit);
        if start >= end {
            continue;
        }
        match step[0] % 4 {
            0 => writer.zero(start, end - start).ok()?,
            1 => {
                let length = usize::from(step[0]) * 7 + 1;
                let place = writer.allocate_compressed(start, &mut vec![step[2]; length]).ok()?;
                assert!(place.is_none_or(|place| place.offset >= unit));
            }
            _ => {
                let place = writer.allocate(start, end - start).ok()?;
                assert!(place.length >= 1 && place.length <= end - start && place.offset >= unit);
            }
        }
    }
    writer.finish().ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((&length, input)) = input.split_last() else { return };
    let Some((image, script)) = input.split_at_checked(input.len().saturating_sub(usize::from(length)))
    else {
        return;
    };
    let sound = is_sound(image);
    let Ok(mut writer) = open(Bounded(image.to_vec()), None, Key::None) else { return };
    let written = write(&mut writer, script).is_some();
    if sound && written {
        assert!(is_sound(&writer.into_storage().0.0));
    }
});
