//! Images of the formats beside qcow2 that are anything are opened for writing and written to: nothing panics, every place is
//! one, and a file does not grow by more than is written and its tables.
#![no_main]

use formats::write::Writer;
use formats::{Error, Image, StorageMut, vhdx};
use instar_fuzz::storage::Bounded;
use libfuzzer_sys::fuzz_target;

/// Bytes at the end of an input that say what is done: three an operation, and the format.
const DEEDS: usize = 3 * 8 + 1;
/// Most units of an operation.
const UNITS: u64 = 64;

/// Does what the input says; the first failure ends it.
fn write<W: Writer<Storage = Bounded>>(mut writer: W, deeds: &[u8]) -> Result<(), Error> {
    let (size, unit) = (writer.virtual_size(), writer.unit());
    assert!(unit.is_power_of_two() && size <= i64::MAX as u64);
    for deed in deeds.chunks_exact(3) {
        let units = size.div_ceil(unit);
        let start = (u128::from(units) * u128::from(deed[1]) / 256) as u64 * unit;
        let length = (u64::from(deed[2]) % UNITS + 1).saturating_mul(unit).min(size.saturating_sub(start));
        if deed[0] % 4 == 0 {
            writer.zero(start, length)?;
            continue;
        }
        let place = writer.allocate(start, length)?;
        assert!(place.length >= 1 && place.length <= length, "{place:?} of {length}");
        assert!(place.offset.checked_add(place.length).is_some(), "{place:?}");
        let bytes = vec![deed[0]; place.length.min(1 << 16) as usize];
        let file = writer.file(place.file).expect("the file of a place is there");
        file.write_at(place.offset, &bytes)?;
    }
    writer.finish()
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, deeds)) = input.split_last_chunk::<DEEDS>() else { return };
    let (file, [deeds @ .., choice]) = (Bounded(bytes.to_vec()), deeds);
    let _ = match choice % 7 {
        0 => {
            // Every file that it names is the same.
            let names = Image::open_metadata(file.clone(), Some(formats::Format::Vmdk));
            let Ok(count) = names.map(|image| image.references().len().min(8)) else { return };
            formats::vmdk::open(file.clone(), vec![file; count], 1).and_then(|writer| write(writer, deeds))
        }
        1 => formats::vdi::open(file).and_then(|writer| write(writer, deeds)),
        2 => {
            let guids = vhdx::Guids { file_write: [1; 16], data_write: [2; 16] };
            let file = Bounded(instar_fuzz::vhdx::file(bytes));
            vhdx::open(file, guids).and_then(|writer| write(writer, deeds))
        }
        3 => formats::qed::open(file).and_then(|writer| write(writer, deeds)),
        4 => formats::parallels::open(file).and_then(|writer| write(writer, deeds)),
        5 => formats::vpc::open(file).and_then(|writer| write(writer, deeds)),
        _ => formats::qcow::open(file).and_then(|writer| write(writer, deeds)),
    };
});
