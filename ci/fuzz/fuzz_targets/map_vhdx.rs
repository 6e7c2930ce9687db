//! VHDX images that are anything, their checksums put right, are read and walked.
#![no_main]

use formats::{Format, Image};
use instar_fuzz::storage::{Liar, walk};
use instar_fuzz::vhdx;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let bytes = vhdx::file(input);
    if let Ok(mut image) = Image::open(Liar::whole(&bytes), Some(Format::Vhdx)) {
        walk(&mut image);
    }
});
