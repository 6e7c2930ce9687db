//! Every header field of every kind of sparse file at its limits: accepted or refused as `qemu-img` does it, in the
//! same words, or else with what `qemu-img` does in its place.

mod support;

use std::path::Path;

use formats::ErrorKind::{self, Corrupt, InvalidFormat, Limit, Unsupported};
use formats::{Format, Image};
use support::vmdk::{self, complaint, cowd, descriptor, patch, se_sparse, with_footer};
use support::{Memory, qemu_io, walk};

type Patches<'a> = &'a [(usize, usize, u64)];

/// What comes of an image: nothing wrong, or kind, field and words.
type Found = Option<(ErrorKind, &'static str, &'static str)>;

/// What `qemu-img` makes of it.
#[derive(Clone, Copy)]
enum Theirs {
    /// The same.
    Same,
    /// Nothing wrong.
    Accepts,
    /// These words, `{}` being the name of the file.
    Says(&'static str),
    /// No answer at all: it crashes.
    Crashes,
}
use Theirs::{Accepts, Crashes, Same, Says};

// Fields of a hosted sparse file's header: offset and length.
const VERSION: (usize, usize) = (4, 4);
const FLAGS: (usize, usize) = (8, 4);
const CAPACITY: (usize, usize) = (12, 8);
const GRAIN_SIZE: (usize, usize) = (20, 8);
const DESCRIPTOR: (usize, usize) = (28, 8);
const TABLE_ENTRIES: (usize, usize) = (44, 4);
const RGD: (usize, usize) = (48, 8);
const GD: (usize, usize) = (56, 8);
const OVER_HEAD: (usize, usize) = (64, 8);

const STATUS: Theirs = Says("Unable to get block status: Input/output error");

fn at(field: (usize, usize), value: u64) -> (usize, usize, u64) {
    (field.0, field.1, value)
}

/// Opens and walks; what is wrong with it, and that it is the same whether or not it was probed.
fn found(bytes: &[u8]) -> Option<formats::Error> {
    let open = || Image::open(Memory::new(bytes.to_vec()), Some(Format::Vmdk));
    open().and_then(|mut image| walk(&mut image)).err()
}

fn compare(what: &str, path: &Path, ours: Option<&formats::Error>, expected: Found, theirs: Theirs) {
    let ours = ours.map(|error| (error.kind, error.field, error.message.as_str()));
    assert_eq!(ours, expected, "{what}");
    let expected = match theirs {
        Same => ours.map(|(.., message)| message.to_owned()),
        Accepts => None,
        Says(text) => Some(text.replace("{}", path.to_str().unwrap())),
        Crashes => {
            let output = support::qemu_img(&["measure", "-f", "vmdk", "-O", "qcow2", path.to_str().unwrap()]);
            assert_eq!(output.status.code(), None, "{what}");
            return;
        }
    };
    assert_eq!(complaint(path), expected, "{what}");
}

fn check(base: &[u8], cases: &[(Patches<'_>, Found, Theirs)]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.vmdk");
    for &(patches, expected, theirs) in cases {
        let mut bytes = base.to_vec();
        patch(&mut bytes, patches);
        std::fs::write(&path, &bytes).unwrap();
        compare(&format!("{patches:x?}"), &path, found(&bytes).as_ref(), expected, theirs);
    }
}

fn sample() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = vmdk::create(directory.path(), "a.vmdk", "monolithicSparse", "", "64M");
    qemu_io("vmdk", &path, &["write -P 1 0 64k", "write -P 2 40M 64k"]);
    std::fs::read(path).unwrap()
}

#[test]
fn hosted_sparse_headers() {
    let large: Found = Some((Limit, "capacity", "L1 size too big"));
    let too_large: Found = Some((Limit, "capacity", "Could not refresh total sector count: File too large"));
    let file_too_large = Says("Could not refresh total sector count: File too large");
    let grain: Found = Some((InvalidFormat, "grainSize", "Invalid granularity, image may be corrupt"));
    let entry: Found = Some((InvalidFormat, "grainSize", "L1 entry size is invalid"));
    let tables: Found = Some((InvalidFormat, "numGTEsPerGT", "L2 table size too big"));
    let beyond: Found = Some((Corrupt, "grain directory", "Grain directory lies beyond the end of the file"));
    let unread: Found =
        Some((Corrupt, "gdOffset", "Could not read l1 table from extent: Input/output error"));
    let unread_backup: Found =
        Some((Corrupt, "rgdOffset", "Could not read l1 backup table from extent: Input/output error"));
    let says_unread = Says("Could not read l1 table from extent '{}': Input/output error");
    let says_unread_backup = Says("Could not read l1 backup table from extent '{}': Input/output error");
    let truncated = |text| Some((Corrupt, "overHead", text));
    let version = |text| Some((Unsupported, "version", text));
    let followed: Found = Some((Unsupported, "createType", "Unsupported image type 'monolithicSparse'"));
    check(
        &sample(),
        &[
            (&[], None, Same),
            (&[at(VERSION, 0)], None, Same),
            (&[at(VERSION, 3)], None, Same),
            (&[at(VERSION, 4)], version("Unsupported VMDK version 4"), Same),
            (&[at(VERSION, 0xffff_ffff)], version("Unsupported VMDK version 4294967295"), Same),
            (&[at(GRAIN_SIZE, 0)], entry, Same),
            (&[at(GRAIN_SIZE, 1), at(CAPACITY, 512)], None, Same),
            (&[at(GRAIN_SIZE, 3), at(CAPACITY, 1536)], None, Same),
            (&[at(GRAIN_SIZE, 0x20_0000)], None, Same),
            (&[at(GRAIN_SIZE, 0x20_0001)], grain, Same),
            (&[at(GRAIN_SIZE, 0x80_0000)], entry, Same),
            (&[at(GRAIN_SIZE, 1 << 40)], entry, Same),
            (&[at(GRAIN_SIZE, (1 << 40) + 1)], grain, Same),
            (&[at(GRAIN_SIZE, u64::MAX)], grain, Same),
            (&[at(TABLE_ENTRIES, 0)], entry, Same),
            (&[at(TABLE_ENTRIES, 513)], tables, Same),
            (&[at(TABLE_ENTRIES, 0xffff_ffff)], tables, Same),
            (&[at(CAPACITY, 0), at(DESCRIPTOR, 0)], None, Same),
            (&[at(CAPACITY, 0)], followed, Same),
            (&[at(CAPACITY, 1)], None, Same),
            (&[at(CAPACITY, (32 << 20) * 65536 + 1)], large, Same),
            (&[at(CAPACITY, 1 << 55)], large, Says("Unable to get image virtual_size: File too large")),
            (&[at(CAPACITY, 1 << 53)], large, STATUS),
            (&[at(CAPACITY, u64::MAX)], large, file_too_large),
            (
                &[at(CAPACITY, 0x20_0000 << 18), at(GRAIN_SIZE, 0x20_0000), at(TABLE_ENTRIES, 1)],
                beyond,
                Accepts,
            ),
            (&[at(CAPACITY, 0x40_0000_0000_0000), at(GRAIN_SIZE, 0x20_0000)], too_large, Same),
            (
                &[at(GD, 0)],
                Some((Corrupt, "grain directory", "Grain directory overlaps the header")),
                Accepts,
            ),
            (&[at(GD, 1 << 30)], beyond, Accepts),
            (&[at(GD, 0x3f_ffff_ffff_ffff)], unread, says_unread),
            // What is left of these after multiplication is a place in the file again.
            (&[at(GD, (1 << 55) + 26)], unread, Accepts),
            (&[at(GD, u64::MAX - 1)], unread, says_unread),
            (&[at(GD, u64::MAX)], Some((InvalidFormat, "footer", "Invalid footer")), Same),
            (&[at(RGD, 1 << 30)], None, Same),
            (&[at(RGD, 0x3f_ffff_ffff_ffff)], unread_backup, says_unread_backup),
            (&[at(RGD, 0x3f_ffff_ffff_ffff), at(FLAGS, 1)], None, Same),
            (&[at(OVER_HEAD, 0)], None, Same),
            (&[at(OVER_HEAD, 512)], truncated("File truncated, expecting at least 262144 bytes"), Same),
            (
                &[at(OVER_HEAD, 1 << 54)],
                truncated("File truncated, expecting at least -9223372036854775808 bytes"),
                Same,
            ),
            (&[at(OVER_HEAD, u64::MAX)], truncated("File truncated, expecting at least -512 bytes"), Same),
        ],
    );
}

#[test]
fn a_header_without_capacity_does_not_lead_to_a_descriptor() {
    let base = sample();
    let mut bytes = vec![0; 512];
    bytes[..512].copy_from_slice(&base[..512]);
    bytes.extend(descriptor("monolithicFlat", "RW 8 FLAT \"/etc/hostname\" 0").bytes());
    bytes.resize(4096, 0);
    let refused = "Sparse header without capacity stands before a descriptor";
    let unread = "Could not read from file: Input/output error";
    check(
        &bytes,
        &[
            (&[at(CAPACITY, 0)], Some((InvalidFormat, "capacity", refused)), Accepts),
            (&[at(CAPACITY, 0), at(GD, u64::MAX)], Some((InvalidFormat, "capacity", refused)), Accepts),
            (
                &[at(CAPACITY, 0), at(DESCRIPTOR, 1 << 50)],
                Some((InvalidFormat, "createType", "invalid VMDK image descriptor")),
                Same,
            ),
            (
                &[at(CAPACITY, 0), at(DESCRIPTOR, 1 << 54)],
                Some((InvalidFormat, "descriptorOffset", unread)),
                Same,
            ),
        ],
    );
}

#[test]
fn footers() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("a.raw");
    std::fs::write(&raw, vec![5; 200_000]).unwrap();
    let path = vmdk::convert(&raw, "a.vmdk", "subformat=streamOptimized");
    let bytes = with_footer(std::fs::read(path).unwrap());
    let (end, invalid) = (bytes.len(), Some((InvalidFormat, "footer", "Invalid footer")));
    let (marker, footer, stop) = (end - 1536, end - 1024, end - 512);
    let unread = Some((Corrupt, "gdOffset", "Could not read l1 table from extent: Input/output error"));
    let says_unread = Says("Could not read l1 table from extent '{}': Input/output error");
    check(
        &bytes,
        &[
            (&[], None, Same),
            // Only the footer counts.
            (&[at(VERSION, 9), at(TABLE_ENTRIES, 0), at(GRAIN_SIZE, 0)], None, Same),
            (&[(marker, 8, 77)], None, Same),
            (&[(marker + 8, 4, 1)], invalid, Same),
            (&[(marker + 12, 4, 2)], invalid, Same),
            (&[(footer, 4, 0)], invalid, Same),
            (&[(footer + 4, 4, 4)], Some((Unsupported, "version", "Unsupported VMDK version 4")), Same),
            (&[(footer + 56, 8, u64::MAX)], unread, says_unread),
            (&[(stop, 8, 1)], invalid, Same),
            (&[(stop + 8, 4, 1)], invalid, Same),
            (&[(stop + 12, 4, 1)], invalid, Same),
            (&[(end, 1, 0)], invalid, Same),
        ],
    );
    let short = "Failed to read footer: Input/output error";
    check(&bytes[..1024], &[(&[], Some((InvalidFormat, "footer", short)), Same)]);
}

#[test]
fn cowd_headers() {
    let status = |text| Some((Corrupt, "grain directory", text));
    let (sectors, grain, directory, entries) = ((12, 4), (16, 4), (20, 4), (24, 4));
    let granularity = Some((InvalidFormat, "grainSize", "Invalid granularity, image may be corrupt"));
    check(
        &cowd(5000, 4, &[1, 4999]),
        &[
            (&[], None, Same),
            (&[at(VERSION, 9), at(FLAGS, 9)], None, Same),
            (&[at(sectors, 0)], None, Same),
            (&[at(sectors, 0xffff_ffff)], status("Grain directory ends before the disk does"), STATUS),
            (&[at(grain, 0)], granularity, Crashes),
            (&[at(grain, 0x20_0001)], granularity, Same),
            (
                &[at(grain, 0x10_0000)],
                Some((InvalidFormat, "grainSize", "L1 entry size is invalid")),
                Crashes,
            ),
            (&[at(grain, 0xf_ffff)], None, Same),
            (&[at(directory, 0)], status("Grain directory overlaps the header"), Accepts),
            (
                &[at(directory, 0xffff_ffff)],
                status("Grain directory lies beyond the end of the file"),
                Accepts,
            ),
            (&[at(entries, 1)], status("Grain directory ends before the disk does"), STATUS),
            (&[at(entries, 32 << 20)], status("Grain directory lies beyond the end of the file"), Accepts),
            (&[at(entries, 0xffff_ffff)], Some((Limit, "numGDEntries", "L1 size too big")), Same),
        ],
    );
}

#[test]
fn se_sparse_headers() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let base = se_sparse(80_000, &[(0, 0), (9999, 0)]);
    std::fs::write(at("text.vmdk"), descriptor("seSparse", "RW 80000 SESPARSE \"se.vmdk\"")).unwrap();
    let word = |index: usize, value: u64| [(8 * index, 8, value)];
    let no = |field, text| Some((Unsupported, field, text));
    let bad = |field, text| Some((InvalidFormat, field, text));
    let directory_fault = |text| Some((Corrupt, "grain directory", text));
    let zero = "0x0000000000000000 0x0000000000000000 0x0000000000000000";
    let reserved = format!("Unsupported reserved bits: 0x0000000000000001 {zero}");
    let reserved: &'static str = Box::leak(reserved.into_boxed_str());
    let cases: &[(Patches<'_>, Found, Theirs)] = &[
        (&[], None, Same),
        (&word(0, 0xcafe_babf), bad("magic", "Bad const header magic: 0x00000000cafebabf"), Same),
        (&word(1, 0x2_0000_0002), no("version", "Unsupported version: 0x0000000200000002"), Same),
        (&word(3, 9), no("grain size", "Unsupported grain size: 9"), Same),
        (&word(4, 65), no("grain table size", "Unsupported grain table size: 65"), Same),
        (&word(5, 1), no("flags", "Unsupported flags: 0x0000000000000001"), Same),
        (&word(6, 1), no("reserved", reserved), Same),
        (&[(511, 1, 1)], no("padding", "Unsupported non-zero const header padding"), Same),
        (&word(10, 0), bad("volatile header magic", "Bad volatile header magic: 0x00000000cafebabe"), Same),
        (
            &word(64, 0xcafe_caff),
            bad("volatile header magic", "Bad volatile header magic: 0x00000000cafecaff"),
            Same,
        ),
        (&word(67, 1), no("replay journal", "Image is dirty, Replaying journal not supported"), Same),
        (
            &[(1023, 1, 1)],
            no("volatile header padding", "Unsupported non-zero volatile header padding"),
            Same,
        ),
        (&word(2, 0), None, Same),
        (&word(2, 4096 * 8 * 64 + 1), directory_fault("Grain directory ends before the disk does"), STATUS),
        (
            &word(2, 1 << 54),
            Some((Limit, "capacity", "Could not refresh total sector count: File too large")),
            Same,
        ),
        (&word(17, 0), directory_fault("Grain directory ends before the disk does"), STATUS),
        (&word(17, (32 << 20) / 64 + 1), Some((Limit, "grain directory size", "L1 size too big")), Same),
        (&word(17, 1 << 50), Some((Limit, "grain directory size", "L1 size too big")), STATUS),
        (&word(16, 1 << 40), directory_fault("Grain directory lies beyond the end of the file"), Accepts),
        (&[(1024, 8, 1)], directory_fault("Invalid grain directory entry (index: 0)"), STATUS),
        (
            &[(1024, 8, 1 << 60 | 0xffff_ffff)],
            directory_fault("Invalid grain directory entry (index: 0)"),
            STATUS,
        ),
        (
            &[(1536, 8, 1)],
            Some((Corrupt, "grain table", "Invalid grain table entry (table: 0x600, index: 0)")),
            STATUS,
        ),
        (
            &[(1536, 8, 4 << 60)],
            Some((Corrupt, "grain table", "Invalid grain table entry (table: 0x600, index: 0)")),
            STATUS,
        ),
    ];
    for &(patches, expected, theirs) in cases {
        let mut bytes = base.clone();
        patch(&mut bytes, patches);
        std::fs::write(at("se.vmdk"), bytes).unwrap();
        let found = vmdk::open(&at("text.vmdk")).and_then(|mut image| walk(&mut image)).err();
        assert!(found.as_ref().is_none_or(
            |error| error.message.starts_with("Could not refresh") || error.file.reference() == Some(0)
        ));
        compare(&format!("{patches:x?}"), &at("text.vmdk"), found.as_ref(), expected, theirs);
    }
}

/// `qemu-img` looks for it at the end of the descriptor's file.
#[test]
fn a_footer_behind_a_descriptor_is_at_the_end_of_its_own_file() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("a.raw");
    std::fs::write(&raw, vec![5; 200_192]).unwrap();
    let bytes =
        with_footer(std::fs::read(vmdk::convert(&raw, "a.vmdk", "subformat=streamOptimized")).unwrap());
    std::fs::write(directory.path().join("a.vmdk"), bytes).unwrap();
    let path = directory.path().join("text.vmdk");
    std::fs::write(&path, descriptor("vmfsSparse", "RW 391 SPARSE \"a.vmdk\"")).unwrap();
    assert_eq!(vmdk::open(&path).map(|image| image.virtual_size()), Ok(200_192));
    assert_eq!(complaint(&path).as_deref(), Some("Failed to read footer: Input/output error"));
}
