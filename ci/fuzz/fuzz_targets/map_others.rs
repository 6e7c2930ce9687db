//! An image that is anything, read as each of the formats without a target of their own.
#![no_main]

use formats::{Format, Image};
use instar_fuzz::storage::{Liar, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for format in [
        Format::Vdi,
        Format::Qcow,
        Format::Qed,
        Format::Parallels,
        Format::Luks,
        Format::Bochs,
        Format::Cloop,
    ] {
        if let Ok(mut image) = Image::open(Liar::new(input), Some(format)) {
            walk(&mut image);
        }
        // What its data needs is not needed to say what it is.
        let _ = Image::open_metadata(Liar::new(input), Some(format));
    }
});
