//! Parallels: the map that `qemu-img map` prints, and images that are refused.

mod support;

use formats::ErrorKind::{InvalidFormat, Limit};
use formats::{Error, Format, Image};
use support::cases::Expect::{Read, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, check_file, complaint, create_as, flips, open_and_walk, patched};
use support::{FileStorage, Random, qemu_img, qemu_io, text};

const VERSION: (usize, usize) = (16, 4);
const TRACKS: (usize, usize) = (28, 4);
const BAT_ENTRIES: (usize, usize) = (32, 4);
const SECTORS: (usize, usize) = (36, 8);
const IN_USE: (usize, usize) = (44, 4);
const DATA_OFF: (usize, usize) = (48, 4);
const EXT_OFF: (usize, usize) = (56, 8);
/// The first entry of the BAT.
const BAT: usize = 64;
/// `WithoutFreeSpace` in the place of `WithouFreSpacExt`.
const OLD: [Patch; 2] = [(0, 8, u64::from_le_bytes(*b"WithoutF")), (8, 8, u64::from_le_bytes(*b"reeSpace"))];

fn set((offset, length): (usize, usize), value: u64) -> Patch {
    (offset, length, value)
}

/// 10 MiB in clusters of 1 MiB, some of them written.
fn sample() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("parallels", directory.path(), "sample.hds", "", "10M");
    qemu_io("parallels", &path, &["write -P 1 1M 2M", "write -P 2 7M 4k"]);
    std::fs::read(path).unwrap()
}

#[test]
fn the_map_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    for (index, options) in ["", "cluster_size=4096", "cluster_size=31744"].into_iter().enumerate() {
        for size in [512u64, 10 << 20, (10 << 20) + 512 * 3] {
            let name = format!("{index}-{size}.hds");
            let path = create_as("parallels", directory.path(), &name, options, &size.to_string());
            check_file(Format::Parallels, &path, Read, "new");
            let commands: Vec<_> = (0..12)
                .map(|_| {
                    let offset = random.below(size / 512) * 512;
                    format!("write -P 1 {offset} {}", ((random.below(50) + 1) * 4096).min(size - offset))
                })
                .collect();
            qemu_io("parallels", &path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
            check_file(Format::Parallels, &path, Read, "written");
            let image = Image::open(FileStorage::open(&path), None).unwrap();
            assert_eq!(image.format(), Format::Parallels);
            assert!(image.supports_bitmaps() && image.bitmaps().is_empty());
        }
    }
}

#[test]
fn fields_of_the_header() {
    let magic = Refused(InvalidFormat, "magic", "Image not in Parallels format");
    let zero = Refused(InvalidFormat, "tracks", "Invalid image: Zero sectors per track");
    let big = Refused(Limit, "tracks", "Invalid image: Too big cluster");
    let catalog = Refused(Limit, "bat_entries", "Catalog too large");
    let too_long = "Could not refresh total sector count: File too large";
    let sectors = Refused(Limit, "nb_sectors", too_long);
    let wrong = "Wrong parallels Format Extension magic: 0x0, expected: 0xab234cef23dcea87";
    let extension = Refused(InvalidFormat, "format extension", wrong);
    check(
        Format::Parallels,
        &sample(),
        Order::Little,
        &[
            (&[], Read),
            (&OLD, Read),
            (&[(0, 4, 1)], magic),
            (&[set(VERSION, 1)], magic),
            (&[set(VERSION, 3), set(TRACKS, 0)], magic),
            (&[(20, 8, 0)], Read),
            (&[set(TRACKS, 0), set(BAT_ENTRIES, 1 << 30)], zero),
            (&[set(TRACKS, 0), set(SECTORS, u64::MAX)], zero),
            (&[set(TRACKS, 1)], Read),
            (&[set(TRACKS, 63)], Read),
            (&[set(TRACKS, 4_186_127)], Read),
            (&[set(TRACKS, 4_186_127), (BAT, 4, u32::MAX.into())], Read),
            (&[set(TRACKS, 4_186_128)], big),
            (&[set(BAT_ENTRIES, 0)], Read),
            (&[set(BAT_ENTRIES, 3)], Read),
            (&[set(BAT_ENTRIES, 1 << 20)], Read),
            (&[set(BAT_ENTRIES, 1 << 29)], catalog),
            (
                &[set(BAT_ENTRIES, (1 << 29) - 1)],
                RefusedOtherwise(Limit, "bat_entries", "Catalog too large", Some("Input/output error")),
            ),
            (&[set(SECTORS, 0)], Read),
            (&[set(SECTORS, 1)], Read),
            (&[set(SECTORS, 20479)], Read),
            (&[set(SECTORS, (1 << 54) - (1 << 21) + 1)], sectors),
            (&[set(SECTORS, u64::MAX)], sectors),
            (
                &[set(SECTORS, 1 << 63)],
                RefusedOtherwise(Limit, "nb_sectors", too_long, Some("Unable to get image virtual_size")),
            ),
            (&[OLD[0], OLD[1], set(SECTORS, (1 << 63) + 5)], Read),
            (&[set(IN_USE, 0x746f_6e59)], Read),
            (&[set(IN_USE, 5)], Read),
            (&[set(DATA_OFF, 0)], Read),
            (&[set(DATA_OFF, 1)], Read),
            (&[set(DATA_OFF, 1 << 31)], Read),
            (&[OLD[0], OLD[1], set(DATA_OFF, 0)], Read),
            (&[(52, 4, 7)], Read),
            (&[set(EXT_OFF, 1)], extension),
            (&[set(EXT_OFF, 1 << 53)], extension),
            // An entry past the end of the file, the same one twice, a run.
            (&[(BAT, 4, 0x1000)], Read),
            (&[(BAT, 4, u32::MAX.into())], Read),
            (&[(BAT, 4, 1)], Read),
            (&[(BAT, 4, 2), (BAT + 4, 4, 3), (BAT + 8, 4, 4)], Read),
        ],
    );
}

/// The words for it differ among releases of `qemu-img`.
#[test]
fn an_extension_too_far_off() {
    let base = sample();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("far.hds");
    for ext_off in [(1 << 54) - 1, 1 << 54, 1 << 63] {
        std::fs::write(&path, patched(&base, Order::Little, &[set(EXT_OFF, ext_off)])).unwrap();
        let error = open_and_walk(Format::Parallels, &path).unwrap_err();
        assert_eq!(error, Error::new(InvalidFormat, "ext_off", "Invalid image: Too big offset"));
        assert!(!qemu_img(&["info", "-f", "parallels", text(&path)]).status.success());
    }
}

/// The checksum and the bitmaps in a format extension are not looked at; `qemu-img` refuses an image over them.
#[test]
fn a_format_extension_is_passed_over() {
    let base = sample();
    let patches = [set(EXT_OFF, 8), (4096, 8, 0xab23_4cef_23dc_ea87)];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("extension.hds");
    std::fs::write(&path, patched(&base, Order::Little, &patches)).unwrap();
    assert!(open_and_walk(Format::Parallels, &path).is_ok());
    let theirs = "Wrong checksum in Format Extension header. Format extension is corrupted.";
    assert_eq!(complaint(Format::Parallels, &path).as_deref(), Some(theirs));
}

#[test]
fn short_files() {
    let base = sample();
    for length in [0, 16, 17, 28, 30, 32, 36, 40, 63, 64, 66, 70, 80] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("short.hds");
        std::fs::write(&path, &base[..length]).unwrap();
        let expected = match length {
            ..17 => Refused(InvalidFormat, "magic", "Image not in Parallels format"),
            17..30 => Refused(InvalidFormat, "tracks", "Invalid image: Zero sectors per track"),
            _ => Read,
        };
        check_file(Format::Parallels, &path, expected, &length.to_string());
    }
}

#[test]
fn damage_is_survived() {
    let base = sample();
    flips(&base[..0x300], Format::Parallels, 100, 3000);
}
