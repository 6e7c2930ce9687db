//! A raw image is data or holes, as the file system says, and nothing else.
#![no_main]

use formats::{Format, Image};
use instar_fuzz::storage::{Liar, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut image = Image::open(Liar::new(input), Some(Format::Raw)).expect("any file is a raw image");
    assert!(image.backing().is_none() && image.data_file().is_none() && image.bitmaps().is_empty());
    walk(&mut image);
    if let Ok(mut image) = Image::open(Liar::new(input), None) {
        walk(&mut image);
    }
});
