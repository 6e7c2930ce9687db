//! Checking and repairing QED, Parallels and VHDX images: what an interruption leaves behind, what is repaired otherwise
//! than by `qemu-img`, and that nothing gets worse whatever the bytes are.

#[path = "support/journal.rs"]
mod journal;
mod support;

use std::fmt::Arguments;

use formats::check::{Findings, Release, Repair, Terms};
use formats::{Access, Error, ErrorKind, Format, Image, OpenOptions, Storage, StorageMut};
use images::build::vhdx::{BAT, Builder, Change, FULL, LOG, MIB, PAYLOAD, log_entry, put_log};
use journal::Journal;
use support::{Kind, Random, create, qemu_img, qemu_img_ok, qemu_io, text, walk};

const TERMS: Terms = Terms { release: Release { major: 11, minor: 1 }, memory: 16 << 20 };

/// Most bytes of a disk that are looked at.
const DISK_MAX: u64 = 8 << 20;

/// What a check says, or a failure.
type Said = (Result<Findings, Error>, Vec<String>);

fn open<S: Storage>(storage: S, format: Format) -> Result<Image<S>, Error> {
    let options = OpenOptions { format: Some(format), access: Access::Check, encryption: None };
    Image::open_with(storage, options)
}

fn check(bytes: &[u8], format: Format) -> Said {
    let mut lines = vec![];
    let mut tell = |line: Arguments<'_>| lines.push(line.to_string());
    let found = open(bytes, format).and_then(|mut image| image.check(&TERMS, &mut tell));
    (found.map(Option::unwrap), lines)
}

fn repair<S: StorageMut>(storage: S, format: Format, how: Repair) -> (Said, S) {
    repair_as(storage, format, how, &TERMS)
}

fn repair_as<S: StorageMut>(storage: S, format: Format, how: Repair, terms: &Terms) -> (Said, S) {
    let mut lines = vec![];
    let mut image = open(storage, format).unwrap();
    let found = image.repair(how, terms, &mut |line: Arguments<'_>| lines.push(line.to_string()));
    ((found.map(Option::unwrap), lines), image.into_storage())
}

fn faults(findings: &Findings) -> u64 {
    findings.corruptions + findings.check_errors
}

/// The bytes of the disk, if they can be read.
fn content(bytes: &[u8], format: Format) -> Option<Vec<u8>> {
    let mut image = Image::open(bytes, Some(format)).ok()?;
    let size = image.virtual_size();
    if size > DISK_MAX {
        return None;
    }
    let mut disk = vec![0; size as usize];
    for line in walk(&mut image).ok()? {
        if let Kind::Data(offset) = line.kind {
            let place = &mut disk[line.start as usize..(line.start + line.length) as usize];
            image.storage_mut().read_at(offset, place).unwrap();
        }
    }
    Some(disk)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn word(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// An image by `qemu-img` with data in it.
fn image(format: &str, options: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = support::cases::create_as(format, directory.path(), "image", options, "1M");
    qemu_io(format, &path, &["write -P 1 0 64k", "write -P 2 128k 32k", "write -P 3 960k 64k"]);
    std::fs::read(path).unwrap()
}

/// An image of 4 KiB clusters: the number of the first is 1.
fn parallels() -> Vec<u8> {
    image("parallels", "cluster_size=4k")
}

/// A VHDX whose log changes the block allocation table and zeroes something.
fn dirty_vhdx() -> Vec<u8> {
    let mut bytes = Builder { bat: vec![(0, (4 << 20) | FULL)], ..Builder::default() }.build();
    for (number, block) in (1..).zip(bytes[PAYLOAD..].chunks_mut(MIB)) {
        block.fill(number);
    }
    let mut page = vec![0; 4096];
    put(&mut page, 0, &((6 << 20) | FULL).to_le_bytes());
    put(&mut page, 16, &((7 << 20) | FULL).to_le_bytes());
    let length = bytes.len() as u64;
    let zeros = Change::Zero { at: BAT as u64 + 4096, length: 8192 };
    let changes = [Change::Data { at: BAT as u64, page }, zeros];
    put_log(&mut bytes, 0, &log_entry(7, 0, &changes, length, length));
    bytes
}

/// Images that can be read and have something wrong with them.
fn broken() -> Vec<(Format, Vec<u8>)> {
    let mut broken = vec![(Format::Vhdx, dirty_vhdx())];
    let whole = image("qed", "cluster_size=4k,table_size=2");
    let l2 = word(&whole, word(&whole, 40));
    let mut with = |format, whole: &[u8], changes: &[(usize, &[u8])]| {
        let mut bytes = whole.to_vec();
        for (at, change) in changes {
            put(&mut bytes, *at, change);
        }
        broken.push((format, bytes));
    };
    with(Format::Qed, &whole, &[(16, &[2])]);
    with(Format::Qed, &whole, &[(l2, &[7]), (l2 + 24, &[0; 8]), (16, &[2])]);
    with(Format::Qed, &whole, &[(32, &[0xff]), (word(&whole, 40) + 8, &[1, 2, 3])]);
    let whole = parallels();
    with(Format::Parallels, &whole, &[(44, b"Ynot")]);
    with(Format::Parallels, &whole, &[(64, &[9]), (80, &[9])]);
    with(Format::Parallels, &whole, &[(64, &[0, 1]), (68, &[9]), (48, &[1])]);
    let mut long = whole.clone();
    long.resize(whole.len() + 10_000, 5);
    with(Format::Parallels, &long, &[(64, &[9]), (44, b"Ynot")]);
    with(Format::Parallels, &whole[..whole.len() - 1000], &[(64, &[9])]);
    broken
}

#[test]
fn an_interrupted_repair_leaves_an_image_that_is_no_worse() {
    let mut random = Random(11);
    for (index, (format, bytes)) in broken().into_iter().enumerate() {
        let before = check(&bytes, format).0;
        let before = before.as_ref().map_or(u64::MAX, faults);
        let data = content(&bytes, format);
        for how in [Repair::Leaks, Repair::All] {
            let (_, journal) = repair(Journal::new(bytes.clone()), format, how);
            for after in 0..=journal.events.len() {
                for chance in [0, 1, 2, 3, 4] {
                    let left = journal.interrupted(after, &mut random, chance);
                    let (found, lines) = check(&left, format);
                    // In the middle of it an image says that it was not closed.
                    let unclean = lines.iter().any(|line| line.contains("not closed"));
                    let found = found.as_ref().map_or(u64::MAX, faults);
                    assert!(
                        found <= before.saturating_add(unclean.into()),
                        "{index} {how:?} {after}: {lines:?}"
                    );
                    if data.is_some() {
                        assert!(content(&left, format) == data, "{index} {how:?} {after}: content");
                    }
                }
            }
            if how == Repair::All {
                let (found, lines) = check(&journal.bytes, format);
                assert_eq!(faults(&found.unwrap()), 0, "{index} {lines:?}");
            }
        }
    }
}

#[test]
fn no_repair_makes_flipped_images_worse() {
    let mut random = Random(5);
    let images = [
        (Format::Qed, image("qed", "cluster_size=4k,table_size=2")),
        (Format::Parallels, parallels()),
        (Format::Parallels, image("parallels", "cluster_size=64k")),
        (Format::Vhdx, dirty_vhdx()),
    ];
    for (format, whole) in images {
        let is_data = |sector: &[u8]| sector.iter().all(|&byte| byte == sector[0]);
        let sectors: Vec<usize> =
            (0..whole.len() / 512).filter(|at| !is_data(&whole[at * 512..at * 512 + 512])).collect();
        for round in 0..if format == Format::Vhdx { 60 } else { 600 } {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                let sector = sectors[random.below(sectors.len() as u64) as usize];
                // Numbers of entries stay small: each is told of.
                let at = (sector * 512 + random.below(512) as usize) & !3;
                bytes[at + random.below(if sector == 0 { 2 } else { 4 }) as usize] ^= 1 << random.below(8);
            }
            if open(&bytes[..], format).is_err() {
                continue;
            }
            let (before, before_lines) = check(&bytes, format);
            let before = before.as_ref().map_or(u64::MAX, faults);
            for how in [Repair::Leaks, Repair::All] {
                let ((said, _), journal) = repair(Journal::new(bytes.clone()), format, how);
                if said.is_err() || open(&journal.bytes[..], format).is_err() {
                    continue;
                }
                let (found, lines) = check(&journal.bytes, format);
                let found = found.as_ref().map_or(u64::MAX, faults);
                let ways = if found == u64::MAX { lines.len() as u64 } else { found };
                assert!(
                    found <= before || ways <= before_lines.len() as u64,
                    "{format:?} {round} {how:?}: {before_lines:?} {lines:?}"
                );
            }
        }
    }
}

#[test]
fn a_log_is_replayed_into_the_file_as_qemu_img_does() {
    let bytes = dirty_vhdx();
    let (found, lines) = check(&bytes, Format::Vhdx);
    assert_eq!(
        (faults(&found.unwrap()), lines),
        (1, vec!["VHDX log contains changes that need to be replayed".into()])
    );
    let ((said, _), journal) = repair(Journal::new(bytes.clone()), Format::Vhdx, Repair::Leaks);
    assert_eq!(said.unwrap().corruptions_fixed, 1);
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours.vhdx", "theirs.vhdx"].map(|name| directory.path().join(name));
    std::fs::write(&ours, &journal.bytes).unwrap();
    std::fs::write(&theirs, &bytes).unwrap();
    qemu_img_ok(&["check", "-r", "all", text(&theirs)]);
    qemu_img_ok(&["check", text(&ours)]);
    qemu_img_ok(&["compare", text(&ours), text(&theirs)]);
    let replayed = std::fs::read(&theirs).unwrap();
    let different = (BAT..replayed.len()).find(|&at| journal.bytes.get(at) != replayed.get(at));
    assert_eq!((different, journal.bytes.len()), (None, replayed.len()));
    assert_eq!(content(&bytes, Format::Vhdx), content(&journal.bytes, Format::Vhdx));
}

#[test]
fn a_log_that_changes_itself_is_not_replayed() {
    let mut bytes = dirty_vhdx();
    let length = bytes.len() as u64;
    let change = Change::Zero { at: LOG as u64, length: 4096 };
    put_log(&mut bytes, 0, &log_entry(7, 0, &[change], length, length));
    let ((said, _), journal) = repair(Journal::new(bytes), Format::Vhdx, Repair::All);
    assert_eq!(said.unwrap_err().kind, ErrorKind::Corrupt);
    assert!(journal.events.is_empty());
}

#[test]
fn what_is_there_of_a_cluster_is_kept() {
    let whole = parallels();
    let cut = whole[..whole.len() - 1000].to_vec();
    let before = content(&cut, Format::Parallels);
    for (how, length) in [(Repair::Leaks, cut.len()), (Repair::All, whole.len())] {
        let (_, journal) = repair(Journal::new(cut.clone()), Format::Parallels, how);
        assert_eq!(journal.bytes.len(), length);
        assert_eq!(content(&journal.bytes, Format::Parallels), before);
    }
}

#[test]
fn a_cluster_among_the_metadata_is_told_and_left() {
    let mut bytes = image("parallels", "cluster_size=4k");
    // The data is said to begin behind the first two clusters.
    put(&mut bytes, 48, &24u32.to_le_bytes());
    for (release, what) in
        [(TERMS.release, "outside image"), (Release { major: 10, minor: 0 }, "not among the data")]
    {
        let mut lines = vec![];
        let mut image = open(&bytes[..], Format::Parallels).unwrap();
        let terms = Terms { release, ..TERMS };
        let found = image.check(&terms, &mut |line: Arguments<'_>| lines.push(line.to_string()));
        assert_eq!(lines, [0, 1].map(|index| format!("ERROR cluster {index} is {what}")));
        assert_eq!(faults(&found.unwrap().unwrap()), 2);
    }
    let before = content(&bytes, Format::Parallels);
    let (_, journal) = repair(Journal::new(bytes), Format::Parallels, Repair::All);
    assert_eq!(content(&journal.bytes, Format::Parallels), before);
}

#[test]
fn a_format_extension_is_not_cut_off() {
    let mut bytes = parallels();
    let at = bytes.len();
    bytes.resize(at + 4096, 0);
    put(&mut bytes, at, &0xab23_4cef_23dc_ea87_u64.to_le_bytes());
    put(&mut bytes, 56, &(at as u64 / 512).to_le_bytes());
    let (found, lines) = check(&bytes, Format::Parallels);
    assert_eq!((found.unwrap().leaks, lines.len()), (1, 1));
    let ((said, lines), journal) = repair(Journal::new(bytes.clone()), Format::Parallels, Repair::All);
    assert_eq!(
        (said.unwrap().leaks_fixed, lines[0].as_str()),
        (0, "ERROR space leaked at the end of the image 4096")
    );
    assert!(journal.bytes == bytes);
}

#[test]
fn copies_for_which_there_is_no_room_leave_the_file_as_long_as_it_was() {
    let mut bytes = parallels();
    let entry: [u8; 4] = bytes[64..68].try_into().unwrap();
    put(&mut bytes, 68, &entry);
    let mut journal = Journal::new(bytes.clone());
    journal.room = bytes.len() as u64 + 2048;
    let ((said, _), journal) = repair(journal, Format::Parallels, Repair::All);
    assert_eq!(said.unwrap_err().kind, ErrorKind::Io);
    assert_eq!(journal.bytes.len(), bytes.len());
    assert_eq!(content(&journal.bytes, Format::Parallels), content(&bytes, Format::Parallels));
}

#[test]
fn too_many_clusters_for_the_memory_are_refused() {
    let bytes = parallels();
    let mut image = open(&bytes[..], Format::Parallels).unwrap();
    let little = Terms { memory: 0, ..TERMS };
    image.check(&little, &mut |_| {}).unwrap();
    let mut far = bytes;
    far.resize(64 << 20, 0);
    put(&mut far, 64, &16000u32.to_le_bytes());
    let mut image = open(&far[..], Format::Parallels).unwrap();
    assert_eq!(image.check(&little, &mut |_| {}).unwrap_err().kind, ErrorKind::Limit);
}

#[test]
fn images_that_were_repaired_are_sound_to_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    for (index, (format, bytes)) in broken().into_iter().enumerate() {
        let (_, journal) = repair(Journal::new(bytes), format, Repair::All);
        let path = create(directory.path(), "image", "", "1M");
        std::fs::write(&path, &journal.bytes).unwrap();
        let said = qemu_img(&["check", "-f", format.name(), text(&path)]);
        let code = said.status.code();
        assert!(code == Some(0) || format == Format::Qed && code == Some(3), "{index} {said:?}");
    }
}

#[test]
fn leaks_are_cut_off_and_nothing_else_is_changed() {
    let whole = parallels();
    let mut bytes = whole.clone();
    bytes.resize(whole.len() + 5000, 1);
    put(&mut bytes, 44, b"Ynot");
    let ((said, lines), journal) = repair(Journal::new(bytes.clone()), Format::Parallels, Repair::Leaks);
    assert_eq!(said.unwrap().leaks_fixed, 2);
    assert_eq!(lines.len(), 2);
    assert!(journal.bytes == bytes[..whole.len()]);
}

#[test]
fn a_file_is_not_cut_within_its_metadata() {
    let mut bytes = parallels();
    // No cluster is there any more. Before 8.1 the image ends behind one all the same, and that is within the BAT.
    bytes[64..12 << 10].fill(0);
    put(&mut bytes, 32, &2000u32.to_le_bytes());
    let old = Terms { release: Release { major: 7, minor: 2 }, ..TERMS };
    let ((said, _), journal) = repair_as(Journal::new(bytes.clone()), Format::Parallels, Repair::All, &old);
    assert_eq!(said.unwrap().leaks_fixed, 0);
    assert!(journal.bytes == bytes);
}

#[test]
fn a_short_table_is_checked() {
    let mut bytes = parallels();
    put(&mut bytes, 32, &100u32.to_le_bytes());
    let (found, lines) = check(&bytes, Format::Parallels);
    let counts = found.unwrap().clusters;
    assert_eq!((counts.total, lines.len()), (100, 1));
    assert_eq!(content(&bytes, Format::Parallels).unwrap().len(), 1 << 20);
}
