//! A qcow2 image that is anything is checked and repaired: neither panics, memory makes no difference to what is found, and
//! a check after the repair finds nothing worse, unless metadata lies over other metadata and changes with it.
#![no_main]

use std::fmt::Arguments;

use formats::{
    Access, Format, Image, OpenOptions, Storage,
    check::{Findings, Release, Repair, Terms},
};
use instar_fuzz::storage::Bounded;
use libfuzzer_sys::fuzz_target;

const RELEASE: Release = Release { major: 11, minor: 1 };
const PLENTY: Terms = Terms { release: RELEASE, memory: 1 << 30 };
const LITTLE: Terms = Terms { release: RELEASE, memory: 0 };

/// More lines than this are not told of one by one by a fuzzer with little time.
const PATIENCE: usize = 1 << 16;

fn open<S: Storage>(storage: S) -> Option<Image<S>> {
    let options = OpenOptions { format: Some(Format::Qcow2), access: Access::Check, encryption: None };
    Image::open_with(storage, options).ok()
}

/// What is found, and what is told of it but for marks of shared clusters, of which there are more once leaks are gone.
fn check(bytes: &[u8], terms: &Terms) -> Option<(Findings, u64)> {
    let mut marks = 0;
    let mut tell = |line: Arguments<'_>| marks += u64::from(line.to_string().contains("OFLAG_COPIED"));
    let findings = open(bytes)?.check(terms, &mut tell).ok()??;
    Some((findings, marks))
}

fuzz_target!(|input: &[u8]| {
    let mut lines = 0;
    let mut tangled = input.get(60..64) != Some(&[0; 4]);
    let mut count = |line: Arguments<'_>| {
        lines += 1;
        let line = line.to_string();
        let shared = line.starts_with("ERROR cluster") && !line.ends_with("reference=1");
        tangled |= shared || line.starts_with("ERROR refcount block") || line.contains("L1 entry corrupted");
    };
    let Some(mut image) = open(input) else { return };
    let found = image.check(&PLENTY, &mut count);
    if lines > PATIENCE {
        return;
    }
    let before = found.ok().flatten();
    if let Some(before) = &before {
        assert_eq!(check(input, &LITTLE).map(|(findings, _)| findings).as_ref(), Some(before));
    }
    for how in [Repair::Leaks, Repair::All] {
        let Some(mut image) = open(Bounded(input.to_vec())) else { return };
        let repaired = image.repair(how, &PLENTY, &mut |_| {});
        let after = image.into_storage();
        let (Some(before), true) = (&before, repaired.is_ok() && !tangled) else { continue };
        if let Some((found, marks)) = check(&after.0, &PLENTY) {
            let faults = found.corruptions + found.check_errors - marks;
            assert!(faults <= before.corruptions + before.check_errors, "{before:?} {found:?}");
        }
    }
});
