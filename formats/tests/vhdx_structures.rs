//! Headers, region table and metadata of VHDX images: refused where `qemu-img` refuses them.

mod support;
#[path = "support/vhd.rs"]
mod vhd;

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit, Unsupported};
use formats::{Error, ErrorKind, Format, Image};
use images::build::vhdx::{
    BAT, Builder, FULL, HEADERS, ITEMS, METADATA, MIB, REGIONS, guid, put, seal, seal_all,
};
use support::{Memory, walk};
use vhd::complaint;

/// Bytes and where they go.
type Patches = Vec<(usize, Vec<u8>)>;

fn open(bytes: &[u8]) -> Result<Image<Memory>, Error> {
    Image::open(Memory::new(bytes.to_vec()), Some(Format::Vhdx))
}

fn fault(bytes: &[u8]) -> Option<Error> {
    open(bytes).and_then(|mut image| walk(&mut image)).err()
}

/// An image with the patches, its checksums made right.
fn patched(base: &[u8], patches: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for (at, value) in patches {
        put(&mut bytes, *at, value);
    }
    seal_all(&mut bytes);
    bytes
}

#[test]
fn the_current_header_is_the_one_with_the_higher_number() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.vhdx");
    let base = Builder::default().build();
    // A log of version 1 in one of the headers shows which is taken.
    let [first, second] = HEADERS;
    let (bad, version) = (vec![1], vec![2]);
    let number = |value: u64| value.to_le_bytes().to_vec();
    let cases: [(Patches, bool); 9] = [
        (vec![], true),
        (vec![(first + 64, bad.clone())], true),
        (vec![(second + 64, bad.clone())], false),
        (vec![(second + 64, bad.clone()), (second, b"x".to_vec())], true),
        (vec![(second + 64, bad.clone()), (first + 66, version)], false),
        (vec![(first + 8, number(3)), (first + 64, bad.clone())], false),
        (vec![(first + 8, number(2))], true),
        (vec![(first + 8, number(2)), (first + 100, bad.clone())], true),
        (vec![(first + 8, number(2)), (first + 32, bad)], false),
    ];
    for (patches, opens) in cases {
        let bytes = patched(&base, &patches);
        std::fs::write(&path, &bytes).unwrap();
        let theirs = complaint("vhdx", &["info"], &path);
        // Where only bytes that mean nothing differ, their checksums do.
        let opens = opens && !patches.iter().any(|(at, _)| *at == first + 100);
        assert_eq!((open(&bytes).is_ok(), theirs.is_none()), (opens, opens), "{patches:x?} {theirs:?}");
    }
}

#[test]
fn broken_structures_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.vhdx");
    let base = Builder { bat: vec![(1, (5 << 20) | FULL)], ..Builder::default() }.build();
    let both = |at: usize| HEADERS.map(|header| header + at);
    let [log_offset_1, log_offset_2] = both(72);
    let [log_length_1, log_length_2] = both(68);
    let [guid_1, guid_2] = both(48);
    let region = |number: usize| REGIONS + 16 + 32 * number;
    let item = |number: usize| METADATA + 32 + 32 * number;
    let (bat_start, bat_length, metadata_start) = (region(0) + 16, region(0) + 24, region(1) + 16);
    let (size, sector) = (ITEMS + 8, ITEMS + 32);
    let mib = |count: u64| (count << 20).to_le_bytes();
    let unknown =
        |required: u8, start: u64| [&[7; 16][..], &mib(start), &[0, 0, 16, 0, required, 0, 0, 0]].concat();
    let unknown_item =
        |flags: u8| [&[7; 16][..], &[0, 0, 1, 0, 4, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0]].concat();
    let parent = [&guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")[..], &[0, 0, 1, 0, 20, 0, 0, 0]].concat();
    let cases: Vec<(Patches, Option<ErrorKind>)> = vec![
        (vec![], None),
        (vec![(0, b"x".to_vec())], Some(InvalidFormat)),
        (vec![(HEADERS[0], b"x".to_vec()), (HEADERS[1], b"x".to_vec())], Some(InvalidFormat)),
        (vec![(HEADERS[0] + 66, vec![2]), (HEADERS[1] + 66, vec![2])], Some(InvalidFormat)),
        (vec![(HEADERS[0] + 64, vec![1]), (HEADERS[1] + 64, vec![1])], Some(Unsupported)),
        (vec![(log_offset_1, vec![0; 8]), (log_offset_2, vec![0; 8])], Some(InvalidFormat)),
        (vec![(log_offset_1, vec![0, 16]), (log_offset_2, vec![0, 16])], Some(InvalidFormat)),
        (vec![(log_length_1, vec![5, 0, 0, 0]), (log_length_2, vec![5, 0, 0, 0])], None),
        (
            vec![
                (log_length_1, vec![0; 4]),
                (log_length_2, vec![0; 4]),
                (guid_1, vec![1]),
                (guid_2, vec![1]),
            ],
            None,
        ),
        (
            vec![
                (log_length_1, vec![5, 0, 0, 0]),
                (log_length_2, vec![5, 0, 0, 0]),
                (guid_1, vec![1]),
                (guid_2, vec![1]),
            ],
            Some(InvalidFormat),
        ),
        (vec![(guid_1, vec![1]), (guid_2, vec![1])], None),
        (vec![(REGIONS, b"x".to_vec())], Some(InvalidFormat)),
        (vec![(REGIONS + 8, 2048_u32.to_le_bytes().to_vec())], Some(Limit)),
        (vec![(REGIONS + 8, vec![1])], Some(InvalidFormat)),
        (vec![(REGIONS + 8, vec![3]), (region(2), unknown(1, 9))], Some(Unsupported)),
        (vec![(REGIONS + 8, vec![3]), (region(2), unknown(0, 9))], None),
        (vec![(REGIONS + 8, vec![3]), (region(2), unknown(0, 5))], Some(Corrupt)),
        (vec![(REGIONS + 8, vec![3]), (region(2), unknown(0, 1))], Some(InvalidFormat)),
        (vec![(region(1), guid("2dc27766-f623-4200-9d64-115e9bfd4a08").to_vec())], Some(InvalidFormat)),
        (vec![(bat_start, mib(3).to_vec())], Some(InvalidFormat)),
        (vec![(bat_start, mib(1).to_vec())], Some(InvalidFormat)),
        (vec![(bat_length, 56_u32.to_le_bytes().to_vec())], Some(Corrupt)),
        (vec![(bat_length, 64_u32.to_le_bytes().to_vec())], None),
        (vec![(metadata_start, mib(1 << 20).to_vec())], Some(InvalidFormat)),
        (vec![(METADATA, b"x".to_vec())], Some(InvalidFormat)),
        (vec![(METADATA + 10, 2048_u16.to_le_bytes().to_vec())], Some(Limit)),
        (vec![(METADATA + 10, vec![4])], Some(InvalidFormat)),
        (vec![(METADATA + 10, vec![6]), (item(5), unknown_item(4))], Some(Unsupported)),
        (vec![(METADATA + 10, vec![6]), (item(5), unknown_item(0))], None),
        (vec![(METADATA + 10, vec![6]), (item(5), base[item(0)..item(1)].to_vec())], Some(InvalidFormat)),
        (vec![(METADATA + 10, vec![6]), (item(5), parent.clone())], Some(InvalidFormat)),
        (vec![(item(0) + 16, vec![0xff; 4])], Some(Corrupt)),
        (vec![(item(0) + 20, vec![0; 4])], None),
        (vec![(ITEMS + 4, vec![2])], Some(InvalidFormat)),
        (vec![(ITEMS, vec![0; 4])], Some(InvalidFormat)),
        (vec![(ITEMS, (1_u32 << 19).to_le_bytes().to_vec())], Some(InvalidFormat)),
        (vec![(ITEMS, (3_u32 << 20).to_le_bytes().to_vec())], Some(InvalidFormat)),
        (vec![(ITEMS, (1_u32 << 29).to_le_bytes().to_vec())], Some(InvalidFormat)),
        (vec![(sector, vec![1, 0])], Some(InvalidFormat)),
        (vec![(sector, vec![0, 4])], Some(InvalidFormat)),
        (vec![(size, vec![0xff; 8])], Some(Limit)),
        (vec![(size, ((64_u64 << 40) + 512).to_le_bytes().to_vec())], Some(Limit)),
        (vec![(size, (64_u64 << 40).to_le_bytes().to_vec())], Some(Corrupt)),
        (vec![(size, 1_000_000_u64.to_le_bytes().to_vec())], None),
        (vec![(BAT, ((1 << 20) | FULL).to_le_bytes().to_vec())], Some(Corrupt)),
        (vec![(BAT, ((2 << 20) | FULL).to_le_bytes().to_vec())], Some(Corrupt)),
        (vec![(BAT, ((3 << 20) | FULL).to_le_bytes().to_vec())], Some(Corrupt)),
        (vec![(BAT, ((16 << 20) | FULL).to_le_bytes().to_vec())], Some(Corrupt)),
        (vec![(BAT, (0xffff_ffff_fff0_0000 | FULL).to_le_bytes().to_vec())], Some(Corrupt)),
    ];
    let mut words = 0;
    for (patches, class) in cases {
        let bytes = patched(&base, &patches);
        std::fs::write(&path, &bytes).unwrap();
        let (ours, theirs) = (fault(&bytes), complaint("vhdx", &["info"], &path));
        assert_eq!(ours.as_ref().map(|error| error.kind), class, "{patches:x?}: {ours:?} {theirs:?}");
        match (ours.map(|error| error.message), theirs) {
            // All that qemu-img has to say of most faults.
            (Some(_), Some(theirs))
                if theirs == "Invalid argument" || theirs == "Operation not supported" => {}
            (ours, theirs) => {
                words += u32::from(ours.is_some());
                assert_eq!(ours, theirs, "{patches:x?}");
            }
        }
    }
    assert!(words >= 10, "{words}");
    let mut wrong = base.clone();
    wrong[REGIONS + 4] ^= 1;
    assert_eq!(fault(&wrong).unwrap().kind, InvalidFormat);
}

#[test]
fn files_that_were_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.vhdx");
    let base = Builder { bat: vec![(0, (15 << 20) | FULL)], size: MIB as u64, ..Builder::default() }.build();
    for length in
        [0, 8, 65536, 3 * MIB + 4096, 15 * MIB, 15 * MIB + 1, 16 * MIB - 512, 16 * MIB - 511, 16 * MIB - 1]
    {
        std::fs::write(&path, &base[..length]).unwrap();
        let theirs = complaint("vhdx", &["info"], &path);
        let ours = fault(&base[..length]).map(|error| error.message);
        assert_eq!(ours.is_some(), theirs.is_some(), "{length}: {ours:?} {theirs:?}");
        if theirs.as_deref() != Some("Invalid argument") {
            assert_eq!(ours, theirs, "{length}");
        }
    }
}

/// `qemu-img` reads zeros past the end of the file, and the header section as a table.
#[test]
fn regions_that_cannot_be_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patched.vhdx");
    let base = Builder::default().build();
    let far = patched(&base, &[(REGIONS + 32, (1_u64 << 40).to_le_bytes().to_vec())]);
    let error = Error::new(Corrupt, "BAT", "Block allocation table lies beyond the end of the file");
    assert_eq!(fault(&far), Some(error));
    std::fs::write(&path, &far).unwrap();
    assert_eq!(complaint("vhdx", &["info"], &path), None);
    let mut header = patched(
        &base,
        &[(REGIONS + 32, (512_u64 << 10).to_le_bytes().to_vec()), (REGIONS + 40, vec![0, 16, 0])],
    );
    seal(&mut header[REGIONS..REGIONS + 65536]);
    let error = Error::new(Corrupt, "FileOffset", "Region overlaps the header section");
    assert_eq!(fault(&header), Some(error));
    std::fs::write(&path, &header).unwrap();
    assert_eq!(complaint("vhdx", &["info"], &path), None);
}
