//! Checking and repairing qcow2 images: in how little memory, what an interruption leaves behind, and that nothing gets
//! worse whatever the bytes are.

mod support;

use std::fmt::Arguments;

use formats::check::{Findings, Release, Repair, Terms};
use formats::{
    Access, Error, ExtentKind, Format, Image, OpenOptions, Region, Storage, StorageError, StorageMut,
};
use support::{Random, create, qemu_img_ok, qemu_io, text};

const RELEASE: Release = Release { major: 11, minor: 1 };
const PLENTY: Terms = Terms { release: RELEASE, memory: usize::MAX / 4 };
const LITTLE: Terms = Terms { release: RELEASE, memory: 0 };

/// What a check says, or a failure.
type Said = (Result<Findings, Error>, Vec<String>);

fn open<S: Storage>(storage: S) -> Result<Image<S>, Error> {
    let options = OpenOptions { format: Some(Format::Qcow2), access: Access::Check, encryption: None };
    Image::open_with(storage, options)
}

fn check(bytes: &[u8], terms: &Terms) -> Said {
    let mut lines = Vec::new();
    let mut tell = |line: Arguments<'_>| lines.push(line.to_string());
    let found = open(bytes).and_then(|mut image| image.check(terms, &mut tell));
    (found.map(Option::unwrap), lines)
}

fn repair<S: StorageMut>(storage: S, how: Repair, terms: &Terms) -> (Said, Option<S>) {
    let mut lines = Vec::new();
    let mut tell = |line: Arguments<'_>| lines.push(line.to_string());
    match open(storage) {
        Err(error) => ((Err(error), lines), None),
        Ok(mut image) => {
            let found = image.repair(how, terms, &mut tell).map(Option::unwrap);
            ((found, lines), Some(image.into_storage()))
        }
    }
}

/// Everything that is wrong.
fn faults(found: &Findings) -> u64 {
    found.corruptions + found.check_errors
}

/// A qcow2 image with a bit of everything.
fn image(options: &str, snapshot: bool) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "image.qcow2", options, "1M");
    qemu_io("qcow2", &path, &["write -P 1 0 100k", "write -P 2 300k 30k", "write -c -P 3 512k 64k"]);
    if snapshot {
        qemu_img_ok(&["snapshot", "-c", "one", text(&path)]);
        qemu_io("qcow2", &path, &["write -P 4 10k 40k"]);
    }
    std::fs::read(&path).unwrap()
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00)
        .unwrap()
}

fn put(bytes: &mut [u8], at: usize, change: &[u8]) {
    bytes.iter_mut().skip(at).zip(change).for_each(|(byte, new)| *byte = *new);
}

/// File offsets of the refcount table and its first block.
fn refcounts(bytes: &[u8]) -> (usize, usize) {
    let table = number(bytes, 48);
    (table, number(bytes, table))
}

/// The content of the disk, where it can be read.
fn content(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut image = Image::open(bytes, Some(Format::Qcow2)).ok()?;
    let mut content = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    let mut offset = 0;
    while offset < image.virtual_size() {
        let extent = image.extent_at(offset).ok()?;
        let at = usize::try_from(offset).unwrap();
        let run = &mut content[at..at + usize::try_from(extent.length).unwrap()];
        match extent.kind {
            ExtentKind::Data { offset } => (&mut &*bytes).read_at(offset, run).unwrap(),
            // Where the stream is stands for what is in it.
            ExtentKind::Compressed { offset, .. } => {
                run.iter_mut().zip(offset.to_le_bytes()).for_each(|(byte, place)| *byte = place);
            }
            ExtentKind::Zero { .. } | ExtentKind::Hole { .. } | ExtentKind::Unallocated { .. } => {}
        }
        offset += extent.length;
    }
    Some(content)
}

#[test]
fn little_memory_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "image.qcow2", "cluster_size=512", "60M");
    // More clusters than a page of counts has: 65536 of them.
    qemu_io("qcow2", &path, &["write -P 1 0 20M", "write -P 2 30M 22M"]);
    let whole = std::fs::read(&path).unwrap();
    let (table, block) = refcounts(&whole);
    let l2 = number(&whole, number(&whole, 40) + 8 * 400);
    let breaks: [&[(usize, &[u8])]; 4] = [
        &[],
        // Stored counts too high and too low, an entry without its mark, two that share a cluster.
        &[(block + 50, &[0, 9]), (l2, &[0]), (l2 + 16, &whole[l2 + 80..l2 + 88])],
        // No block for the first clusters.
        &[(table, &[0; 8])],
        // Counts that take more than a byte.
        &[(l2, &whole[l2 + 8..l2 + 16].repeat(63))],
    ];
    for changes in breaks {
        let mut bytes = whole.clone();
        for (at, change) in changes {
            put(&mut bytes, *at, change);
        }
        let plenty = check(&bytes, &PLENTY);
        assert_eq!(check(&bytes, &LITTLE), plenty);
        assert_eq!(faults(plenty.0.as_ref().unwrap()) == 0, changes.is_empty());
        for how in [Repair::Leaks, Repair::All] {
            let (said, much) = repair(bytes.clone(), how, &PLENTY);
            let (with_little, little) = repair(bytes.clone(), how, &LITTLE);
            assert_eq!(with_little, said);
            let (much, little) = (much.unwrap(), little.unwrap());
            assert!(much == little, "the image depends on memory");
            let (found, lines) = check(&much, &PLENTY);
            if how == Repair::All {
                assert_eq!(faults(&found.unwrap()), 0, "{lines:?}");
            }
        }
    }
}

/// A file in memory that remembers what was written to it since when.
#[derive(Default)]
struct Journal {
    bytes: Vec<u8>,
    before: Vec<u8>,
    /// Writes, and between them flushes.
    events: Vec<Option<(u64, Vec<u8>)>>,
}

impl Storage for Journal {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.bytes.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.bytes.region_at(offset)
    }
}

impl StorageMut for Journal {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.events.push(Some((offset, bytes.to_vec())));
        self.bytes.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.events.push(None);
        Ok(())
    }

    fn set_length(&mut self, _: u64) -> Result<(), StorageError> {
        Err(StorageError)
    }
}

impl Journal {
    fn new(bytes: Vec<u8>) -> Self {
        Self { before: bytes.clone(), bytes, events: Vec::new() }
    }

    /// The file after an interruption behind so many events: of what was written since the last flush, all, nothing or
    /// any of it is there.
    fn interrupted(&self, after: usize, random: &mut Random, chance: u64) -> Vec<u8> {
        let events = &self.events[..after];
        let flushed = events.iter().rposition(Option::is_none).unwrap_or(0);
        let mut bytes = self.before.clone();
        for (number, event) in events.iter().enumerate() {
            if let Some((offset, written)) = event
                && (number < flushed || random.below(4) < chance)
            {
                bytes.write_at(*offset, written).unwrap();
            }
        }
        bytes
    }
}

/// Images that can be read and have something wrong with them.
fn broken() -> Vec<Vec<u8>> {
    let mut broken = Vec::new();
    for (options, snapshot) in [
        ("cluster_size=512", true),
        ("cluster_size=4k,refcount_bits=64", true),
        ("cluster_size=16k,extended_l2=on", false),
        ("cluster_size=1k,refcount_bits=1", false),
    ] {
        let whole = image(options, snapshot);
        let (table, block) = refcounts(&whole);
        let l1 = number(&whole, 40);
        let mut with = |changes: &[(usize, &[u8])]| {
            let mut bytes = whole.clone();
            for (at, change) in changes {
                put(&mut bytes, *at, change);
            }
            broken.push(bytes);
        };
        with(&[(block + 4, &[0xff; 3])]);
        with(&[(block + 9, &[0; 20])]);
        with(&[(table, &[0; 8])]);
        with(&[(table + 8, &whole[table..table + 8])]);
        with(&[(l1, &[0])]);
        with(&[(72, &[0, 0, 0, 0, 0, 0, 0, whole[79] | 3]), (88, &[0xf0])]);
        if snapshot {
            // An entry without its extra data is incomplete.
            let entry = number(&whole, 64);
            with(&[(entry + 36, &[0, 0, 0, 0])]);
        }
    }
    broken
}

#[test]
fn an_interrupted_repair_leaves_an_image_that_is_no_worse() {
    let mut random = Random(11);
    for (index, bytes) in broken().into_iter().enumerate() {
        let (before, before_lines) = check(&bytes, &PLENTY);
        let before = before.unwrap();
        let data = content(&bytes);
        for how in [Repair::Leaks, Repair::All] {
            let (_, journal) = repair(Journal::new(bytes.clone()), how, &PLENTY);
            let journal = journal.unwrap();
            for after in 0..=journal.events.len() {
                for chance in [0, 1, 2, 3, 4] {
                    let left = journal.interrupted(after, &mut random, chance);
                    let (found, lines) = check(&left, &PLENTY);
                    let found = found.unwrap_or_else(|error| panic!("{index} {how:?} {after}: {error}"));
                    assert!(
                        faults(&found) <= faults(&before),
                        "{index} {how:?} {after}: {before:?} {found:?} {lines:?}"
                    );
                    assert!(content(&left) == data, "{index} {how:?} {after}: content");
                }
            }
            let overflows = before_lines.iter().any(|line| line.contains("overflow"));
            if how == Repair::All && !overflows {
                let (found, lines) = check(&journal.bytes, &PLENTY);
                let found = found.unwrap();
                let left = (found.corruptions, found.leaks, found.check_errors);
                assert_eq!(left, (0, 0, 0), "{index} {before:?} {lines:?}");
            }
        }
    }
}

#[test]
fn no_repair_makes_flipped_images_worse() {
    let mut random = Random(5);
    for (options, snapshot) in [
        ("cluster_size=512", true),
        ("cluster_size=2k,compat=0.10", true),
        ("cluster_size=16k,extended_l2=on", true),
        ("cluster_size=512,refcount_bits=2", false),
    ] {
        let whole = image(options, snapshot);
        // Data need not be hit: sectors that hold the same byte throughout are data.
        let is_data = |sector: &[u8]| sector.iter().all(|&byte| byte == sector[0]);
        let sectors: Vec<usize> =
            (0..whole.len() / 512).filter(|at| !is_data(&whole[at * 512..at * 512 + 512])).collect();
        for round in 0..800 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                let sector = sectors[usize::try_from(random.below(sectors.len() as u64)).unwrap()];
                let at = sector * 512 + usize::try_from(random.below(512)).unwrap();
                bytes[at] ^= 1 << random.below(8);
            }
            if round % 7 == 0 {
                bytes.truncate(usize::try_from(random.below(whole.len() as u64)).unwrap());
            }
            let (before, lines) = check(&bytes, &PLENTY);
            // What such an entry leads to counts when an image is checked and does not when it is repaired, as with qemu-img.
            let unaligned = lines.iter().any(|line| line.contains("L1 entry corrupted"));
            let Some(before) = before.ok().filter(|_| !unaligned) else {
                let _ = repair(bytes.clone(), Repair::All, &PLENTY);
                continue;
            };
            for how in [Repair::Leaks, Repair::All] {
                let ((repaired, lines), after) = repair(bytes.clone(), how, &PLENTY);
                let after = after.unwrap();
                let (found, left) = check(&after, &PLENTY);
                let found = found.unwrap();
                // Once leaks are gone, entries say of more clusters wrongly that they are shared: none is made right when
                // only leaks are repaired, or in a table that lies over other metadata.
                let marks = left.iter().filter(|line| line.contains("OFLAG_COPIED")).count() as u64;
                assert!(
                    faults(&found) - marks <= faults(&before),
                    "{options} {round} {how:?}: {before:?} {repaired:?} {lines:?} {found:?} {left:?}"
                );
                // A cluster of the disk that is one of metadata, too, changes with that.
                let shared = lines.iter().any(|line| line.starts_with("ERROR cluster"));
                if let (false, Some(before), Some(after)) = (shared, content(&bytes), content(&after)) {
                    assert!(before == after, "{options} {round} {how:?}: content, {lines:?}");
                }
            }
        }
    }
}
