//! VHD images, real ones and hand-made ones, against `qemu-img`.

mod support;
#[path = "support/vhd.rs"]
mod vhd;

use std::path::Path;

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit, Unsupported};
use formats::{Error, ErrorKind, Format, Image, Region, Storage, StorageError, probe};
use support::{FileStorage, Kind, Line, Memory, Random, qemu_img_ok, qemu_io, qemu_map, walk};
use vhd::{Patched, complaint, converts_alike, create_as, flip, interesting, scatter, survive};

/// Offsets in the footer and, at 512, in the dynamic disk header as `qemu-img` lays them out.
const DATA_OFFSET: usize = 16;
const CREATOR: usize = 28;
const CURRENT_SIZE: usize = 48;
const GEOMETRY: usize = 56;
const TYPE: usize = 60;
const CHECKSUM: usize = 64;
const TABLE_OFFSET: usize = 528;
const TABLE_ENTRIES: usize = 540;
const BLOCK_SIZE: usize = 544;
const PARENT_ID: usize = 552;
const PARENT_NAME: usize = 576;
const LOCATORS: usize = 1088;
const BAT: usize = 1536;

fn agrees(path: &Path) {
    let mut image = Image::open(FileStorage::open(path), Some(Format::Vpc)).unwrap();
    assert!(image.reports_block_status() && image.backing().is_none());
    assert_eq!(walk(&mut image).unwrap(), qemu_map("vpc", path), "{}", path.display());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Makes the checksum of the footer at `footer` right.
fn sum(bytes: &mut [u8], footer: usize) {
    put(bytes, footer + CHECKSUM, &[0; 4]);
    let sum = !bytes[footer..footer + 512].iter().map(|&byte| u32::from(byte)).sum::<u32>();
    put(bytes, footer + CHECKSUM, &sum.to_be_bytes());
}

/// An image of 10 MiB with data in its second block of 2 MiB.
fn sample(directory: &Path) -> Vec<u8> {
    let path = create_as("vpc", directory, "sample.vhd", "", "10M");
    qemu_io("vpc", &path, &["write -P 1 3M 64k"]);
    std::fs::read(path).unwrap()
}

fn patched(base: &[u8], footer: usize, patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for (at, value) in patches {
        put(&mut bytes, *at, value);
    }
    sum(&mut bytes, footer);
    bytes
}

fn fault(bytes: &[u8]) -> Option<Error> {
    let image = Image::open(Memory::new(bytes.to_vec()), Some(Format::Vpc));
    image.and_then(|mut image| walk(&mut image)).err()
}

#[test]
fn images_of_every_kind_map_and_read_as_they_do_for_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(21);
    for options in
        ["", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on", "subformat=dynamic"]
    {
        for size in ["512", "1M", "2M", "3000320", "33M"] {
            let path = create_as("vpc", directory.path(), &format!("{options}{size}.vhd"), options, size);
            agrees(&path);
            let length = Image::open(FileStorage::open(&path), Some(Format::Vpc)).unwrap().virtual_size();
            scatter("vpc", &path, length, &mut random);
            std::fs::File::open(&path).unwrap().sync_all().unwrap();
            agrees(&path);
            converts_alike(&path, Format::Vpc);
            let probed = probe(&mut FileStorage::open(&path)).unwrap();
            assert_eq!(probed, if options.contains("fixed") { Format::Raw } else { Format::Vpc });
        }
    }
}

#[test]
fn large_disks() {
    let directory = tempfile::tempdir().unwrap();
    for size in ["127G", "130G", "1T", "2040G"] {
        let path = create_as("vpc", directory.path(), &format!("{size}.vhd"), "", size);
        agrees(&path);
        qemu_io("vpc", &path, &["write -P 1 126G 1M", "write -P 1 3G 1M", "write -P 2 0 512"]);
        agrees(&path);
    }
}

/// Since version 10 the geometry counts for the creators that are known to go by it. Before, it counted for all but
/// those known not to: images of Azure and others were cut short, which is not imitated.
#[test]
fn the_length_of_the_disk_is_by_creator() {
    let directory = tempfile::tempdir().unwrap();
    let base = sample(directory.path());
    let path = directory.path().join("patched.vhd");
    let version = qemu_img_ok(&["--version"]);
    let major: u32 = version.split([' ', '.']).nth(2).unwrap().parse().unwrap();
    let by_size: [&[u8; 4]; 5] = [b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS"];
    let by_geometry: [&[u8; 4]; 2] = [b"vpc ", b"qemu"];
    let unknown: [&[u8; 4]; 5] = [b"wa\0\0", b"vbox", b"vs  ", b"vpc\0", b"\0\0\0\0"];
    let longest: &[u8] = &[0xff, 0xff, 16, 255];
    for creator in by_size.into_iter().chain(by_geometry).chain(unknown) {
        for geometry in [&base[GEOMETRY..GEOMETRY + 4], longest, &[0, 5, 4, 17], &[0; 4]] {
            for size in [8 << 20, 5_000_000, 0_u64] {
                let patches: [(usize, &[u8]); 3] =
                    [(CREATOR, creator), (GEOMETRY, geometry), (CURRENT_SIZE, &size.to_be_bytes())];
                let bytes = patched(&base, 0, &patches);
                std::fs::write(&path, &bytes).unwrap();
                let info = qemu_img_ok(&["info", "-f", "vpc", support::text(&path)]);
                let theirs = info.split_once(" bytes)").unwrap().0.rsplit_once('(').unwrap().1;
                let ours = Image::open(Memory::new(bytes), None).unwrap().virtual_size();
                let what = format!("{creator:?} {geometry:?} {size}");
                if major >= 10 || geometry == longest || !unknown.contains(&creator) {
                    assert_eq!(ours.to_string(), theirs, "{what}");
                } else {
                    let [high, low, heads, sectors] = [0, 1, 2, 3].map(|at| u64::from(geometry[at]));
                    assert_eq!(((high << 8 | low) * heads * sectors * 512).to_string(), theirs, "{what}");
                    assert_eq!(ours, size / 512 * 512, "{what}");
                }
            }
        }
    }
}

/// A patch and the class of failure, if there is one.
type Case<'a> = (&'a [(usize, &'a [u8])], Option<ErrorKind>);

#[test]
fn broken_headers_are_refused_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let base = sample(directory.path());
    let path = directory.path().join("patched.vhd");
    let cases: [Case<'_>; 32] = [
        (&[], None),
        (&[(CREATOR, b"qemu"), (GEOMETRY, &[0xff, 0xff, 16, 254])], Some(InvalidFormat)),
        (&[(CREATOR, b"win "), (CURRENT_SIZE, &((2040_u64 << 30) + 512).to_be_bytes())], Some(Limit)),
        (&[(CREATOR, b"win "), (CURRENT_SIZE, &[0xff; 8])], Some(Limit)),
        (&[(DATA_OFFSET, &[0xff; 8])], Some(InvalidFormat)),
        (&[(DATA_OFFSET, &(1_u64 << 40).to_be_bytes())], Some(InvalidFormat)),
        (&[(DATA_OFFSET, &(i64::MAX as u64).to_be_bytes())], Some(InvalidFormat)),
        (&[(512, b"x")], Some(InvalidFormat)),
        (&[(BLOCK_SIZE, &[0; 4])], Some(InvalidFormat)),
        (&[(BLOCK_SIZE, &3_u32.to_be_bytes())], Some(InvalidFormat)),
        (&[(BLOCK_SIZE, &256_u32.to_be_bytes())], Some(InvalidFormat)),
        (&[(BLOCK_SIZE, &512_u32.to_be_bytes())], Some(InvalidFormat)),
        (&[(BLOCK_SIZE, &(3_u32 << 20).to_be_bytes())], Some(InvalidFormat)),
        (&[(BLOCK_SIZE, &(1_u32 << 31).to_be_bytes())], Some(Corrupt)),
        (&[(TABLE_ENTRIES, &[0; 4])], Some(InvalidFormat)),
        (&[(TABLE_ENTRIES, &5_u32.to_be_bytes())], Some(InvalidFormat)),
        (&[(TABLE_ENTRIES, &7_u32.to_be_bytes())], None),
        (&[(TABLE_ENTRIES, &0x1fff_ffff_u32.to_be_bytes())], Some(InvalidFormat)),
        (&[(TABLE_ENTRIES, &0x1fff_fff0_u32.to_be_bytes())], Some(InvalidFormat)),
        (&[(TABLE_ENTRIES, &0x2000_0000_u32.to_be_bytes())], Some(Limit)),
        (&[(TABLE_ENTRIES, &0x4000_0001_u32.to_be_bytes())], Some(Limit)),
        (&[(TABLE_ENTRIES, &[0xff; 4])], Some(Limit)),
        (&[(TABLE_OFFSET, &(1_u64 << 40).to_be_bytes())], Some(Corrupt)),
        (&[(TABLE_OFFSET, &(1_u64 << 63).to_be_bytes())], Some(InvalidFormat)),
        (&[(TABLE_OFFSET, &[0xff; 8])], Some(InvalidFormat)),
        (&[(TABLE_OFFSET, &[0; 8])], Some(Corrupt)),
        (&[(BAT, &6_u32.to_be_bytes())], Some(Corrupt)),
        (&[(BAT, &0xffff_fffe_u32.to_be_bytes())], Some(Corrupt)),
        (&[(base.len() - 512, &[b'x'; 512])], None),
        (&[(BLOCK_SIZE + 4, &[0; 4])], None),
        (&[(GEOMETRY, &[0; 4])], None),
        (&[(0, b"x"), (base.len() - 512, b"x")], Some(InvalidFormat)),
    ];
    for (patches, class) in cases {
        let bytes = patched(&base, 0, patches);
        std::fs::write(&path, &bytes).unwrap();
        let (ours, theirs) = (fault(&bytes), complaint("vpc", &["measure", "-O", "qcow2"], &path));
        assert_eq!(ours.as_ref().map(|error| error.kind), class, "{patches:x?}: {ours:?}");
        let ours = ours.map(|error| match error.message.as_str() {
            "Disk is larger than 2040 GiB" => "File too large".to_owned(),
            _ => error.message,
        });
        assert_eq!(ours, theirs, "{patches:x?}");
    }
}

#[test]
fn checksums_lengths_and_ends_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let base = sample(directory.path());
    let fixed = std::fs::read(create_as("vpc", directory.path(), "f.vhd", "subformat=fixed", "1M")).unwrap();
    let end = fixed.len() - 512;
    let path = directory.path().join("patched.vhd");
    let mut cases: Vec<Vec<u8>> = Vec::new();
    let mut wrong = base.clone();
    put(&mut wrong, CHECKSUM, &[0; 4]);
    cases.push(wrong);
    let mut wrong = fixed.clone();
    put(&mut wrong, end + CHECKSUM, &[0; 4]);
    cases.push(wrong);
    for kind in [0, 1, 3, 4, 5] {
        cases.push(patched(&fixed, end, &[(end + TYPE, &[0, 0, 0, kind])]));
    }
    for cut in [1, 510, 511, 512, 513, 1024, 4096] {
        cases.push(base[..base.len() - cut].to_vec());
        cases.push(fixed[..fixed.len() - cut].to_vec());
    }
    for length in [0, 1, 511, 512, 513, 1023, 1024, 1535, 1536, 2048] {
        cases.push(base[..length].to_vec());
        cases.push(vec![b'x'; length]);
    }
    for bytes in cases {
        std::fs::write(&path, &bytes).unwrap();
        let theirs = complaint("vpc", &["measure", "-O", "qcow2"], &path);
        assert_eq!(fault(&bytes).map(|error| error.message), theirs, "{} bytes", bytes.len());
    }
}

/// `qemu-img` takes what it finds there for data, or the whole file.
#[test]
fn what_cannot_be_a_block_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut base = sample(directory.path());
    base.resize(base.len() + (2 << 20), 0);
    let path = directory.path().join("patched.vhd");
    let entry = |value: u32| value.to_be_bytes();
    let mut cases: Vec<(Vec<u8>, Error)> = Vec::new();
    for (value, what) in
        [(0, "the copy of the footer"), (1, "the dynamic disk header"), (3, "the block allocation table")]
    {
        let message = format!("Block 0 at offset {:#x} overlaps {what}", value * 512);
        cases.push((patched(&base, 0, &[(BAT, &entry(value))]), Error::new(Corrupt, "BAT", message)));
    }
    let same: Vec<u8> = entry(4).repeat(6);
    let message = "Block allocation table has more entries than the file has blocks";
    cases.push((patched(&base, 0, &[(BAT, &same)]), Error::new(Corrupt, "BAT", message)));
    let message = "Block allocation table overlaps the dynamic disk header";
    // The end of the header is zeros: entries that point to the start of the file.
    cases.push((
        patched(&base, 0, &[(TABLE_OFFSET, &1400_u64.to_be_bytes())]),
        Error::new(Corrupt, "BAT", message),
    ));
    let message = "Footer of a fixed disk at the start of the file";
    cases.push((patched(&base, 0, &[(TYPE, &entry(2))]), Error::new(InvalidFormat, "disk_type", message)));
    for kind in [0, 1, 5, 6, 7] {
        let message = format!("Unsupported disk type {kind}");
        cases.push((
            patched(&base, 0, &[(TYPE, &entry(kind))]),
            Error::new(Unsupported, "disk_type", message),
        ));
    }
    let fixed = std::fs::read(create_as("vpc", directory.path(), "f.vhd", "subformat=fixed", "1M")).unwrap();
    let end = fixed.len() - 512;
    let longer = (end as u64 + 512).to_be_bytes();
    let message = "Disk is longer than the file, which has probably been truncated";
    let patches: [(usize, &[u8]); 2] = [(end + CREATOR, b"win "), (end + CURRENT_SIZE, &longer)];
    cases.push((patched(&fixed, end, &patches), Error::new(Corrupt, "current_size", message)));
    for (bytes, error) in cases {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(fault(&bytes), Some(error));
        assert_eq!(complaint("vpc", &["measure", "-O", "qcow2"], &path), None);
    }
}

/// A block of which some sectors are here and the rest in the parent.
#[test]
fn a_differencing_disk_names_its_parent_and_tells_sectors_apart() {
    let directory = tempfile::tempdir().unwrap();
    let base = sample(directory.path());
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    };
    let file_end = base.len();
    let name = utf16(".\\p\u{e4}rent.vhd", false);
    let locator = |platform: &[u8; 4], length: usize, offset: usize| -> Vec<u8> {
        let mut bytes = platform.to_vec();
        bytes.extend([0, 0, 2, 0]);
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend((offset as u64).to_be_bytes());
        bytes
    };
    let mut whole = base.clone();
    whole.extend(&name);
    whole.resize(whole.len().next_multiple_of(512), 0);
    let title = utf16("title.vhd", true);
    // Sectors 0 to 2, 9 and 4095 of the block are here.
    let block = 2048;
    let mut bitmap = [0; 512];
    (bitmap[0], bitmap[1], bitmap[511]) = (0b1110_0000, 0b0100_0000, 1);
    let common: [(usize, &[u8]); 4] =
        [(TYPE, &[0, 0, 0, 4]), (PARENT_ID, &[7; 16]), (PARENT_NAME, &title), (block, &bitmap)];
    let relative = locator(b"W2ru", name.len(), file_end);
    let mut patches = common.to_vec();
    patches.push((LOCATORS + 24, &relative));
    let mut image = Image::open(Memory::new(patched(&whole, 0, &patches)), None).unwrap();
    let backing = image.backing().unwrap();
    assert_eq!(
        (backing.name.as_slice(), backing.format.as_deref()),
        (".\\p\u{e4}rent.vhd".as_bytes(), Some(&b"vpc"[..]))
    );
    assert_eq!(image.vpc().unwrap().parent_unique_id(), Some([7; 16]));
    let line = |start, length, kind| Line { start, length, kind };
    let (here, data) = (2 << 20, |sector: u64| Kind::Data(block as u64 + 512 + sector * 512));
    let expected = [
        line(0, here, Kind::Unallocated),
        line(here, 3 * 512, data(0)),
        line(here + 3 * 512, 6 * 512, Kind::Unallocated),
        line(here + 9 * 512, 512, data(9)),
        line(here + 10 * 512, 4085 * 512, Kind::Unallocated),
        line(here + 4095 * 512, 512, data(4095)),
        line(4 << 20, image.virtual_size() - (4 << 20), Kind::Unallocated),
    ];
    assert_eq!(walk(&mut image).unwrap(), expected);
    assert_eq!(image.extent_at(here + 700).unwrap().length, 3 * 512 - 700);

    // A relative path is better than an absolute one, and that better than another system's.
    let unc = utf16("\\\\host\\share\\p.vhd", false);
    let mut more = whole.clone();
    more.extend(&unc);
    more.extend(b"file:///p.vhd\0");
    let at = whole.len();
    let (mac, absolute) = (locator(b"MacX", 14, at + unc.len()), locator(b"W2ku", unc.len(), at));
    let old = locator(b"Wi2r", 4, at);
    let all = [old, mac, absolute, relative];
    for (count, name) in
        [(1, "title.vhd"), (2, "file:///p.vhd"), (3, "\\\\host\\share\\p.vhd"), (4, ".\\p\u{e4}rent.vhd")]
    {
        let mut patches = common.to_vec();
        patches
            .extend(all[..count].iter().enumerate().map(|(number, one)| (LOCATORS + 24 * number, &one[..])));
        let image = Image::open(Memory::new(patched(&more, 0, &patches)), None).unwrap();
        assert_eq!(image.backing().unwrap().name, name.as_bytes());
    }

    // Without a locator that is understood, the header's own name; without that, nothing.
    let image = Image::open(Memory::new(patched(&whole, 0, &common)), None).unwrap();
    assert_eq!(image.backing().unwrap().name, b"title.vhd");
    let nameless = [common[0]];
    let error = Error::new(InvalidFormat, "parent_locator", "Differencing disk does not name its parent");
    assert_eq!(fault(&patched(&whole, 0, &nameless)), Some(error));
    let far = locator(b"W2ku", 20, whole.len() - 19);
    let patches = [common[0], (LOCATORS, &far[..])];
    let error = Error::new(Corrupt, "parent_locator", "Parent locator lies beyond the end of the file");
    assert_eq!(fault(&patched(&whole, 0, &patches)), Some(error));
    let long = locator(b"W2ku", 65535, 0);
    let error = Error::new(Limit, "parent_locator", "Parent locator is too long");
    assert_eq!(fault(&patched(&whole, 0, &[common[0], (LOCATORS, &long[..])])), Some(error));

    // To qemu-img there is no parent, and a block is all there.
    let path = directory.path().join("child.vhd");
    std::fs::write(&path, patched(&whole, 0, &common)).unwrap();
    let lines = qemu_map("vpc", &path);
    assert_eq!(lines[1], line(here, 2 << 20, data(0)));
    assert!(lines.iter().all(|line| line.kind != Kind::Unallocated));
}

/// The bits of a dynamic disk's bitmap say that a sector is zero; `qemu-img` reads what is stored there, and so do we.
#[test]
fn the_bitmap_of_a_dynamic_disk_is_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let base = sample(directory.path());
    let path = directory.path().join("patched.vhd");
    std::fs::write(&path, patched(&base, 0, &[(2048, &[0; 512])])).unwrap();
    agrees(&path);
    converts_alike(&path, Format::Vpc);
}

#[test]
fn flipped_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(22);
    let mut walked = 0;
    for kind in [3, 4] {
        let base = patched(&sample(directory.path()), 0, &[(TYPE, &[0, 0, 0, kind]), (PARENT_NAME, b"\0p")]);
        let all = interesting(&base);
        let head: Vec<usize> = (0..BAT + 24).collect();
        for round in 0..4000 {
            let mut file = Patched::new(&base);
            flip(&mut file, if round % 2 == 0 { &all } else { &head }, &mut random);
            if random.below(8) != 0 {
                let mut footer: Vec<u8> = (0..512).map(|at| file.get(at)).collect();
                sum(&mut footer, 0);
                file.put(CHECKSUM, &footer[CHECKSUM..CHECKSUM + 4]);
            }
            walked += u32::from(survive(file, Format::Vpc, 20_000));
        }
    }
    assert!(walked > 1000, "{walked}");
}

/// A storage that counts requests.
struct Counting(FileStorage, u32);

impl Storage for Counting {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn allocated(&self) -> u64 {
        self.0.allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.1 += 1;
        self.0.read_at(offset, buf)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.0.region_at(offset)
    }
}

/// A table of 2 GiB that is all hole: its entries all point to the start of the file.
#[test]
fn a_table_in_a_hole_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let table = (1_u64 << 20).to_be_bytes();
    let patches: [(usize, &[u8]); 2] =
        [(TABLE_OFFSET, &table), (TABLE_ENTRIES, &0x1fff_ff00_u32.to_be_bytes())];
    let path = directory.path().join("hole.vhd");
    std::fs::write(&path, patched(&sample(directory.path())[..65536], 0, &patches)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4 << 30).unwrap();
    let mut image = Image::open(Counting(FileStorage::open(&path), 0), None).unwrap();
    assert_eq!(
        walk(&mut image).unwrap_err().message,
        "Block 0 at offset 0x0 overlaps the copy of the footer"
    );
    let requests = image.into_storage().1;
    assert!(requests < 10, "{requests} requests");
}
