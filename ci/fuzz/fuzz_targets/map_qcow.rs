//! A qcow image (version 1) that is anything.
#![no_main]

use formats::Format;
use instar_fuzz::storage::map;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| map(input, Format::Qcow));
