//! Dirty logs: replayed in memory to the same disk that `qemu-img check -r all` makes of the file.

mod support;
#[path = "support/vhd.rs"]
mod vhd;

use formats::ErrorKind::{Corrupt, Limit, Unsupported};
use formats::{Error, Format, Image};
use images::build::vhdx::{
    BAT, Builder, Change, FULL, HEADERS, LOG, LOG_GUID, MIB, PAYLOAD, REGIONS, log_entry, put, put_log, seal,
};
use support::{Kind, Line, Memory, Random, qemu_img, qemu_img_ok, text, walk};
use vhd::{Patched, complaint, disk, flip, survive};

/// Blocks of 1 MiB, the first of them at 4 MiB; patterns in all that could be blocks.
fn base() -> Vec<u8> {
    let mut bytes = Builder { bat: vec![(0, (4 << 20) | FULL)], ..Builder::default() }.build();
    for (number, block) in (1..).zip(bytes[PAYLOAD..].chunks_mut(MIB)) {
        block.fill(number);
    }
    bytes
}

/// A page of the block allocation table.
fn bat_page(entries: &[(usize, u64)]) -> Change {
    let mut page = vec![0; 4096];
    for &(index, entry) in entries {
        put(&mut page, 8 * index, &entry.to_le_bytes());
    }
    Change::Data { at: BAT as u64, page }
}

fn full(mib: u64) -> u64 {
    (mib << 20) | FULL
}

fn open(bytes: &[u8]) -> Result<Image<Memory>, Error> {
    Image::open(Memory::new(bytes.to_vec()), Some(Format::Vhdx))
}

fn fault(bytes: &[u8]) -> Option<Error> {
    open(bytes).and_then(|mut image| walk(&mut image)).err()
}

const LEN: u64 = 16 << 20;

#[test]
fn a_log_is_replayed_as_qemu_img_would_if_it_could_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dirty.vhdx");
    let entry = |sequence, tail, changes: &[Change]| log_entry(sequence, tail, changes, LEN, LEN);
    let page = |mib| [bat_page(&[(0, full(mib)), (2, full(mib + 1))])];
    let zeros = || Change::Zero { at: BAT as u64, length: 8192 };
    type Entries = Vec<(usize, Vec<u8>)>;
    let cases: Vec<(&str, Entries)> = vec![
        ("one entry", vec![(0, entry(7, 0, &page(6)))]),
        ("not at the start", vec![(40960, entry(7, 40960, &page(6)))]),
        ("zeros", vec![(0, entry(7, 0, &[zeros()]))]),
        ("zeros and then data", vec![(0, entry(7, 0, &[zeros(), bat_page(&[(5, full(9))])]))]),
        ("data and then zeros", vec![(0, entry(7, 0, &[bat_page(&[(5, full(9))]), zeros()]))]),
        (
            "zeros past the end",
            vec![(0, entry(7, 0, &[bat_page(&[(5, full(9))]), Change::Zero { at: 20 << 20, length: 4096 }]))],
        ),
        (
            "three entries",
            vec![(0, entry(7, 0, &page(6))), (8192, entry(8, 0, &[zeros()])), (12288, entry(9, 0, &page(8)))],
        ),
        (
            "round the turn",
            vec![(MIB - 4096, entry(7, MIB - 4096, &page(6))), (4096, entry(8, MIB - 4096, &page(8)))],
        ),
        ("an older sequence", vec![(0, entry(30, 0, &page(6))), (40960, entry(20, 40960, &page(8)))]),
        ("a newer sequence", vec![(0, entry(20, 0, &page(6))), (40960, entry(30, 40960, &page(8)))]),
        ("no descriptors", vec![(0, entry(7, 0, &[]))]),
    ];
    for (what, entries) in cases {
        let mut bytes = base();
        for (at, entry) in &entries {
            put_log(&mut bytes, *at, entry);
        }
        std::fs::write(&path, &bytes).unwrap();
        let theirs = complaint("vhdx", &["info"], &path).unwrap();
        let expected = format!("VHDX image file '{}' opened read-only, but contains a log", text(&path));
        assert!(theirs.starts_with(&expected), "{what}: {theirs}");
        let ours = disk(&mut open(&bytes).unwrap());
        assert!(std::fs::read(&path).unwrap() == bytes);
        qemu_img(&["check", "-q", "-r", "all", "-f", "vhdx", text(&path)]);
        let raw = directory.path().join("disk.raw");
        qemu_img_ok(&["convert", "-f", "vhdx", "-O", "raw", text(&path), text(&raw)]);
        assert!(ours == std::fs::read(raw).unwrap(), "{what}");
    }
}

/// From the 127th on, descriptors are in pages of their own; `qemu-img` reads each of those over the one before.
#[test]
fn an_entry_with_many_descriptors_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dirty.vhdx");
    let changes: Vec<_> =
        (0..200).map(|number| bat_page(&[(0, full(4)), (3, full(5 + number % 9))])).collect();
    let mut bytes = base();
    put_log(&mut bytes, MIB - 4096, &log_entry(7, MIB - 4096, &changes, LEN, LEN));
    let lines = walk(&mut open(&bytes).unwrap()).unwrap();
    assert_eq!(lines[2], Line { start: 3 << 20, length: MIB as u64, kind: Kind::Data((5 + 199 % 9) << 20) });
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(complaint("vhdx", &["info"], &path).as_deref(), Some("Invalid argument"));
}

/// `qemu-img` takes any run of entries; the specification wants the last to name the first of those to be replayed.
#[test]
fn a_sequence_starts_at_the_tail_that_its_last_entry_names() {
    let mut bytes = base();
    put_log(&mut bytes, 0, &log_entry(7, 0, &[bat_page(&[(0, full(6)), (1, full(5))])], LEN, LEN));
    put_log(
        &mut bytes,
        8192,
        &log_entry(8, 8192, &[Change::Zero { at: BAT as u64 + 4096, length: 4096 }], LEN, LEN),
    );
    let mut image = open(&bytes).unwrap();
    let lines = walk(&mut image).unwrap();
    assert_eq!(lines[0], Line { start: 0, length: MIB as u64, kind: Kind::Data(PAYLOAD as u64) });
    assert!(image.vhdx().unwrap().log_replayed());
    // A tail that is no entry makes the sequence none.
    let mut bytes = base();
    put_log(&mut bytes, 0, &log_entry(7, 4096, &[bat_page(&[(0, full(6))])], LEN, LEN));
    let mut image = open(&bytes).unwrap();
    assert_eq!(walk(&mut image).unwrap()[0].kind, Kind::Data(PAYLOAD as u64));
    assert!(!image.vhdx().unwrap().log_replayed());
}

#[test]
fn entries_that_are_not_valid_are_not_there() {
    let good = log_entry(7, 0, &[bat_page(&[(0, full(6))])], LEN, LEN);
    let stale = |entry: &[u8]| {
        let mut bytes = base();
        put_log(&mut bytes, 0, entry);
        walk(&mut open(&bytes).unwrap()).unwrap()[0].kind == Kind::Data(PAYLOAD as u64)
    };
    assert!(!stale(&good));
    let broken = |at: usize, value: &[u8], sealed: bool| {
        let mut entry = good.clone();
        put(&mut entry, at, value);
        if sealed {
            seal(&mut entry);
        }
        entry
    };
    assert!(stale(&broken(4, &[0; 4], false)), "the checksum");
    assert!(stale(&broken(4096 + 100, &[1], false)), "the data");
    assert!(stale(&broken(0, b"logE", true)), "the signature");
    assert!(stale(&broken(8, &[0; 4], true)), "a length of nothing");
    assert!(stale(&broken(8, &4097_u32.to_le_bytes(), true)), "a part of a page");
    assert!(stale(&broken(8, &(2_u32 << 20).to_le_bytes(), true)), "longer than the log");
    assert!(stale(&broken(12, &[0xff; 4], true)), "a tail outside of the log");
    assert!(stale(&broken(16, &[0; 8], true)), "number 0");
    assert!(stale(&broken(24, &[0xff; 4], true)), "2^32 - 1 descriptors");
    assert!(stale(&broken(32, &[0; 16], true)), "another log's");
    // A gap in the numbers ends a sequence; the second is one of its own and newer.
    let mut bytes = base();
    put_log(&mut bytes, 0, &good);
    put_log(
        &mut bytes,
        8192,
        &log_entry(9, 8192, &[Change::Zero { at: BAT as u64, length: 4096 }], LEN, LEN),
    );
    assert_eq!(walk(&mut open(&bytes).unwrap()).unwrap()[0].kind, Kind::Zero);
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let change = || [bat_page(&[(0, full(6))])];
    let good = log_entry(7, 0, &change(), LEN, LEN);
    let broken = |at: usize, value: &[u8]| {
        let mut entry = good.clone();
        put(&mut entry, at, value);
        seal(&mut entry);
        entry
    };
    let at = |at: u64| log_entry(7, 0, &[Change::Data { at, page: vec![0; 4096] }], LEN, LEN);
    let zero = |at, length| log_entry(7, 0, &[Change::Zero { at, length }], LEN, LEN);
    let inconsistent = "Log entry is inconsistent in itself";
    let invalid = "Log descriptor has an invalid file offset or length";
    let headers = "Log writes to the file's headers";
    for (entry, message) in [
        (broken(64, b"what"), inconsistent),
        (broken(64 + 24, &[8]), inconsistent),
        (broken(4096, b"datA"), inconsistent),
        (broken(4096 + 4, &[1]), inconsistent),
        (broken(8192 - 4, &[8]), inconsistent),
        (broken(64 + 16, &[1]), invalid),
        (broken(64 + 16, &[0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), invalid),
        (zero(BAT as u64, 1), invalid),
        (zero(BAT as u64, !4095), invalid),
        (at(0), headers),
        (at(65536), headers),
        (at(REGIONS as u64 - 4096), headers),
        (zero(4096, LEN), headers),
        (
            log_entry(7, 0, &change(), LEN + 1, LEN),
            "File is shorter than the log says, and has probably been truncated",
        ),
        (log_entry(7, 0, &change(), LEN, u64::MAX), "Log makes the file too long"),
    ] {
        let mut bytes = base();
        put_log(&mut bytes, 0, &entry);
        let error = fault(&bytes).unwrap();
        assert_eq!((error.kind, error.message.as_str()), (Corrupt, message));
    }
    // More data than there are data sectors.
    let mut entry = log_entry(7, 0, &[bat_page(&[]), bat_page(&[])], LEN, LEN);
    entry.truncate(8192);
    put(&mut entry, 8, &8192_u32.to_le_bytes());
    seal(&mut entry);
    let mut bytes = base();
    put_log(&mut bytes, 0, &entry);
    assert_eq!(fault(&bytes).unwrap().message, inconsistent);
}

/// Metadata through the log is replayed; the data of a block cannot be pointed to in a log.
#[test]
fn what_the_log_changes_elsewhere() {
    let mut bytes = base();
    let block = Change::Data { at: PAYLOAD as u64 + 8192, page: vec![1; 4096] };
    put_log(&mut bytes, 0, &log_entry(7, 0, &[block], LEN, LEN));
    let error = Error::new(Unsupported, "log", "Log changes the data of a block (BAT entry 0)");
    assert_eq!(fault(&bytes), Some(error));
    // The file grows by the log: a block may lie behind its end.
    let mut bytes = base();
    put_log(&mut bytes, 0, &log_entry(7, 0, &[bat_page(&[(1, full(17))])], LEN, (18 << 20) - 5));
    let lines = walk(&mut open(&bytes).unwrap()).unwrap();
    assert_eq!(lines[1], Line { start: MIB as u64, length: MIB as u64, kind: Kind::Data(17 << 20) });
    // The region table and the metadata are read as the log has them.
    let mut bytes = base();
    let mut page = bytes[REGIONS..REGIONS + 4096].to_vec();
    bytes[REGIONS..REGIONS + 4096].fill(0);
    let region = Change::Data { at: REGIONS as u64, page: std::mem::take(&mut page) };
    assert!(open(&bytes).is_err());
    put_log(&mut bytes, 0, &log_entry(7, 0, &[region], LEN, LEN));
    assert_eq!(open(&bytes).unwrap().virtual_size(), 8 << 20);
}

#[test]
fn the_search_of_a_log_is_bounded() {
    let relog = |bytes: &mut [u8], offset: u64, length: u32| {
        for header in HEADERS {
            put(bytes, header + 48, &LOG_GUID);
            put(bytes, header + 68, &length.to_le_bytes());
            put(bytes, header + 72, &offset.to_le_bytes());
            seal(&mut bytes[header..header + 4096]);
        }
    };
    let mut bytes = base();
    relog(&mut bytes, LEN, 1 << 20);
    let message = "Log lies beyond the end of the file";
    assert_eq!(fault(&bytes), Some(Error::new(Corrupt, "LogOffset", message)));
    let mut bytes = base();
    bytes.resize(90 * MIB, 0);
    relog(&mut bytes, 16 << 20, 65 << 20);
    assert_eq!(fault(&bytes), Some(Error::new(Limit, "LogLength", "Log is longer than 64 MiB")));
    // Every page looks like the start of an entry as long as the log, and none is.
    let mut bytes = base();
    let mut entry = log_entry(7, 0, &[], LEN, LEN);
    put(&mut entry, 8, &1_048_576_u32.to_le_bytes());
    for page in 0..256 {
        put_log(&mut bytes, page * 4096, &entry);
    }
    assert_eq!(fault(&bytes).unwrap().kind, Limit);
    // One entry, and in it more pieces than are kept in memory.
    let changes: Vec<_> =
        (0..70_000).map(|page| Change::Zero { at: (1 << 30) + page * 8192, length: 4096 }).collect();
    let entry = log_entry(7, 0, &changes, LEN, LEN);
    let mut bytes = base();
    bytes.resize(20 * MIB, 0);
    put(&mut bytes, 16 * MIB, &entry);
    relog(&mut bytes, 16 << 20, 4 << 20);
    assert_eq!(fault(&bytes), Some(Error::new(Limit, "log", "Log changes too many pieces of the file")));
}

#[test]
fn flipped_bytes() {
    let mut random = Random(33);
    let mut bytes = base();
    let changes = [bat_page(&[(0, full(6)), (3, full(7))]), Change::Zero { at: 3 << 20, length: 0 }];
    put_log(&mut bytes, MIB - 8192, &log_entry(7, MIB - 8192, &changes, LEN, LEN));
    put_log(&mut bytes, 0, &log_entry(8, MIB - 8192, &changes, LEN, LEN));
    let (first, second) = (LOG + MIB - 8192, LOG);
    let places: Vec<usize> =
        [first, second].into_iter().flat_map(|at| (at..at + 160).chain(at + 4090..at + 4110)).collect();
    let mut replayed = 0;
    for _ in 0..1500 {
        let mut file = Patched::new(&bytes);
        flip(&mut file, &places, &mut random);
        if random.below(8) != 0 {
            for (start, length) in [(first, 8192), (second, 8192)] {
                let mut entry: Vec<u8> = (start..start + length).map(|at| file.get(at)).collect();
                seal(&mut entry);
                file.put(start + 4, &entry[4..8]);
            }
        }
        replayed += u32::from(
            Image::open(file.clone(), None).is_ok_and(|image| image.vhdx().unwrap().log_replayed()),
        );
        survive(file, Format::Vhdx, 20_000);
    }
    assert!(replayed > 100, "{replayed}");
}
