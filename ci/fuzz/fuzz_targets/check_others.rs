//! Images of the formats beside qcow2 that are anything are checked and repaired: neither panics, both end, and a check
//! after the repair finds nothing worse.
#![no_main]

use std::fmt::Arguments;

use formats::{
    Access, Format, Image, OpenOptions, Storage,
    check::{Release, Repair, Terms},
};
use instar_fuzz::storage::Bounded;
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 6] =
    [Format::Vmdk, Format::Vdi, Format::Vhdx, Format::Qed, Format::Parallels, Format::Vpc];
const RELEASES: [Release; 2] = [Release { major: 11, minor: 1 }, Release { major: 7, minor: 2 }];

/// More lines than this are not told of one by one by a fuzzer with little time.
const PATIENCE: u64 = 1 << 16;

fn open<S: Storage>(storage: S, format: Format) -> Option<Image<S>> {
    let options = OpenOptions { format: Some(format), access: Access::Check, encryption: None };
    Image::open_with(storage, options).ok()
}

/// Faults, if the check comes to an end, and the lines that it tells.
fn check(bytes: &[u8], format: Format, terms: &Terms) -> (Option<u64>, u64) {
    let mut lines = 0;
    let found = open(bytes, format).map(|mut image| image.check(terms, &mut |_: Arguments<'_>| lines += 1));
    let findings = found.and_then(Result::ok).flatten();
    (findings.map(|found| found.corruptions + found.check_errors), lines)
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_last() else { return };
    let format = FORMATS[usize::from(choice) % FORMATS.len()];
    let terms = Terms { release: RELEASES[usize::from(choice) / FORMATS.len() % 2], memory: 1 << 24 };
    let (before, lines) = check(input, format, &terms);
    let Some(before) = before.filter(|_| lines < PATIENCE) else { return };
    for how in [Repair::Leaks, Repair::All] {
        let Some(mut image) = open(Bounded(input.to_vec()), format) else { return };
        if !matches!(image.repair(how, &terms, &mut |_| {}), Ok(Some(_))) {
            continue;
        }
        let after = image.into_storage();
        if let (Some(found), _) = check(&after.0, format, &terms) {
            assert!(found <= before, "{format:?} {how:?}: {before} {found}");
        }
    }
});
