//! A VMDK image that is anything; the files it names are, for once, handed in: each is the image itself.
#![no_main]

use formats::{Format, Image};
use instar_fuzz::storage::{Liar, walk};
use libfuzzer_sys::fuzz_target;

/// Most files that are handed in.
const FILES: usize = 8;

fuzz_target!(|input: &[u8]| {
    for format in [Some(Format::Vmdk), None] {
        let Ok(mut image) = Image::open(Liar::new(input), format) else { continue };
        walk(&mut image);
        let names = image.references();
        assert!(names.iter().all(|name| !name.contains(&0)));
        let count = names.len();
        if (1..=FILES).contains(&count)
            && image.attach((0..count).map(|_| Liar::new(input)).collect()).is_ok()
        {
            walk(&mut image);
        }
    }
});
