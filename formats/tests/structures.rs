//! Header extensions, bitmaps, snapshots and referenced files: what real images say, and what `qemu-img` refuses.

mod support;

use std::path::Path;

use formats::ErrorKind::{self, Corrupt, InvalidFormat, Key, Limit, Unsupported};
use formats::qcow2::{Compression, CryptMethod, Version};
use formats::{Error, Format, Image};
use support::{FileStorage, Memory, create, patch, qemu_complaint, qemu_img_ok, qemu_io, text, walk};

const END_OF_HEADER: usize = 112;
const CRYPT: usize = 32;
const INCOMPATIBLE: usize = 72;
const AUTOCLEAR: usize = 88;

const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const CRYPTO_HEADER: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;

fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn feature(kind: u8, bit: u8, name: &str) -> Vec<u8> {
    let mut bytes = vec![kind, bit];
    bytes.extend(name.as_bytes());
    bytes.resize(48, 0);
    bytes
}

fn bitmaps_extension(count: u32, reserved: u32, length: u64, offset: u64) -> Vec<u8> {
    let numbers =
        [&count.to_be_bytes()[..], &reserved.to_be_bytes(), &length.to_be_bytes(), &offset.to_be_bytes()];
    extension(BITMAPS, &numbers.concat())
}

/// An empty image of 64 MiB, its extensions replaced.
fn image_with(base: &[u8], extensions: &[u8], patches: &[(usize, usize, u64)]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    bytes[END_OF_HEADER..0x1_0000].fill(0);
    bytes[END_OF_HEADER..END_OF_HEADER + extensions.len()].copy_from_slice(extensions);
    patch(&mut bytes, patches);
    bytes
}

fn compare(directory: &Path, bytes: Vec<u8>, expected: Option<(ErrorKind, &str)>) {
    let path = directory.join("patched.qcow2");
    std::fs::write(&path, &bytes).unwrap();
    let opened = Image::open(Memory::new(bytes), Some(Format::Qcow2));
    let found = opened.as_ref().err().map(|error| (error.kind, error.message.as_str()));
    assert_eq!(found, expected);
    assert_eq!(found.map(|(_, message)| message.to_owned()), qemu_complaint(&path));
}

fn base(directory: &Path) -> Vec<u8> {
    std::fs::read(create(directory, "base.qcow2", "", "64M")).unwrap()
}

#[test]
fn faulty_extensions_are_refused_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let names = [feature(0, 5, "alpha"), feature(0, 6, "beta"), feature(1, 7, "other")].concat();
    let long = [feature(0, 5, &"x".repeat(46)), feature(0, 6, "b")].concat();
    let cut = [feature(0, 5, "alpha"), b"\0\x06bet".to_vec()].concat();
    let unsupported = |text: &'static str| Some((Unsupported, text));
    let invalid = |text: &'static str| Some((InvalidFormat, text));
    let crypto = |offset: u64, length: u64| {
        extension(CRYPTO_HEADER, &[offset.to_be_bytes(), length.to_be_bytes()].concat())
    };
    let key = "Parameter 'encrypt.key-secret' is required for cipher";
    type Case<'a> = (Vec<u8>, &'a [(usize, usize, u64)], Option<(ErrorKind, &'a str)>);
    let cases: Vec<Case<'_>> = vec![
        (
            extension(FEATURE_NAMES, &names),
            &[(INCOMPATIBLE, 8, 0xe0)],
            unsupported("Unsupported qcow2 feature(s): alpha, beta, Unknown incompatible feature: 80"),
        ),
        (
            extension(FEATURE_NAMES, &long),
            &[(INCOMPATIBLE, 8, 0x60)],
            unsupported("Unsupported qcow2 feature(s): xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx, b"),
        ),
        (
            extension(FEATURE_NAMES, &cut),
            &[(INCOMPATIBLE, 8, 0x60)],
            unsupported("Unsupported qcow2 feature(s): alpha, bet"),
        ),
        (extension(BACKING_FORMAT, &[b'x'; 15]), &[], None),
        (
            extension(BACKING_FORMAT, &[b'x'; 16]),
            &[],
            invalid("ERROR: ext_backing_format: len=16 too large (>=16)"),
        ),
        ([1u32.to_be_bytes(), [0xff; 4]].concat(), &[], invalid("Header extension too large")),
        (extension(0x1234_5678, &[7; 100]), &[], None),
        (crypto(0, 0), &[], invalid("CRYPTO header extension only expected with LUKS encryption method")),
        (
            extension(CRYPTO_HEADER, &[0; 8]),
            &[(CRYPT, 4, 2)],
            invalid("CRYPTO header extension size 8, but expected size 16"),
        ),
        (
            crypto(512, 4096),
            &[(CRYPT, 4, 2)],
            invalid("Encryption header offset '512' is not a multiple of cluster size '65536'"),
        ),
        (crypto(0x1_0000, 4096), &[(CRYPT, 4, 2)], Some((Key, key))),
        (extension(DATA_FILE, b"nosuch"), &[], None),
        (extension(BITMAPS, &[0; 16]), &[], invalid("bitmaps_ext: Invalid extension length")),
        (
            bitmaps_extension(1, 1, 64, 0x2_0000),
            &[(AUTOCLEAR, 8, 1)],
            invalid("bitmaps_ext: Reserved field is not zero"),
        ),
        (
            bitmaps_extension(65536, 0, 64, 0x2_0000),
            &[(AUTOCLEAR, 8, 1)],
            invalid("bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535"),
        ),
        (
            bitmaps_extension(0, 0, 64, 0x2_0000),
            &[(AUTOCLEAR, 8, 1)],
            invalid("found bitmaps extension with zero bitmaps"),
        ),
        (
            bitmaps_extension(1, 0, 64, 512),
            &[(AUTOCLEAR, 8, 1)],
            invalid("bitmaps_ext: invalid bitmap directory offset"),
        ),
        (
            bitmaps_extension(1, 0, 67_107_841, 0x2_0000),
            &[(AUTOCLEAR, 8, 1)],
            invalid(
                "bitmaps_ext: bitmap directory size (67107841) exceeds the maximum supported size (67107840)",
            ),
        ),
        (
            bitmaps_extension(1, 0, 0, 0x2_0000),
            &[(AUTOCLEAR, 8, 1)],
            invalid("Requested bitmap directory size is zero"),
        ),
    ];
    for (extensions, patches, expected) in cases {
        compare(directory.path(), image_with(&base, &extensions, patches), expected);
    }
}

/// A bitmap directory entry; the fields that matter can be set.
struct Entry {
    table_offset: u64,
    table_size: u32,
    flags: u32,
    kind: u8,
    granularity_bits: u8,
    name: Vec<u8>,
    extra_len: u32,
}

impl Entry {
    fn named(name: &[u8]) -> Self {
        Self {
            table_offset: 0x3_0000,
            table_size: 1,
            flags: 0,
            kind: 1,
            granularity_bits: 16,
            name: name.to_vec(),
            extra_len: 0,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.table_offset.to_be_bytes().to_vec();
        bytes.extend(self.table_size.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend([self.kind, self.granularity_bits]);
        bytes.extend(u16::try_from(self.name.len()).unwrap().to_be_bytes());
        bytes.extend(self.extra_len.to_be_bytes());
        bytes.extend(vec![0; self.extra_len.min(64) as usize]);
        bytes.extend(&self.name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

#[test]
fn faulty_bitmap_directories_are_refused_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let bm = || Entry::named(b"bm");
    let constraints = Some((InvalidFormat, "Bitmap 'bm' doesn't satisfy the constraints"));
    let broken = Some((InvalidFormat, "Broken bitmap directory"));
    let exists = Some((InvalidFormat, "Bitmap already exists: bm"));
    let in_use = || Entry { flags: 1, ..bm() };
    type Case<'a> = (Vec<u8>, u32, Option<(ErrorKind, &'a str)>);
    let cases: Vec<Case<'_>> = vec![
        (bm().bytes(), 1, None),
        (in_use().bytes(), 1, None),
        (Entry { flags: 2, ..bm() }.bytes(), 1, None),
        (Entry { flags: 4, ..bm() }.bytes(), 1, constraints),
        (Entry { granularity_bits: 9, ..bm() }.bytes(), 1, None),
        (Entry { granularity_bits: 8, ..bm() }.bytes(), 1, constraints),
        (Entry { granularity_bits: 31, ..bm() }.bytes(), 1, None),
        (Entry { granularity_bits: 32, ..bm() }.bytes(), 1, constraints),
        (Entry { kind: 2, ..bm() }.bytes(), 1, constraints),
        (Entry { table_size: 0, ..bm() }.bytes(), 1, constraints),
        (Entry { table_offset: 0, ..bm() }.bytes(), 1, constraints),
        (Entry { table_offset: 512, ..bm() }.bytes(), 1, constraints),
        (
            Entry { table_size: 2, ..bm() }.bytes(),
            1,
            Some((InvalidFormat, "Could not read bitmap 'bm' from image: Invalid argument")),
        ),
        (Entry { table_size: 2, ..in_use() }.bytes(), 1, None),
        (Entry { table_size: 8192, ..in_use() }.bytes(), 1, None),
        (Entry { table_size: 8193, ..in_use() }.bytes(), 1, constraints),
        (
            Entry { extra_len: 8, ..bm() }.bytes(),
            1,
            Some((Unsupported, "Bitmap extra data is not supported")),
        ),
        (Entry { extra_len: 4096, ..bm() }.bytes(), 1, broken),
        (Entry::named(b"").bytes(), 1, None),
        (Entry::named(&[b'x'; 1023]).bytes(), 1, None),
        (bm().bytes()[..24].to_vec(), 1, broken),
        (bm().bytes()[..16].to_vec(), 1, broken),
        (
            [bm().bytes(), Entry::named(b"c").bytes()].concat(),
            1,
            Some((InvalidFormat, "More bitmaps found than specified in header extension")),
        ),
        (bm().bytes(), 2, Some((InvalidFormat, "Less bitmaps found than specified in header extension"))),
        ([bm().bytes(), bm().bytes()].concat(), 2, exists),
        ([in_use().bytes(), bm().bytes()].concat(), 2, exists),
        ([bm().bytes(), in_use().bytes()].concat(), 2, None),
    ];
    for (entries, count, expected) in cases {
        let mut bytes = base.clone();
        bytes.resize(0x4_0000, 0);
        bytes.extend(&entries);
        bytes.resize(0x5_0000, 0);
        let extensions = bitmaps_extension(count, 0, entries.len() as u64, 0x4_0000);
        compare(directory.path(), image_with(&bytes, &extensions, &[(AUTOCLEAR, 8, 1)]), expected);
    }
}

/// `qemu-img` reads up to 64 MiB, and zeros past the end of the file.
#[test]
fn a_bitmap_directory_is_bounded_and_inside_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    for (length, kind, message) in [
        ((1 << 20) + 1, Limit, "Requested bitmap directory size is too big"),
        (64, Corrupt, "Bitmap directory lies beyond the end of the file"),
    ] {
        let extensions = bitmaps_extension(1, 0, length, 0x10_0000);
        let bytes = image_with(&base, &extensions, &[(AUTOCLEAR, 8, 1)]);
        let found = Image::open(Memory::new(bytes), None).err();
        assert_eq!(found, Some(Error::new(kind, "bitmap directory", message)));
    }
}

/// `qemu-img` takes any length that fits the cluster.
#[test]
fn the_name_of_a_data_file_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let name = |length| {
        let bytes = image_with(&base, &extension(DATA_FILE, &vec![b'x'; length]), &[(INCOMPATIBLE, 8, 4)]);
        Image::open(Memory::new(bytes), None)
            .map(|image| image.data_file().unwrap().name.as_ref().unwrap().len())
    };
    assert_eq!(name(4096), Ok(4096));
    assert_eq!(name(4097), Err(Error::new(Limit, "external data file name", "Data file name too long")));
}

#[test]
fn real_bitmaps_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "bitmaps.qcow2", "", "64M");
    let add = |arguments: &[&str]| {
        qemu_img_ok(&[&["bitmap", "-f", "qcow2", "--add"], arguments].concat());
    };
    add(&[text(&path), "first"]);
    add(&["-g", "512", "--disable", text(&path), "second one"]);
    let image = Image::open(FileStorage::open(&path), None).unwrap();
    let seen: Vec<_> =
        image.bitmaps().iter().map(|bitmap| (&bitmap.name[..], bitmap.granularity(), bitmap.auto)).collect();
    assert_eq!(seen, [(&b"first"[..], 65536, true), (&b"second one"[..], 512, false)]);
    assert!(image.supports_bitmaps());
    let old = create(directory.path(), "old.qcow2", "compat=0.10", "1M");
    assert!(!Image::open(FileStorage::open(&old), None).unwrap().supports_bitmaps());
}

#[test]
fn referenced_files_are_named_as_they_stand() {
    let directory = tempfile::tempdir().unwrap();
    let below = create(directory.path(), "below.qcow2", "", "1M");
    let above = create(
        directory.path(),
        "above.qcow2",
        &format!("backing_file={},backing_fmt=qcow2", text(&below)),
        "1M",
    );
    let image = Image::open(FileStorage::open(&above), None).unwrap();
    let backing = image.backing().unwrap();
    assert_eq!(backing.name, text(&below).as_bytes());
    assert_eq!(backing.format.as_deref(), Some(&b"qcow2"[..]));
    assert!(Image::open(FileStorage::open(&below), None).unwrap().backing().is_none());

    let data = directory.path().join("disk.raw");
    let options = format!("data_file={},data_file_raw=on", text(&data));
    let split = create(directory.path(), "split.qcow2", &options, "1M");
    let mut image = Image::open(FileStorage::open(&split), None).unwrap();
    assert_eq!(image.data_file().unwrap().name.as_deref(), Some(text(&data).as_bytes()));
    assert!(image.data_file().unwrap().raw);
    walk(&mut image).unwrap();
}

#[test]
fn a_data_file_has_the_offsets_of_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("disk.raw");
    let path = create(directory.path(), "split.qcow2", &format!("data_file={}", text(&data)), "4M");
    qemu_io("qcow2", &path, &["write -P 1 0 64k", "write -P 2 1M 128k", "write -z 2M 64k"]);
    let mut image = Image::open(FileStorage::open(&path), None).unwrap();
    assert_eq!(walk(&mut image).unwrap(), support::qemu_map("qcow2", &path));
}

#[test]
fn the_header_says_what_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let options = "cluster_size=16k,refcount_bits=1,extended_l2=on,compression_type=zstd,lazy_refcounts=on";
    let path = create(directory.path(), "new.qcow2", options, "1G");
    let image = Image::open(FileStorage::open(&path), None).unwrap();
    let header = image.qcow2().unwrap().header();
    assert_eq!((header.version(), header.cluster_bits().get(), header.refcount_bits()), (Version::V3, 14, 1));
    assert_eq!((header.compression_type(), header.crypt_method()), (Compression::Zstd, CryptMethod::None));
    assert!(
        header.has_extended_l2() && header.lazy_refcounts() && !header.is_dirty() && !header.is_corrupt()
    );
    qemu_img_ok(&["snapshot", "-c", "one", text(&path)]);
    let image = Image::open(FileStorage::open(&path), None).unwrap();
    assert_eq!(image.qcow2().unwrap().header().snapshots().0, 1);
}

#[test]
fn an_encrypted_image_needs_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("luks.qcow2");
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let secret = "secret,id=s,data=abc";
    qemu_img_ok(&["create", "-q", "-f", "qcow2", "--object", secret, "-o", options, text(&path), "1M"]);
    let error = Image::open(FileStorage::open(&path), None).err().unwrap();
    assert_eq!(Some(error.message), qemu_complaint(&path));
    assert!(Image::open_metadata(FileStorage::open(&path), None).unwrap().encrypted());
}

/// A hole in cipher text is no zero.
#[test]
fn holes_of_an_encrypted_image_are_data() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "plain.qcow2", "preallocation=metadata", "16M");
    let kinds = || {
        let lines = walk(&mut Image::open_metadata(FileStorage::open(&path), None).unwrap()).unwrap();
        lines.iter().map(|line| matches!(line.kind, support::Kind::Data(_))).collect::<Vec<_>>()
    };
    assert_eq!(kinds(), [false]);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &1_u32.to_be_bytes(), CRYPT as u64).unwrap();
    assert_eq!(kinds(), [true]);
}

#[test]
fn bitmaps_that_the_data_went_on_without_are_not_counted() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = image_with(&base(directory.path()), &bitmaps_extension(0, 1, 1, 1), &[]);
    let image = Image::open(Memory::new(bytes.clone()), None).unwrap();
    assert!(image.qcow2().unwrap().has_stale_bitmaps() && image.bitmaps().is_empty());
    compare(directory.path(), bytes, None);
}

/// The table of an image with one snapshot, a field of its entry replaced.
#[test]
fn snapshot_tables_within_limits_are_walked() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "snapshot.qcow2", "", "1M");
    qemu_img_ok(&["snapshot", "-c", "name", text(&path)]);
    let base = std::fs::read(&path).unwrap();
    let table = usize::try_from(support::word(&base, 64)).unwrap();
    let patched = |patches: &[(usize, usize, u64)]| {
        let mut bytes = base.clone();
        patch(&mut bytes, patches);
        Image::open(Memory::new(bytes), None).err()
    };
    let extra = table + 36;
    assert_eq!(patched(&[]), None);
    assert_eq!(patched(&[(extra, 4, 0)]), None);
    let message = "Too much extra metadata in snapshot table entry 0";
    assert_eq!(patched(&[(extra, 4, 1025)]), Some(Error::new(Limit, "snapshot table", message)));
    let mut bytes = base.clone();
    patch(&mut bytes, &[(extra, 4, 1025)]);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(qemu_complaint(&path).as_deref(), Some(message));
    // qemu-img reads zeros past the end of the file and sees snapshots without a name there.
    let message = "Snapshot table entry 0 lies beyond the end of the file";
    let beyond = Some(Error::new(Corrupt, "snapshot table", message));
    assert_eq!(patched(&[(64, 8, 1 << 40)]), beyond);
    assert_eq!(patched(&[(extra, 4, 1024), (table + 12, 4, 0xffff_ffff)]), beyond);
}
