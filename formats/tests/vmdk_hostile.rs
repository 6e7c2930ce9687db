//! Damaged VMDK images: mappings that are no mappings are refused, and whatever the bytes, opening and walking neither
//! panics nor goes on without end.

mod support;

use formats::ErrorKind::{Corrupt, Io};
use formats::{Codec, Error, ExtentKind, Image, Region, Storage, StorageError};
use support::vmdk::{self, complaint, cowd, descriptor, number, patch, se_sparse, with_footer};
use support::{FileStorage, Kind, Memory, Random, qemu_io, walk};

const ROUNDS: u32 = 4000;

/// A disk of 64 MiB with data at 0 and at 40 MiB, and the offsets of its directory and of its first table.
fn sample() -> (Vec<u8>, usize, usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = vmdk::create(directory.path(), "a.vmdk", "monolithicSparse", "", "64M");
    qemu_io("vmdk", &path, &["write -P 1 0 64k", "write -P 2 40M 64k"]);
    let bytes = std::fs::read(path).unwrap();
    let gd = usize::try_from(number(&bytes, 56, 8) * 512).unwrap();
    let gt = usize::try_from(number(&bytes, gd, 4) * 512).unwrap();
    (bytes, gd, gt)
}

fn fault(bytes: &[u8]) -> Option<Error> {
    walk(&mut Image::open(Memory::new(bytes.to_vec()), None).unwrap()).err()
}

/// `qemu-img` reads such tables as zeros, or as whatever else is there.
#[test]
fn tables_that_cannot_be_tables_are_refused() {
    let (base, gd, _) = sample();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.vmdk");
    let (gd_sector, end) = ((gd / 512) as u64, (base.len() / 512) as u64);
    let inside = format!("Grain table offset {gd:#x} inside the grain directory (index: 0)");
    let beyond =
        |sector: u64| format!("Grain table offset {:#x} beyond the end of the file (index: 0)", sector * 512);
    for (sector, message) in [
        (gd_sector, inside),
        (end, beyond(end)),
        (end - 3, beyond(end - 3)),
        (0xffff_ffff, beyond(0xffff_ffff)),
    ] {
        let mut bytes = base.clone();
        patch(&mut bytes, &[(gd, 4, sector)]);
        assert_eq!(fault(&bytes), Some(Error::new(Corrupt, "grain directory", message)));
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(complaint(&path), None);
    }
    // A truncated upload: the header's overhead is there, its tables are not.
    let mut bytes = base.clone();
    patch(&mut bytes, &[(64, 8, 0)]);
    bytes.truncate(gd);
    let message = "Grain directory lies beyond the end of the file";
    assert_eq!(fault(&bytes), Some(Error::new(Corrupt, "grain directory", message)));
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(complaint(&path), None);
}

/// Data beyond the end of the file reads as zeros, but is data; so it is to `qemu-img`.
#[test]
fn grains_beyond_the_end_of_the_file_are_data() {
    let (mut bytes, _, gt) = sample();
    patch(&mut bytes, &[(gt + 4, 4, 0xffff_fff0)]);
    let lines = walk(&mut Image::open(Memory::new(bytes), None).unwrap()).unwrap();
    assert_eq!(lines[1].kind, Kind::Data(0xffff_fff0 * 512));
}

/// Two directory entries may share a table, but not so many that a walk takes longer than the file is long.
#[test]
fn shared_tables_do_not_make_a_walk_without_end() {
    let (mut bytes, gd, _) = sample();
    let table = number(&bytes, gd, 4);
    patch(&mut bytes, &[(gd + 4, 4, table)]);
    assert_eq!(fault(&bytes), None);
    let directory = bytes.len();
    let entries = 1usize << 20;
    patch(&mut bytes, &[(12, 8, 65536 * entries as u64), (56, 8, (directory / 512) as u64), (8, 4, 1)]);
    bytes.extend(u32::try_from(table).unwrap().to_le_bytes().repeat(entries));
    let message = "Grain directory has more entries than the file has room for tables";
    assert_eq!(fault(&bytes), Some(Error::new(Corrupt, "grain directory", message)));
}

/// A marker's length is believed only as far as a grain and the file go; whose grain it claims to be does not matter.
#[test]
fn lengths_in_markers_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("a.raw");
    std::fs::write(&raw, vec![5; 200_000]).unwrap();
    let path = vmdk::convert(&raw, "a.vmdk", "subformat=streamOptimized");
    let base = std::fs::read(&path).unwrap();
    let mut image = Image::open(Memory::new(base.clone()), None).unwrap();
    let extent = image.extent_at(70_000).unwrap();
    let stream = image.stream(&extent).unwrap().unwrap();
    assert_eq!((stream.codec, stream.cluster_len, stream.skip), (Codec::Zlib, 65536, 70_000 - 65536));
    let marker = usize::try_from(stream.offset).unwrap() - 12;
    assert_eq!(number(&base, marker, 8), 128);
    assert_eq!(number(&base, marker + 8, 4), stream.length);
    // The first two bytes of a zlib stream.
    assert_eq!(base[marker + 12..marker + 14], [0x78, 0x9c]);
    let rest = base.len() as u64 - stream.offset;
    for (patches, refused, theirs) in [
        (&[(marker, 8, 77)][..], false, false),
        (&[(marker + 8, 4, 0)], true, true),
        (&[(marker + 8, 4, rest)], rest > 131_072, rest > 131_072),
        (&[(marker + 8, 4, 131_073)], true, true),
        (&[(marker + 8, 4, 0xffff_ffff)], true, true),
    ] {
        let mut bytes = base.clone();
        patch(&mut bytes, patches);
        std::fs::write(&path, &bytes).unwrap();
        let mut image = Image::open(Memory::new(bytes), None).unwrap();
        let found = image.stream(&extent);
        assert_eq!(found.is_err(), refused, "{patches:?} {found:?}");
        assert!(found.err().is_none_or(|error| error.kind == Corrupt && error.field == "grain marker"));
        let read =
            std::process::Command::new(std::env::var_os("QEMU_IO").unwrap_or_else(|| "qemu-io".into()))
                .args(["-r", "-f", "vmdk", "-c", "read 65536 65536", path.to_str().unwrap()])
                .output()
                .unwrap();
        let said =
            String::from_utf8_lossy(&read.stdout).into_owned() + &String::from_utf8_lossy(&read.stderr);
        assert_eq!(said.contains("read failed"), theirs, "{patches:?} {said}");
    }
}

/// A storage that counts requests, or fails from some request on.
struct Counting(Memory, u32, u32);

impl Storage for Counting {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn allocated(&self) -> u64 {
        self.0.allocated()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.1 += 1;
        if self.1 > self.2 { Err(StorageError) } else { self.0.read_at(offset, buf) }
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        self.0.region_at(offset)
    }
}

#[test]
fn neighbouring_tables_are_read_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = vmdk::create(directory.path(), "a.vmdk", "monolithicSparse", "", "100G");
    let bytes = std::fs::read(path).unwrap();
    let mut image = Image::open(Counting(Memory::new(bytes), 0, u32::MAX), None).unwrap();
    assert_eq!(walk(&mut image).unwrap().len(), 1);
    let requests = image.into_storage().1;
    // 3200 tables of 2 KiB.
    assert!(requests < 120, "{requests} requests");
}

#[test]
fn a_failing_read_is_an_error_now_and_later() {
    let (bytes, ..) = sample();
    let mut walked = 0;
    for requests in 0..8 {
        let opened = Image::open(Counting(Memory::new(bytes.clone()), 0, requests), None);
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
    assert!((1..8).contains(&walked), "{walked} of 8 walks came to their end");
}

/// A file of 8 TiB in holes, its directory at the end.
#[test]
fn the_length_of_a_sparse_file_costs_nothing() {
    let (mut bytes, ..) = sample();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.vmdk");
    patch(&mut bytes, &[(56, 8, (8 << 40) / 512 - 1)]);
    std::fs::write(&path, bytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 40).unwrap();
    let lines = walk(&mut Image::open(FileStorage::open(&path), None).unwrap()).unwrap();
    assert_eq!(lines.len(), 1);
}

/// Opens, attaches, walks to the end or to the first error, and counts the steps.
fn survive(bytes: &[u8], file: &[u8]) {
    let storage = |bytes: &[u8]| Memory { bytes: bytes.to_vec(), allocated: 0, holes: true };
    let Ok(mut image) = Image::open(storage(bytes), Some(formats::Format::Vmdk)) else { return };
    for attached in [false, true] {
        if attached {
            let files = image.references().iter().map(|_| storage(file)).collect();
            if image.attach(files).is_err() {
                return;
            }
        }
        let (mut offset, mut steps, bound, size) = (0, 0, image.max_extents(), image.virtual_size());
        while offset < size {
            let Ok(extent) = image.extent_at(offset) else { break };
            assert!(extent.start == offset && extent.length >= 1 && extent.length <= size - offset);
            if let ExtentKind::Compressed { length, .. } = extent.kind {
                assert!(length >= 1);
                if let Ok(stream) = image.stream(&extent) {
                    let stream = stream.unwrap();
                    assert!(stream.length <= 2 * stream.cluster_len && stream.skip < stream.cluster_len);
                }
            }
            offset += extent.length;
            steps += 1;
            assert!(steps <= bound, "more than {bound} steps");
        }
        assert!(image.vmdk().unwrap().extents().count() <= 1024);
    }
}

#[test]
fn flipped_bytes() {
    let (sparse, ..) = sample();
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("a.raw");
    std::fs::write(&raw, vec![5; 200_000]).unwrap();
    let stream = std::fs::read(vmdk::convert(&raw, "a.vmdk", "subformat=streamOptimized")).unwrap();
    let lines = "RW 8 ZERO\nRW 100 FLAT \"a\" 0\nRW 100 SPARSE \"b\"\nRW 8 SESPARSE \"c\"\n";
    let text = descriptor("vmfs", lines).into_bytes();
    let se_text = descriptor("seSparse", "RW 8 SESPARSE \"c\"").into_bytes();
    let se = se_sparse(40_000, &[(0, 0), (1, 1 << 60), (4097, 0)]);
    let old = cowd(5000, 3, &[0, 1, 4999]);
    let mut random = Random(7);
    for (base, file) in [
        (&sparse, &sparse),
        (&with_footer(stream.clone()), &stream),
        (&stream, &stream),
        (&old, &old),
        (&text, &sparse),
        (&se_text, &se),
    ] {
        for _ in 0..ROUNDS {
            let (mut bytes, mut file) = (base.clone(), file.clone());
            let whole = bytes.len() as u64;
            for target in [&mut bytes, &mut file] {
                // Headers, the descriptor, tables and a footer.
                for _ in 0..1 + random.below(4) {
                    let length = target.len();
                    let start = match random.below(4) {
                        0 => length.saturating_sub(1536),
                        _ => 0,
                    };
                    let among = [80, 1536, 32 << 10][usize::try_from(random.below(3)).unwrap()];
                    let among = among.min(length - start) as u64;
                    let at = start + usize::try_from(random.below(among)).unwrap();
                    target[at] = match random.below(4) {
                        0 => 0,
                        1 => 0xff,
                        2 => target[at] ^ (1 << random.below(8)),
                        _ => random.next().to_le_bytes()[0],
                    };
                }
            }
            if random.below(16) == 0 {
                bytes.truncate(usize::try_from(random.below(whole + 1)).unwrap());
            }
            survive(&bytes, &file);
        }
    }
}

#[test]
fn noise_behind_a_signature() {
    let mut random = Random(8);
    for round in 0..ROUNDS {
        let mut bytes: Vec<u8> = (0..random.below(4096)).map(|_| random.next().to_le_bytes()[0]).collect();
        if bytes.len() > 600 {
            bytes[..4].copy_from_slice(if round % 2 == 0 { b"KDMV" } else { b"COWD" });
            bytes[512..534].copy_from_slice(b"CID=1\nparentCID=2     ");
            if round % 2 == 0 {
                patch(&mut bytes, &[(4, 4, 1), (20, 8, random.below(300)), (44, 4, random.below(513))]);
                patch(&mut bytes, &[(12, 8, random.below(1 << 24)), (56, 8, random.below(8)), (64, 8, 0)]);
            } else {
                patch(&mut bytes, &[(16, 4, random.below(300)), (20, 4, random.below(8)), (24, 4, 5)]);
            }
        }
        survive(&bytes, &[]);
    }
}
