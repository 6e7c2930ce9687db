//! An Apple disk image that is anything.
#![no_main]

use formats::{Format, Image, probe_named_dmg};
use instar_fuzz::storage::{Liar, map, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    map(input, Format::Dmg);
    let mut file = Liar::new(input);
    if let Ok(format) = probe_named_dmg(&mut file)
        && let Ok(mut image) = Image::open(file, Some(format))
    {
        walk(&mut image);
    }
});
