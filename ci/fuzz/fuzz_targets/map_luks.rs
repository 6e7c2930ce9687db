//! A LUKS disk that is anything, without a key and with one that opens it or not. So that a round is short, key slots take
//! few iterations.
#![no_main]

use formats::{Access, Format, Image, Key, OpenOptions};
use instar_fuzz::storage::{Liar, map};
use libfuzzer_sys::fuzz_target;

/// Offsets in the header of numbers of iterations, of 4 bytes each: of the master key's digest and of the key slots.
const ITERATIONS: [usize; 9] = [164, 212, 260, 308, 356, 404, 452, 500, 548];

fuzz_target!(|input: &[u8]| {
    map(input, Format::Luks);
    let mut bytes = input.to_vec();
    for at in ITERATIONS {
        if let Some(most) = bytes.get_mut(at..at + 3) {
            most.fill(0);
        }
    }
    let access = Access::Data(Key::Password("x"));
    let options = OpenOptions { format: Some(Format::Luks), access, encryption: None };
    if let Ok(mut image) = Image::open_with(Liar::whole(&bytes), options)
        && let Ok(extent) = image.extent_at(0)
    {
        assert_eq!(image.decrypt(&extent, 0, &mut [0; 512]), Ok(()));
    }
});
