//! A qcow2 image that is anything is checked and repaired: neither panics, memory makes no difference to what is found, and
//! a check after the repair finds nothing worse, unless metadata lies over other metadata and changes with it.
#![no_main]

use std::fmt::Arguments;

use formats::{
    Access, Format, Image, OpenOptions, Region, Storage, StorageError, StorageMut,
    check::{Findings, Release, Repair, Terms},
};
use libfuzzer_sys::fuzz_target;

const RELEASE: Release = Release { major: 11, minor: 1 };
const PLENTY: Terms = Terms { release: RELEASE, memory: 1 << 30 };
const LITTLE: Terms = Terms { release: RELEASE, memory: 0 };

/// More lines than this are not told of one by one by a fuzzer with little time.
const PATIENCE: usize = 1 << 16;

/// A file in memory that does not become long.
struct Bounded(Vec<u8>);

const LONGEST: u64 = 32 << 20;

impl Storage for Bounded {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.0.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.0.region_at(offset)
    }
}

impl StorageMut for Bounded {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= LONGEST);
        end.ok_or(StorageError)?;
        self.0.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> Result<(), StorageError> {
        if length > LONGEST { Err(StorageError) } else { self.0.set_length(length) }
    }
}

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
