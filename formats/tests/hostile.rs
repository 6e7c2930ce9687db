//! Mappings that are no mappings: refused as `qemu-img` refuses them or, where it would read zeros or walk without end,
//! refused all the same.

mod support;

use std::path::PathBuf;

use formats::ErrorKind::{Corrupt, Io};
use formats::{Error, Extent, ExtentKind, Format, Image, Region, Storage, StorageError};
use support::{FileStorage, Kind, Memory, create, patch, qemu_complaint, qemu_io, walk, word};

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// An image of 64 MiB with data in its first and third cluster, and where its tables are.
struct Sample {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
    l1: usize,
    l2: usize,
}

impl Sample {
    fn new(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = create(directory.path(), "sample.qcow2", options, "64M");
        qemu_io("qcow2", &path, &["write -P 1 0 64k", "write -P 2 128k 64k"]);
        let bytes = std::fs::read(path).unwrap();
        let l1 = usize::try_from(word(&bytes, 40)).unwrap();
        let l2 = usize::try_from(word(&bytes, l1) & !COPIED).unwrap();
        Self { directory, bytes, l1, l2 }
    }

    fn patched(&self, patches: &[(usize, usize, u64)]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        patch(&mut bytes, patches);
        bytes
    }

    /// What is wrong with the patched image.
    fn fault(&self, patches: &[(usize, usize, u64)]) -> Option<Error> {
        let mut image = Image::open(Memory::new(self.patched(patches)), Some(Format::Qcow2)).unwrap();
        walk(&mut image).err()
    }

    fn file(&self, patches: &[(usize, usize, u64)]) -> PathBuf {
        let path = self.directory.path().join("patched.qcow2");
        std::fs::write(&path, self.patched(patches)).unwrap();
        path
    }
}

#[test]
fn contradictions_in_tables_are_reported_in_the_same_words() {
    for options in ["", "compat=0.10", "extended_l2=on"] {
        let sample = Sample::new(options);
        let (l1, l2) = (sample.l1, sample.l2);
        let table = sample.l2 as u64;
        let entry = if options.starts_with("ext") { 16 } else { 8 };
        let first = word(&sample.bytes, l2);
        let cases: [&[(usize, usize, u64)]; 12] = [
            &[],
            &[(l1, 8, (table + 512) | COPIED)],
            &[(l1, 8, table)],
            &[(l2, 8, (first & !0xffff) | 0x200)],
            &[(l2 + 2 * entry, 8, 0x5_0200 | COPIED)],
            &[(l2 + entry, 8, 1)],
            &[(l2, 8, first | 1)],
            &[(l2 + entry, 8, 2)],
            &[(l2 + entry, 8, 0x3f << 56)],
            &[(l2 + 8, 8, 0x0000_0001_0000_0001)],
            &[(l2 + entry, 8, COMPRESSED | 0x5_0000)],
            &[(l2 + 3 * entry, 8, 0), (l2 + 3 * entry + 8, 8, 1)],
        ];
        for patches in cases {
            let found = sample.fault(patches);
            let path = sample.file(patches);
            assert_eq!(
                found.as_ref().map(|error| error.message.clone()),
                qemu_complaint(&path),
                "{options} {patches:x?}"
            );
            assert!(found.is_none_or(|error| error.kind == Corrupt));
        }
    }
}

#[test]
fn data_that_is_not_in_the_data_file_is_refused_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("disk.raw");
    let path = create(directory.path(), "a.qcow2", &format!("data_file={}", data.display()), "4M");
    qemu_io("qcow2", &path, &["write -P 1 0 128k"]);
    let base = std::fs::read(&path).unwrap();
    let l1 = usize::try_from(word(&base, 40)).unwrap();
    let l2 = usize::try_from(word(&base, l1) & !COPIED).unwrap();
    for entry in [COPIED | 0x5_0000, COMPRESSED, COPIED | 0x1_0000 | 1, COPIED | 0x5_0001] {
        let mut bytes = base.clone();
        patch(&mut bytes, &[(l2 + 8, 8, entry)]);
        std::fs::write(&path, &bytes).unwrap();
        let mut image = Image::open(Memory::new(bytes), None).unwrap();
        assert_eq!(walk(&mut image).err().map(|error| error.message), qemu_complaint(&path), "{entry:x}");
    }
}

/// `qemu-img` reads such tables as zeros, or as whatever else is there.
#[test]
fn l2_tables_that_cannot_be_tables_are_refused() {
    let sample = Sample::new("");
    let length = sample.bytes.len() as u64;
    for (table, message) in [
        (length, "L2 table offset 0x70000 beyond the end of the file (L1 index: 0)"),
        (1 << 40, "L2 table offset 0x10000000000 beyond the end of the file (L1 index: 0)"),
        (0x3_0000, "L2 table offset 0x30000 inside the L1 table (L1 index: 0)"),
        (0x1_0000, "L2 table offset 0x10000 inside the reference count table (L1 index: 0)"),
    ] {
        let found = sample.fault(&[(sample.l1, 8, table | COPIED)]);
        assert_eq!(found, Some(Error::new(Corrupt, "L1 table", message)));
        assert_eq!(qemu_complaint(&sample.file(&[(sample.l1, 8, table | COPIED)])), None);
    }
    let mut cut = sample.bytes.clone();
    cut.truncate(sample.l2 + 65535);
    let mut image = Image::open(Memory::new(cut), None).unwrap();
    let message = "L2 table offset 0x40000 beyond the end of the file (L1 index: 0)";
    assert_eq!(walk(&mut image), Err(Error::new(Corrupt, "L1 table", message)));
}

/// 2 PiB, every L1 entry pointing to one L2 table: `qemu-img` walks 2^35 clusters.
#[test]
fn a_shared_l2_table_does_not_make_a_walk_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "shared.qcow2", "", "2P");
    qemu_io("qcow2", &path, &["write -P 1 0 64k"]);
    let mut bytes = std::fs::read(path).unwrap();
    let l1 = usize::try_from(word(&bytes, 40)).unwrap();
    let entry = word(&bytes, l1);
    for index in 0..1 << 22 {
        patch(&mut bytes, &[(l1 + 8 * index, 8, entry)]);
    }
    let mut image = Image::open(Memory::new(bytes), None).unwrap();
    let message = "L1 table has more entries than the file has clusters";
    assert_eq!(walk(&mut image), Err(Error::new(Corrupt, "L1 table", message)));
}

/// A file of 8 TiB in holes, 2^34 clusters: the question whether it was preallocated does not count them.
#[test]
fn the_length_of_a_sparse_file_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "long.qcow2", "cluster_size=512", "1M");
    qemu_io("qcow2", &path, &["write -P 1 0 64k"]);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 << 40).unwrap();
    let mut image = Image::open(FileStorage::open(&path), None).unwrap();
    let lines = walk(&mut image).unwrap();
    assert_eq!(lines.iter().map(|line| line.length).sum::<u64>(), 1 << 20);
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

/// A refcount table of a million entries that all point to one block of zeros.
#[test]
fn a_shared_refcount_block_is_not_read_a_million_times() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "shared.qcow2", "cluster_size=512", "1M");
    qemu_io("qcow2", &path, &["write -P 1 0 64k"]);
    let mut bytes = std::fs::read(&path).unwrap();
    let block = bytes.len().next_multiple_of(512);
    let table = block + 512;
    bytes.resize(table, 0);
    bytes.extend((block as u64).to_be_bytes().repeat(1 << 20));
    patch(&mut bytes, &[(48, 8, table as u64), (56, 4, (8 << 20) / 512)]);
    std::fs::write(&path, bytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 40).unwrap();
    let mut image = Image::open(Counting(FileStorage::open(&path), 0), None).unwrap();
    walk(&mut image).unwrap();
    let requests = image.into_storage().1;
    assert!(requests < 100, "{requests} requests");
}

/// A long file, of which only its tables are stored. `qemu-img` walks it.
#[test]
fn tables_are_no_more_than_the_file_stores() {
    let directory = tempfile::tempdir().unwrap();
    for id in [
        "H03-one-l2-in-a-long-file",
        "H03-vmdk-one-table-in-a-long-file",
        "H03-qcow-one-table-in-a-long-file",
    ] {
        let row = images::hostile::rows().into_iter().find(|row| row.id == id).unwrap();
        row.write(directory.path()).unwrap();
        let storage = Counting(FileStorage::open(&directory.path().join(row.path())), 0);
        let error = walk(&mut Image::open(storage, None).unwrap()).unwrap_err();
        assert_eq!(error.kind, Corrupt, "{id}: {error}");
        assert!(error.message.ends_with("tables are used more than once"), "{id}: {error}");
    }
}

#[test]
fn tables_in_holes_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let ids = ["H03-l2-tables-in-holes", "H02-qcow-l1-of-2g", "H02-parallels-table-of-1g"];
    for (id, most) in ids.into_iter().zip([600, 20, 20]) {
        let row = images::hostile::rows().into_iter().find(|row| row.id == id).unwrap();
        row.write(directory.path()).unwrap();
        let storage = Counting(FileStorage::open(&directory.path().join(row.path())), 0);
        let mut image = Image::open(storage, None).unwrap();
        let lines = walk(&mut image).unwrap();
        assert!(lines.iter().all(|line| line.kind == Kind::Unallocated), "{id}: {lines:?}");
        let requests = image.into_storage().1;
        assert!(requests < most, "{id}: {requests} requests");
    }
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
    let sample = Sample::new("cluster_size=4096");
    let mut walked = 0;
    for requests in 0..12 {
        let opened = Image::open(Failing(Memory::new(sample.bytes.clone()), requests), None);
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
    assert!((1..12).contains(&walked), "{walked} of 12 walks came to their end");
}

#[test]
fn an_offset_past_the_end_is_an_error() {
    let sample = Sample::new("");
    let mut image = Image::open(Memory::new(sample.bytes.clone()), None).unwrap();
    assert!(image.extent_at(64 << 20).is_err());
    let last = image.extent_at((64 << 20) - 1).unwrap();
    assert_eq!(last, Extent::own((64 << 20) - 1, 1, ExtentKind::Unallocated { offset: None }));
}
