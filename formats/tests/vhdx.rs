//! VHDX images, real ones and hand-made ones, against `qemu-img`.

mod support;
#[path = "support/vhd.rs"]
mod vhd;

use formats::ErrorKind::{Corrupt, InvalidFormat, Io, Unsupported};
use formats::{Error, Format, Image, Region, Storage, StorageError, probe};
use images::build::vhdx::{
    BAT, Builder, FULL, HEADERS, ITEMS, METADATA, MIB, PARTIAL, PAYLOAD, REGIONS, locator, put, seal,
};
use support::{FileStorage, Kind, Line, Memory, Random, qemu_io, qemu_map, walk};
use vhd::{Patched, complaint, converts_alike, create_as, flip, interesting, scatter, survive};

const LINKAGE: &str = "{83ed0ec3-24c8-49a6-a959-5e4bd1288015}";

fn open(bytes: &[u8]) -> Result<Image<Memory>, Error> {
    Image::open(Memory::new(bytes.to_vec()), Some(Format::Vhdx))
}

fn fault(bytes: &[u8]) -> Option<Error> {
    open(bytes).and_then(|mut image| walk(&mut image)).err()
}

fn line(start: usize, length: usize, kind: Kind) -> Line {
    Line { start: start as u64, length: length as u64, kind }
}

fn data(at: usize) -> Kind {
    Kind::Data(at as u64)
}

#[test]
fn images_of_every_kind_read_as_they_do_for_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(31);
    for options in [
        "",
        "subformat=fixed",
        "block_size=1M",
        "block_size=2M,log_size=4M",
        "block_size=1M,subformat=fixed",
        "block_state_zero=off",
        "block_size=256M",
    ] {
        for size in ["512", "1000", "5M", "33M"] {
            let path = create_as("vhdx", directory.path(), &format!("{options}{size}.vhdx"), options, size);
            converts_alike(&path, Format::Vhdx);
            let length = Image::open(FileStorage::open(&path), None).unwrap().virtual_size();
            scatter("vhdx", &path, length, &mut random);
            converts_alike(&path, Format::Vhdx);
            assert_eq!(probe(&mut FileStorage::open(&path)), Ok(Format::Vhdx));
            // The map there shows one piece of data at no offset: it knows nothing.
            let image = Image::open(FileStorage::open(&path), None).unwrap();
            let all = Line { start: 0, length, kind: Kind::Compressed };
            assert_eq!(qemu_map("vhdx", &path), [all], "{options} {size}");
            assert!(!image.reports_block_status() && !image.vhdx().unwrap().log_replayed());
        }
    }
}

#[test]
fn empty_and_large_disks() {
    let directory = tempfile::tempdir().unwrap();
    for (options, size) in
        [("", "0"), ("", "1T"), ("block_size=1M", "1T"), ("block_state_zero=off", "64T"), ("", "64T")]
    {
        let path = create_as("vhdx", directory.path(), &format!("{options}{size}.vhdx"), options, size);
        let mut image = Image::open(FileStorage::open(&path), None).unwrap();
        assert!(walk(&mut image).unwrap().iter().all(|line| line.kind == Kind::Zero), "{options} {size}");
        if size == "0" {
            continue;
        }
        qemu_io("vhdx", &path, &["write -P 1 600G 1M", "write -P 2 0 512"]);
        let mut image = Image::open(FileStorage::open(&path), None).unwrap();
        let block = image.vhdx().unwrap().metadata().block_size();
        let lines = walk(&mut image).unwrap();
        let found: Vec<_> =
            lines.iter().filter(|line| line.kind != Kind::Zero).map(|line| line.start).collect();
        assert_eq!(found, [0, (600 << 30) / block * block]);
    }
}

/// Blocks that `qemu-img` finds only when it reads them, or reads what is no block of the disk.
#[test]
fn blocks_that_cannot_be_are_refused_when_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.vhdx");
    let blocks = |bat: &[(usize, u64)]| Builder { bat: bat.to_vec(), ..Builder::default() }.build();
    let same: Vec<_> = (0..8).map(|index| (index, (5 << 20) | FULL)).collect();
    let mut few = blocks(&same);
    few.truncate(6 * MIB);
    for (bytes, message) in [
        (blocks(&[(0, 4)]), "Invalid block state 4 (BAT entry 0)"),
        (
            blocks(&[(3, (5 << 20) | PARTIAL)]),
            "Block is there in part but the disk has no parent (BAT entry 3)",
        ),
        (blocks(&[(1, FULL)]), "Block overlaps the header section (BAT entry 1)"),
        (few, "Block allocation table has more entries than the file has blocks"),
    ] {
        assert_eq!(fault(&bytes), Some(Error::new(Corrupt, "BAT", message)));
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(complaint("vhdx", &["info"], &path), None);
        assert_eq!(complaint("vhdx", &["measure", "-O", "qcow2"], &path), None);
    }
}

#[test]
fn every_state_of_a_block() {
    let bat = vec![
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 5),
        (5, (5 << 20) | FULL),
        (6, (6 << 20) | FULL),
        (7, (4 << 20) | FULL),
    ];
    let bytes = Builder { bat: bat.clone(), ..Builder::default() }.build();
    let expected = [
        line(0, 5 * MIB, Kind::Zero),
        line(5 * MIB, 2 * MIB, data(5 * MIB)),
        line(7 * MIB, MIB, data(PAYLOAD)),
    ];
    assert_eq!(walk(&mut open(&bytes).unwrap()).unwrap(), expected);
    let parent = Some(locator(&[("relative_path", "a"), ("parent_linkage", LINKAGE)]));
    let bytes = Builder { bat, parent, ..Builder::default() }.build();
    let lines = walk(&mut open(&bytes).unwrap()).unwrap();
    assert_eq!(lines[..2], [line(0, MIB, Kind::Unallocated), line(MIB, 4 * MIB, Kind::Zero)]);
}

/// Sectors of 4096 bytes, which `qemu-img` refuses: eight times as many blocks to a chunk. Of the last block, which is
/// shorter, it mistakes the number as soon as there is a second chunk, and refuses it as cut off.
#[test]
fn sectors_of_4_kib_are_read_and_the_second_chunk_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large-sectors.vhdx");
    for (sector_size, ratio) in [(512, 16), (4096, 128)] {
        // Blocks of 256 MiB: the entry of a bitmap stands behind those of `ratio` blocks.
        let bat = vec![(ratio - 1, 2), (ratio, u64::MAX), (ratio + 1, (4 << 20) | FULL)];
        let last = ratio << 28;
        let size = (last + MIB) as u64;
        let bytes = Builder { block_size: 256 << 20, sector_size, size, bat, ..Builder::default() }.build();
        let mut image = open(&bytes).unwrap();
        assert_eq!(image.vhdx().unwrap().metadata().logical_sector_size(), u64::from(sector_size));
        let expected = [line(0, last, Kind::Zero), line(last, MIB, data(PAYLOAD))];
        assert_eq!(walk(&mut image).unwrap(), expected);
        std::fs::write(&path, &bytes).unwrap();
        let theirs = complaint("vhdx", &["info"], &path).unwrap();
        match sector_size {
            512 => assert!(theirs.starts_with("VHDX BAT entry 17 end offset"), "{theirs}"),
            _ => assert_eq!(theirs, "Operation not supported"),
        }
    }
}

#[test]
fn a_differencing_disk_names_its_parent_and_tells_sectors_apart() {
    let directory = tempfile::tempdir().unwrap();
    let pairs = [
        ("parent_linkage", LINKAGE),
        ("other", "x"),
        ("absolute_win32_path", "\\\\host\\share\\p.vhdx"),
        ("relative_path", "..\\p\u{e4}rent.vhdx"),
    ];
    for sector_size in [512_u32, 4096] {
        let chunk_ratio = 8 * sector_size as usize;
        let sector = sector_size as usize;
        let bitmap = 14 * MIB;
        let bat = vec![(1, (5 << 20) | PARTIAL), (3, (6 << 20) | FULL), (chunk_ratio, bitmap as u64 | FULL)];
        let mut bytes =
            Builder { sector_size, bat, parent: Some(locator(&pairs)), ..Builder::default() }.build();
        // Sectors 0 to 2 and 9 of block 1, the least significant bit first.
        let first = bitmap + MIB / sector / 8;
        put(&mut bytes, first, &[0b0000_0111, 0b0000_0010]);
        let mut image = open(&bytes).unwrap();
        let backing = image.backing().unwrap();
        assert_eq!(backing.name, "..\\p\u{e4}rent.vhdx".as_bytes());
        assert_eq!(backing.format.as_deref(), Some(&b"vhdx"[..]));
        assert_eq!(image.vhdx().unwrap().metadata().parent_locator().unwrap().linkage(), LINKAGE.as_bytes());
        let block = 5 * MIB;
        let expected = [
            line(0, MIB, Kind::Unallocated),
            line(MIB, 3 * sector, data(block)),
            line(MIB + 3 * sector, 6 * sector, Kind::Unallocated),
            line(MIB + 9 * sector, sector, data(block + 9 * sector)),
            line(MIB + 10 * sector, 2 * MIB - 10 * sector, Kind::Unallocated),
            line(3 * MIB, MIB, data(6 * MIB)),
            line(4 * MIB, 4 * MIB, Kind::Unallocated),
        ];
        assert_eq!(walk(&mut image).unwrap(), expected);
        let path = directory.path().join("child.vhdx");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(complaint("vhdx", &["info"], &path).as_deref(), Some("Operation not supported"));
    }
}

#[test]
fn bad_parent_locators_and_bitmaps() {
    let build = |parent: Vec<u8>, bat: &[(usize, u64)]| {
        Builder { parent: Some(parent), bat: bat.to_vec(), ..Builder::default() }.build()
    };
    let good = locator(&[("relative_path", "a")]);
    let absent = "Sector bitmap of block 1 is not in the file (BAT entry 4096)";
    let partial = (1, (5 << 20) | PARTIAL);
    for (entry, message) in [
        (0, absent),
        (FULL, absent),
        ((16 << 20) | FULL, absent),
        ((3 << 20) | FULL, "VHDX region 3145728-4194304 overlaps with region 3145728-4194304"),
    ] {
        let bytes = build(good.clone(), &[partial, (4096, entry)]);
        assert_eq!(fault(&bytes), Some(Error::new(Corrupt, "BAT", message)));
    }
    let nameless = "Differencing disk does not name its parent";
    let outside = "Parent locator points outside of itself";
    let twice = "Parent locator has two values for relative_path";
    let mut pointing = good.clone();
    pointing[24..28].copy_from_slice(&[0xff; 4]);
    let mut many = good.clone();
    many[18..20].copy_from_slice(&[0xff; 2]);
    let mut other = good.clone();
    other[0] ^= 1;
    for (parent, kind, message) in [
        (locator(&[]), InvalidFormat, nameless),
        (locator(&[("relative_path", "")]), InvalidFormat, nameless),
        (locator(&[("relative_path", "a"), ("relative_path", "b")]), InvalidFormat, twice),
        (pointing, Corrupt, outside),
        (many, Corrupt, outside),
        (good[..19].to_vec(), Corrupt, outside),
        (other, Unsupported, "Parent is not a VHDX image"),
    ] {
        let error = fault(&build(parent, &[])).unwrap();
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
    }
    // 64 Ki pairs of the same long key cost no more than to look at their lengths.
    let pairs: Vec<(String, &str)> = (0..40_000).map(|_| ("k".to_owned(), "v")).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(fault(&build(locator(&pairs), &[])).unwrap().message, nameless);
}

#[test]
fn flipped_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(32);
    let path = create_as("vhdx", directory.path(), "a.vhdx", "block_size=1M", "6M");
    qemu_io("vhdx", &path, &["write -P 1 0 20k", "write -P 2 3M 1M"]);
    let pairs = [("parent_linkage", LINKAGE), ("relative_path", "p.vhdx")];
    let bat = vec![(1, (5 << 20) | PARTIAL), (3, (6 << 20) | FULL), (4096, (14 << 20) | FULL)];
    let mut child = Builder { bat, parent: Some(locator(&pairs)), ..Builder::default() }.build();
    put(&mut child, 14 * MIB + 256, &[0x55; 100]);
    let mut walked = 0;
    for base in [std::fs::read(path).unwrap(), child] {
        let all = interesting(&base);
        let tables: Vec<usize> =
            (BAT..BAT + 64).chain(METADATA..METADATA + 224).chain(ITEMS..ITEMS + 160).collect();
        for round in 0..1500 {
            let mut file = Patched::new(&base);
            flip(&mut file, if round % 3 == 0 { &all } else { &tables }, &mut random);
            if random.below(8) != 0 {
                for (start, length) in [(HEADERS[0], 4096), (HEADERS[1], 4096), (REGIONS, 65536)] {
                    if file.bytes.range(start..start + length).next().is_some() {
                        let mut structure: Vec<u8> = (start..start + length).map(|at| file.get(at)).collect();
                        seal(&mut structure);
                        file.put(start + 4, &structure[4..8]);
                    }
                }
            }
            walked += u32::from(survive(file, Format::Vhdx, 20_000));
        }
    }
    assert!(walked > 500, "{walked}");
}

/// A storage that fails from some request on.
struct Failing(Memory, u32);

impl Storage for Failing {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn allocated(&self) -> u64 {
        self.0.allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.1 = self.1.checked_sub(1).ok_or(StorageError)?;
        self.0.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.0.region_at(offset)
    }
}

#[test]
fn a_failing_read_is_an_error_now_and_later() {
    let parent = Some(locator(&[("relative_path", "a")]));
    let bat = vec![(1, (5 << 20) | PARTIAL), (4096, (14 << 20) | FULL)];
    let bytes = Builder { bat, parent, ..Builder::default() }.build();
    let mut walked = 0;
    for requests in 0..20 {
        let opened = Image::open(Failing(Memory::new(bytes.clone()), requests), None);
        let result = opened.and_then(|mut image| {
            let first = walk(&mut image);
            assert_eq!(first.is_err(), walk(&mut image).is_err());
            first
        });
        match result {
            Ok(_) => walked += 1,
            Err(error) => assert_eq!(error.kind, Io),
        }
    }
    assert!((1..15).contains(&walked), "{walked} of 20 walks came to their end");
}
