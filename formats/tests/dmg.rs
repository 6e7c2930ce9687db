//! Apple disk images, made by hand: `qemu-img` neither writes nor maps them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit, Unsupported};
use formats::{Codec, Error, ErrorKind, Extent, ExtentKind, Format, Image, Stream};
use images::build::dmg::*;
use support::cases::Expect::{ReadUnmapped, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, check_file, complaint, flips, open_and_walk, patched};
use support::{Kind, Line, Memory, qemu_img_ok, text, walk};
use tempfile::TempDir;

/// An image of these chunks behind 8 KiB of data.
fn of(chunks: &[Chunk]) -> Vec<u8> {
    with_resources(vec![5; 8192], &[block(0, 0, chunks)], SECTORS)
}

fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.dmg");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn check_bytes(bytes: &[u8], expected: support::cases::Expect, what: &str) {
    let (_directory, path) = file(bytes);
    check_file(Format::Dmg, &path, expected, what);
}

fn read_by_qemu_img(path: &Path) -> Vec<u8> {
    let raw = path.with_extension("raw");
    qemu_img_ok(&["convert", "-f", "dmg", "-O", "raw", text(path), text(&raw)]);
    fs::read(raw).unwrap()
}

/// The second block counts its sectors and places from somewhere else; both tables say the same.
#[test]
fn each_chunk_is_where_its_block_says() {
    let blocks = [block(0, 0, &CHUNKS[..1]), block(2, 512, &[(RAW, 0, 8, 1024, 4096), (ZERO, 8, 22, 0, 0)])];
    let lines = [
        Line { start: 0, length: 1024, kind: Kind::Compressed },
        Line { start: 1024, length: 4096, kind: Kind::Data(1536) },
        Line { start: 5120, length: 11264, kind: Kind::Zero },
    ];
    let mut content = vec![7; 1024];
    content.resize(1024 + 4096, 9);
    content.resize(16384, 0);
    for bytes in [
        sample(),
        with_resources(data(), &blocks, SECTORS),
        with_list(data(), &list(&blocks), SECTORS),
        with_list(data(), &list(&[block(0, 0, &CHUNKS)]), SECTORS),
    ] {
        let mut image = Image::open(Memory::new(bytes.clone()), Some(Format::Dmg)).unwrap();
        assert_eq!((image.format(), image.virtual_size()), (Format::Dmg, 16384));
        assert!(!image.reports_block_status());
        assert_eq!(walk(&mut image), Ok(lines.to_vec()));
        let (_directory, path) = file(&bytes);
        assert_eq!(read_by_qemu_img(&path), content);
    }
}

#[test]
fn a_stream_is_told_with_its_codec() {
    for (kind, codec) in [(ZLIB, Codec::Zlib), (BZIP2, Codec::Bzip2), (LZFSE, Codec::Lzfse)] {
        let chunks = [(ZERO, 0, 8, 0, 0), (kind, 8, 16, 100, 300), (ZERO, 24, 8, 0, 0)];
        let mut image = Image::open(Memory::new(of(&chunks)), Some(Format::Dmg)).unwrap();
        let extent = image.extent_at(5000).unwrap();
        assert_eq!(extent, Extent::own(5000, 7288, ExtentKind::Compressed { offset: 100, length: 300 }));
        let stream =
            Stream { file: extent.file, offset: 100, length: 300, codec, cluster_len: 8192, skip: 904 };
        assert_eq!(image.stream(&extent), Ok(Some(stream)));
        // qemu-img says that it may have no decoder, and goes on.
        check_bytes(&of(&chunks), ReadUnmapped, "codec");
    }
}

#[test]
fn fields_of_the_trailer() {
    let at = |offset, length, value| -> Patch { (TRAILER + offset, length, value) };
    let refused = |field, message| RefusedOtherwise(InvalidFormat, field, message, Some("Invalid argument"));
    let outside = |field| refused(field, "A part does not end before the trailer");
    let trailer = TRAILER as u64;
    let no_trailer = Refused(InvalidFormat, "koly", "Could not locate UDIF trailer in dmg file");
    let long = "Could not refresh total sector count: File too large";
    check(
        Format::Dmg,
        &sample(),
        Order::Big,
        &[
            (&[], ReadUnmapped),
            (&[at(0, 4, 0)], no_trailer),
            (&[at(3, 1, 0x59)], no_trailer),
            (&[at(4, 8, u64::MAX)], ReadUnmapped),
            (
                &[at(0x18, 8, trailer + 1)],
                refused("DataForkOffset", "The data fork begins behind the trailer"),
            ),
            (&[at(0x18, 8, u64::MAX)], refused("DataForkOffset", "The data fork begins behind the trailer")),
            (&[at(0x28, 8, trailer)], outside("RsrcForkOffset")),
            (&[at(0x28, 8, u64::MAX)], outside("RsrcForkOffset")),
            (&[at(0x30, 8, trailer - RSRC as u64 + 1)], outside("RsrcForkOffset")),
            (&[at(0x30, 8, u64::MAX)], outside("RsrcForkOffset")),
            (&[at(0xd8, 8, trailer)], outside("XMLOffset")),
            (&[at(0xe0, 8, trailer + 1)], outside("XMLOffset")),
            // The resource fork goes first.
            (&[at(0xe0, 8, trailer)], ReadUnmapped),
            (&[at(0x30, 8, 0)], refused("XMLLength", "There is neither a resource fork nor a property list")),
            (&[at(0x1ec, 8, 0)], ReadUnmapped),
            (&[at(0x1ec, 8, 31)], ReadUnmapped),
            (&[at(0x1ec, 8, 1 << 63)], refused("SectorCount", "The number of sectors is negative")),
            (&[at(0x1ec, 8, 1 << 54)], Refused(Limit, "SectorCount", long)),
            (&[at(0x1ec, 8, (1 << 63) - 1)], Refused(Limit, "SectorCount", long)),
            // The number of bytes wraps round.
            (
                &[at(0x1ec, 8, 1 << 55)],
                RefusedOtherwise(
                    Limit,
                    "SectorCount",
                    long,
                    Some("Unable to get image virtual_size: File too large"),
                ),
            ),
        ],
    );
    let whole = [(ZERO, 0, 1 << 54, 0, 0)];
    let longest = with_resources(vec![], &[block(0, 0, &whole)], (1 << 54) - (1 << 21));
    let mut image = Image::open(Memory::new(longest.clone()), Some(Format::Dmg)).unwrap();
    assert_eq!(walk(&mut image).unwrap()[0].length, (1 << 63) - (1 << 30));
    let (_directory, path) = file(&longest);
    qemu_img_ok(&["measure", "-f", "dmg", text(&path)]);
}

/// The trailer need not be the last 512 bytes, and the file need not be whole sectors.
#[test]
fn the_trailer_is_looked_for() {
    let sample = sample();
    for behind in [0, 1, 100, 376, 377, 500, 511, 512, 888, 1000] {
        let bytes = [&sample[..], &vec![0; behind]].concat();
        let (_directory, path) = file(&bytes);
        let (ours, theirs) = (open_and_walk(Format::Dmg, &path), complaint(Format::Dmg, &path));
        assert_eq!(ours.err().map(|error| error.message), theirs, "{behind}");
    }
    // A part of a trailer is one, the rest being zero.
    for end in [TRAILER + 3, TRAILER + 4, TRAILER + 0x38, TRAILER + 0x1f4, sample.len() - 1] {
        let (_directory, path) = file(&sample[..end]);
        let (ours, theirs) = (open_and_walk(Format::Dmg, &path), complaint(Format::Dmg, &path));
        assert_eq!(ours.is_err(), theirs.is_some(), "{end}: {ours:?} {theirs:?}");
    }
    let short = Refused(InvalidFormat, "koly", "dmg file must be at least 512 bytes long");
    check_bytes(b"", short, "no bytes");
    for bytes in [&b"x"[..], &[0; 511], &[0; 512], b"koly", &[1; 5000]] {
        let (_directory, path) = file(bytes);
        let ours = open_and_walk(Format::Dmg, &path).unwrap_err();
        assert_eq!(ours.kind, InvalidFormat);
        let theirs = complaint(Format::Dmg, &path).unwrap();
        assert!(theirs == ours.message || theirs == "Invalid argument", "{theirs} / {}", ours.message);
    }
}

#[test]
fn fields_of_the_resource_fork() {
    let outside = RefusedOtherwise(
        InvalidFormat,
        "RsrcForkLength",
        "Resources do not end before the resource fork does",
        Some("Invalid argument"),
    );
    let length = (TRAILER - RESOURCE) as u64;
    check(
        Format::Dmg,
        &sample(),
        Order::Big,
        &[
            (&[(RSRC, 4, 257)], outside),
            (&[(RSRC, 4, u32::MAX.into())], outside),
            (&[(RSRC + 4, 4, u32::MAX.into())], ReadUnmapped),
            (&[(RSRC + 8, 4, 0)], outside),
            (&[(RSRC + 8, 4, length + 1)], outside),
            (&[(RSRC + 8, 4, u64::from(u32::MAX) - 200)], outside),
            (&[(RESOURCE, 4, 0)], outside),
            (&[(RESOURCE, 4, length + 1)], outside),
            (&[(RESOURCE, 4, length)], ReadUnmapped),
            (&[(RESOURCE, 4, u32::MAX.into())], outside),
            // Part of the block: what is behind it is taken for the next length.
            (&[(RESOURCE, 4, 244)], outside),
            (
                &[(RSRC + 8, 4, 244), (RESOURCE, 4, 244)],
                RefusedOtherwise(Corrupt, "chunk", "No chunk holds sector 2", None),
            ),
        ],
    );
}

#[test]
fn chunks_within_limits() {
    let sectors = |count| -> [Patch; 1] { [(ENTRIES + 16, 8, count)] };
    let large = |field, message| Refused(Limit, field, message);
    check(
        Format::Dmg,
        &sample(),
        Order::Big,
        &[
            // What is no block counts for nothing, and this one alone makes the disk.
            (
                &sectors(131_073),
                large("SectorCount", "sector count 131073 for chunk 0 is larger than max (131072)"),
            ),
            (
                &sectors(u64::MAX),
                large(
                    "SectorCount",
                    "sector count 18446744073709551615 for chunk 0 is larger than max (131072)",
                ),
            ),
            (
                &[(ENTRIES + 40 + 32, 8, (64 << 20) + 1)],
                large("CompressedLength", "length 67108865 for chunk 1 is larger than max (67108864)"),
            ),
            (
                &[(ENTRIES + 80 + 32, 8, 1 << 40)],
                large("CompressedLength", "length 1099511627776 for chunk 2 is larger than max (67108864)"),
            ),
            // Remarks have no limits and count for nothing.
            (&[(ENTRIES + 160 + 16, 8, u64::MAX), (ENTRIES + 160 + 32, 8, u64::MAX)], ReadUnmapped),
            (&[(ENTRIES + 160, 4, COMMENT.into())], ReadUnmapped),
            // Zeros may go on past the end of the disk, and past that of numbers.
            (&[(ENTRIES + 120 + 16, 8, 1 << 40)], ReadUnmapped),
            (&[(ENTRIES + 120 + 16, 8, u64::MAX)], ReadUnmapped),
            // The number of entries does not count, nor does what is about a chunk or a block.
            (&[(BLOCK + 200, 4, u32::MAX.into()), (BLOCK + 0x10, 8, 1), (ENTRIES + 4, 4, 1)], ReadUnmapped),
        ],
    );
}

/// `qemu-img` fails to read them, or reads something else, but `measure` does not look.
#[test]
fn what_cannot_be_a_chunk_is_refused_when_it_is_read() {
    let gap = |message| RefusedOtherwise(Corrupt, "chunk", message, None);
    let place = gap("A chunk is not as long as its sectors, or lies beyond the end of the file");
    let overlap = gap("Chunks overlap");
    let rest = (ZERO, 8, 24, 0, 0);
    let end = of(&[rest, rest]).len() as u64;
    let cases: &[(&[Chunk], _)] = &[
        (&[(RAW, 0, 8, end - 4096, 4096), rest], ReadUnmapped),
        (&[(RAW, 0, 8, end - 4095, 4096), rest], place),
        (&[(RAW, 0, 8, u64::MAX, 4096), rest], place),
        (&[(RAW, 0, 8, 0, 4095), rest], place),
        (&[(ZLIB, 0, 8, 0, 1), rest], ReadUnmapped),
        (&[(ZLIB, 0, 8, 0, 0), rest], place),
        (&[(ZLIB, 0, 8, end, 1), rest], place),
        (&[(ZLIB, 0, 8, u64::MAX - 2, 9), rest], place),
        (&[rest, rest], overlap),
        (&[(ZERO, 0, 9, 0, 0), rest], overlap),
        (&[(ZERO, 0, 7, 0, 0), rest], gap("No chunk holds sector 7")),
        (&[(ZERO, 1, 7, 0, 0), rest], gap("No chunk holds sector 0")),
        (&[(ZERO, 0, 31, 0, 0), (RAW, 40, 8, 0, 4096)], gap("No chunk holds sector 31")),
        (&[(ZERO, 0, 8, 0, 0), rest, (RAW, u64::MAX, 8, 0, 4096)], ReadUnmapped),
        (&[(ZERO, 0, 8, 0, 0), rest, (RAW, 4, 0, 0, 0)], ReadUnmapped),
    ];
    for (chunks, expected) in cases {
        check_bytes(&of(chunks), *expected, &format!("{chunks:x?}"));
    }
    // A first sector past all numbers: no disk is that long.
    let far = with_resources(vec![], &[block(u64::MAX, 0, &[(ZERO, 1, 32, 0, 0)])], SECTORS);
    check_bytes(&far, gap("No chunk holds sector 0"), "first sector");
    // A place past all numbers.
    let far = with_resources(vec![], &[block(0, u64::MAX, &[(RAW, 0, 32, 1, 16384)])], SECTORS);
    check_bytes(&far, place, "data offset");
}

/// `qemu-img` looks for a chunk as if they were.
#[test]
fn chunks_need_not_be_in_order() {
    let chunks = [(ZERO, 24, 8, 0, 0), (RAW, 0, 8, 0, 4096), (ZERO, 16, 8, 0, 0), (RAW, 8, 8, 4096, 4096)];
    let bytes = of(&chunks);
    let lines = [
        Line { start: 0, length: 8192, kind: Kind::Data(0) },
        Line { start: 8192, length: 8192, kind: Kind::Zero },
    ];
    assert_eq!(
        walk(&mut Image::open(Memory::new(bytes.clone()), Some(Format::Dmg)).unwrap()),
        Ok(lines.to_vec())
    );
    check_bytes(&bytes, ReadUnmapped, "disorder");
}

/// `qemu-img` warns of the type on stderr.
#[test]
fn a_chunk_of_an_unknown_type_is_not_supported_when_it_is_read() {
    for (kind, message) in [
        (ADC, "Chunks of type 0x80000004 are not supported"),
        (LZMA, "Chunks of type 0x80000008 are not supported"),
        (3, "Chunks of type 0x3 are not supported"),
    ] {
        // No limit is asked of it.
        let bytes = of(&[(ZERO, 0, 8, 0, 0), (kind, 8, 1 << 40, 0, 1 << 40)]);
        check_bytes(&bytes, RefusedOtherwise(Unsupported, "EntryType", message, None), message);
        let mut image = Image::open(Memory::new(bytes), Some(Format::Dmg)).unwrap();
        assert_eq!(image.extent_at(0).unwrap().length, 4096);
    }
}

/// From 11.1 on `qemu-img` refuses them too; before, it reads past the end of a buffer, or has nothing to read.
#[test]
fn images_that_only_the_newest_release_refuses() {
    let refused = |kind: ErrorKind, field, message: &str, bytes: &[u8], words: &str| {
        let (_directory, path) = file(bytes);
        assert_eq!(open_and_walk(Format::Dmg, &path), Err(Error::new(kind, field, message)));
        let theirs = complaint(Format::Dmg, &path);
        assert!(theirs.is_none_or(|theirs| theirs == words), "{message}");
    };
    for (sectors, length) in [(8, 0), (8, 3584), (7, 4096), (0, 512)] {
        let message = format!("length {length} for chunk 1 is inconsistent with sector count {sectors}");
        let chunks = [(ZERO, 8, 24, 0, 0), (RAW, 0, sectors, 0, length)];
        refused(Corrupt, "chunk", &message, &of(&chunks), &message);
    }
    let none = "There are no chunks";
    for bytes in [
        of(&[]),
        of(&[(END, 0, 0, 0, 0)]),
        of(&[(LZMA, 0, 32, 0, 1)]),
        with_resources(vec![], &[b"mosh".to_vec()], SECTORS),
        patched(&sample(), Order::Big, &[(BLOCK, 1, 0)]),
        with_list(vec![], "<plist/>", SECTORS),
        with_list(vec![], "<data></data>", SECTORS),
    ] {
        refused(InvalidFormat, "blkx", none, &bytes, "Invalid argument");
    }
}

/// A limit that is broken shows that a chunk was seen.
#[test]
fn what_of_a_property_list_counts() {
    let broken = base64(&block(0, 0, &[(RAW, 0, 1 << 40, 0, 0)]));
    let whole = base64(&block(0, 0, &[(ZERO, 0, 32, 0, 0)]));
    let seen = "sector count 1099511627776 for chunk 0 is larger than max (131072)";
    let after = "sector count 1099511627776 for chunk 1 is larger than max (131072)";
    let open = "An element of the property list does not end";
    let spaced: String = broken.chars().flat_map(|digit| [digit, '\n', '-', '\u{e4}']).collect();
    for (list, ours, theirs) in [
        (format!("<data>{broken}</data>"), seen, seen),
        (format!("<x><data>{whole}</data></x><data>{broken}</data>"), after, after),
        (format!("<data>{spaced}</data>"), seen, seen),
        (format!("<!-- <data>{broken}</data> -->"), seen, seen),
        (format!("<data>AAAA</data><<data>{broken}</data>"), seen, seen),
        (format!("<data>{whole}<data></data>{broken}</data>"), "", ""),
        (format!("<data>{whole}</data><DATA>{broken}</DATA><data x=\"\">{broken}</data>"), "", ""),
        (format!("<data>{whole}</data>\0<data>{broken}</data>"), "", ""),
        (format!("<data>{whole}</data><data>{broken}"), open, "Invalid argument"),
        (format!("<data>{whole}</data><data>{broken}\0</data>"), open, "Invalid argument"),
        (format!("<data>{whole}</data><data>{broken}</data"), open, "Invalid argument"),
        (
            format!("<data>{}==</data>", base64(&block(0, 0, &[(RAW, 0, 1 << 40, 0, 0), (0, 0, 0, 0, 0)]))),
            seen,
            seen,
        ),
    ] {
        let (_directory, path) = file(&with_list(vec![], &list, SECTORS));
        let found = open_and_walk(Format::Dmg, &path).err().map(|error| error.message);
        assert_eq!(found.unwrap_or_default(), ours, "{list}");
        assert_eq!(complaint(Format::Dmg, &path).unwrap_or_default(), theirs, "{list}");
    }
}

/// There is no limit to a resource fork in `qemu-img`.
#[test]
fn the_table_is_bounded() {
    let limit =
        |field, theirs| RefusedOtherwise(Limit, field, "The table of chunks is longer than 16 MiB", theirs);
    let whole = block(0, 0, &[(ZERO, 0, 32, 0, 0)]);
    let mut long = format!("<data>{}</data>", base64(&whole));
    long += &" ".repeat((16 << 20) - long.len());
    check_bytes(&with_list(vec![], &long, SECTORS), ReadUnmapped, "16 MiB");
    long.push(' ');
    check_bytes(
        &with_list(vec![], &long, SECTORS),
        limit("XMLLength", Some("Invalid argument")),
        "longer list",
    );
    let filler = vec![0; (16 << 20) - whole.len() - 8];
    let fork = |filler: &[u8]| with_resources(vec![], &[whole.clone(), filler.to_vec()], SECTORS);
    check_bytes(&fork(&filler), ReadUnmapped, "16 MiB of resources");
    check_bytes(&fork(&[&filler[..], &[0]].concat()), limit("RsrcForkLength", None), "longer fork");
    // As many chunks as there can be.
    let many: Vec<Chunk> = (0..280_000).map(|index| (RAW, index, 1, index % 16 * 512, 512)).collect();
    let bytes = with_list(vec![3; 8192], &list(&[block(0, 0, &many)]), 280_000);
    let mut image = Image::open(Memory::new(bytes), Some(Format::Dmg)).unwrap();
    assert_eq!(image.max_extents(), 280_000);
    assert_eq!(walk(&mut image).unwrap().iter().map(|line| line.length).sum::<u64>(), 280_000 * 512);
}

#[test]
fn damage_is_survived() {
    flips(&sample()[RSRC..], Format::Dmg, TRAILER + 512 - RSRC, 3000);
    flips(&sample(), Format::Dmg, TRAILER + 512, 3000);
    let bytes = with_list(vec![], &list(&[block(0, 0, &CHUNKS)]), SECTORS);
    flips(&bytes, Format::Dmg, bytes.len(), 3000);
}
