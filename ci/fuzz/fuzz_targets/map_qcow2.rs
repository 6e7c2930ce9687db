//! A qcow2 image that is anything, on a file system that says anything of its holes.
#![no_main]

use formats::{Format, Image};
use instar_fuzz::storage::{Liar, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(mut image) = Image::open(Liar::new(input), Some(Format::Qcow2)) {
        assert!(image.virtual_size() <= i64::MAX as u64 && image.virtual_size() % 512 == 0);
        walk(&mut image);
    }
    if let Ok(image) = Image::open_metadata(Liar::new(input), None) {
        for bitmap in image.bitmaps() {
            assert!(bitmap.granularity() >= 512);
        }
        if let Some(backing) = image.backing() {
            assert!(!backing.name.is_empty() && !backing.name.contains(&0));
        }
    }
});
