//! VHDX images that are created and written: the files of `qemu-img create`, byte for byte with the same GUIDs and sequence
//! number, and of `qemu-img convert` up to headers and log, which it writes with each block.

mod support;

use std::fs;
use std::path::Path;

use formats::vhdx::{self, Create, Guids};
use formats::write::Writer;
use images::build::vhdx::{BAT, Builder, Change, FULL, log_entry, put, put_log};
use support::write::{Disk, assert_files, assert_holds, converted, field, new_file, old_file};
use support::{Random, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const MEBIBYTE: u32 = 1 << 20;

/// Options, and what they are here, the block size aside.
struct Case {
    options: &'static str,
    fixed: bool,
    block_state_zero: bool,
    log_size: u32,
}

const fn case(options: &'static str, fixed: bool, block_state_zero: bool, log_size: u32) -> Case {
    Case { options, fixed, block_state_zero, log_size }
}

const CASES: [Case; 5] = [
    case("subformat=dynamic", false, true, MEBIBYTE),
    case("log_size=3M", false, true, 3 * MEBIBYTE),
    case("block_state_zero=off", false, false, MEBIBYTE),
    case("subformat=fixed", true, true, MEBIBYTE),
    case("subformat=fixed,block_state_zero=off", true, false, MEBIBYTE),
];

/// What an image of `qemu-img` was made with.
struct Made {
    creator: String,
    sequence_number: u64,
    guids: Guids,
    disk_id: [u8; 16],
}

impl Made {
    fn with(path: &Path) -> Self {
        let creator: [u8; 512] = field(path, 8);
        let units: Vec<u16> = creator.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let creator = String::from_utf16(&units).unwrap().trim_end_matches('\0').to_owned();
        let metadata = u64::from_le_bytes(field(path, 0x30040));
        Self {
            creator,
            sequence_number: u64::from_le_bytes(field(path, 0x10008)),
            guids: Guids { file_write: field(path, 0x10010), data_write: field(path, 0x10020) },
            disk_id: field(path, metadata + 0x10010),
        }
    }

    fn create(&self, case: &Case, size: u64, block_size: u64) -> Create<'_> {
        let Self { ref creator, sequence_number, guids, disk_id } = *self;
        let (fixed, block_state_zero, log_size) = (case.fixed, case.block_state_zero, case.log_size);
        let block_size = u32::try_from(block_size).unwrap();
        Create {
            size,
            fixed,
            block_size,
            log_size,
            block_state_zero,
            creator,
            sequence_number,
            guids,
            disk_id,
        }
    }
}

fn options(case: &Case, block_size: u64) -> String {
    format!("{},block_size={block_size}", case.options)
}

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    for case in &CASES {
        for (size, block_size) in [
            (1, MIB),
            (3 * MIB, 8 * MIB),
            (17 * MIB + 512, MIB),
            (GIB, 8 * MIB),
            (13 * GIB + 512, 16 * MIB),
            (1024 * GIB, MIB),
            (1024 * GIB, 256 * MIB),
        ] {
            let options = options(case, block_size);
            qemu_img_ok(&["create", "-q", "-f", "vhdx", "-o", &options, text(&theirs), &size.to_string()]);
            // QEMU makes it and finds its end missing.
            if case.fixed && !case.block_state_zero && !size.is_multiple_of(block_size) && size > 4 * GIB {
                continue;
            }
            let made = Made::with(&theirs);
            drop(vhdx::create(new_file(&ours), &made.create(case, size, block_size)).unwrap());
            assert_files(&ours, &theirs, &[], &format!("{options} {size}"));
        }
    }
}

#[test]
fn what_there_is_no_image_for() {
    let made = Made {
        creator: String::new(),
        sequence_number: 0,
        guids: Guids { file_write: [1; 16], data_write: [2; 16] },
        disk_id: [3; 16],
    };
    let why = |create: &Create<'_>| vhdx::create(Vec::new(), create).unwrap_err().message;
    let new = |size, block_size| made.create(&CASES[0], size, block_size);
    assert_eq!(why(&new((64 << 40) + 1, MIB)), "Image size too large; max of 64TB");
    assert_eq!(why(&new(MIB, 3 * MIB)), "Invalid block size 3145728");
    assert_eq!(why(&new(MIB, 512 * MIB)), "Invalid block size 536870912");
    let odd = Create { log_size: 4096, ..new(MIB, MIB) };
    assert_eq!(why(&odd), "Log length is not a multiple of 1 MiB");
}

#[test]
fn a_written_image_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.vhdx");
    let mut random = Random(17);
    for (size, block_size) in [(512, 8 * MIB), (7 * MIB, MIB), (21 * MIB + 512, 8 * MIB)] {
        let disk = Disk::random(size, 64 << 10, &mut random);
        for case in &CASES {
            let options = options(case, block_size);
            let theirs = converted(directory.path(), "theirs.vhdx", "vhdx", &options, &disk);
            let made = Made::with(&theirs);
            let mut writer = vhdx::create(new_file(&ours), &made.create(case, size, block_size)).unwrap();
            disk.write(&mut writer);
            let headers_and_log = [0x10000..0x30000, MIB..MIB + u64::from(case.log_size)];
            assert_files(&ours, &theirs, &headers_and_log, &format!("{options} {size}"));
            assert_holds(&ours, "vhdx", &disk.bytes);
        }
    }
}

#[test]
fn any_order_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.vhdx");
    let mut random = Random(18);
    for case in &CASES {
        let size = 25 * MIB + 512;
        // One of QEMU's, so that nothing but its GUIDs and metadata is ours to know.
        let options = options(case, 2 * MIB);
        qemu_img_ok(&["create", "-q", "-f", "vhdx", "-o", &options, text(&path), &size.to_string()]);
        let made = Made::with(&path);
        let mut disk = Disk { bytes: vec![0; usize::try_from(size).unwrap()], unit: 77 * 512 };
        let create = made.create(case, size, 2 * MIB);
        disk.scribble(&mut vhdx::create(new_file(&path), &create).unwrap(), &mut random);
        assert_holds(&path, "vhdx", &disk.bytes);
        let guids = Guids { file_write: [9; 16], data_write: [8; 16] };
        disk.unit = 2 * MIB;
        disk.scribble(&mut vhdx::open(old_file(&path), guids).unwrap(), &mut random);
        assert_holds(&path, "vhdx", &disk.bytes);
        let found: [[u8; 16]; 2] = [field(&path, 0x10020), field(&path, 0x20020)];
        assert_eq!(found, [[8; 16]; 2]);
    }
}

/// What a log says is done before an image is written to, and does not come back.
#[test]
fn a_log_is_replayed_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.vhdx");
    let mut bytes = Builder { bat: vec![(0, (4 << 20) | FULL)], ..Builder::default() }.build();
    let mut page = vec![0; 4096];
    put(&mut page, 0, &((5 << 20) | FULL).to_le_bytes());
    let change = Change::Data { at: BAT as u64, page };
    bytes[4 << 20..5 << 20].fill(4);
    bytes[5 << 20..6 << 20].fill(5);
    put_log(&mut bytes, 0, &log_entry(7, 0, &[change], 16 << 20, 16 << 20));
    fs::write(&path, bytes).unwrap();
    let guids = Guids { file_write: [9; 16], data_write: [8; 16] };
    let mut writer = vhdx::open(old_file(&path), guids).unwrap();
    let size = usize::try_from(writer.virtual_size()).unwrap();
    let mut disk = Disk { bytes: vec![0; size], unit: writer.unit() };
    disk.bytes[..1 << 20].fill(5);
    disk.bytes[1 << 20..2 << 20].fill(1);
    disk.store(&mut writer, MIB, MIB);
    writer.finish().unwrap();
    drop(writer);
    assert_holds(&path, "vhdx", &disk.bytes);
}
