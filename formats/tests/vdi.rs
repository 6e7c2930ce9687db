//! VDI: the map that `qemu-img map` prints, and images that are refused.

mod support;

use formats::ErrorKind::{Corrupt, InvalidFormat, Limit, Unsupported};
use formats::{Format, Image, probe};
use support::cases::Expect::{Read, Refused, RefusedOtherwise};
use support::cases::{Order, Patch, check, check_file, create_as, flips};
use support::{FileStorage, qemu_img, qemu_io, text, walk};

// Fields of the header: offset and length in bytes.
const fn signature(value: u64) -> Patch {
    (0x40, 4, value)
}
const fn version(value: u64) -> Patch {
    (0x44, 4, value)
}
const fn kind(value: u64) -> Patch {
    (0x4c, 4, value)
}
const fn offset_blocks(value: u64) -> Patch {
    (0x154, 4, value)
}
const fn offset_data(value: u64) -> Patch {
    (0x158, 4, value)
}
const fn sector_len(value: u64) -> Patch {
    (0x168, 4, value)
}
const fn disk_size(value: u64) -> Patch {
    (0x170, 8, value)
}
const fn block_len(value: u64) -> Patch {
    (0x178, 4, value)
}
const fn blocks(value: u64) -> Patch {
    (0x180, 4, value)
}
/// The first entry of the block map.
const MAP: usize = 0x200;

/// 10 MiB, blocks 1 and 3 written.
fn sample(options: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = create_as("vdi", directory.path(), "sample.vdi", options, "10M");
    qemu_io("vdi", &path, &["write -P 1 1M 1M", "write -P 2 3M 4k"]);
    std::fs::read(path).unwrap()
}

#[test]
fn the_map_is_that_of_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    for (index, (options, size)) in
        [("", "0"), ("", "512"), ("", "10M"), ("", "1000000000"), ("static=on", "1M"), ("static=on", "20M")]
            .into_iter()
            .enumerate()
    {
        let path = create_as("vdi", directory.path(), &format!("{index}.vdi"), options, size);
        check_file(Format::Vdi, &path, Read, size);
        if index > 1 {
            qemu_io("vdi", &path, &["write -P 1 0 1M", "write -P 2 300k 4k"]);
            check_file(Format::Vdi, &path, Read, size);
        }
        if index == 5 {
            qemu_io("vdi", &path, &["write -P 1 5M 3000", "write -P 2 19M 1M"]);
            check_file(Format::Vdi, &path, Read, size);
        }
    }
}

/// A VDI image begins with any text: with another format's signature, too.
#[test]
fn a_file_with_two_signatures_is_what_it_is_to_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("both");
    for (start, format, field, message) in [
        (&b"QFI\xfb\0\0\0\x03"[..], Format::Vdi, "u32Version", "unsupported VDI image (version 0.0)"),
        (b"QFI\xfb\0\0\0\x01", Format::Vdi, "u32Version", "unsupported VDI image (version 0.0)"),
        (b"LUKS\xba\xbe\0\x01", Format::Vdi, "u32Version", "unsupported VDI image (version 0.0)"),
        (b"QED\0", Format::Qed, "cluster_size", "QED cluster size is invalid"),
        (b"WithouFreSpacExt\x02\0\0\0", Format::Parallels, "tracks", "Invalid image: Zero sectors per track"),
    ] {
        let mut bytes = vec![0; 4096];
        bytes[..start.len()].copy_from_slice(start);
        bytes[0x40..0x44].copy_from_slice(&0xbeda_107fu32.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(probe(&mut FileStorage::open(&path)), Ok(format));
        let error = Image::open(FileStorage::open(&path), None).err().unwrap();
        assert_eq!((error.field, error.message.as_str()), (field, message));
        let theirs = String::from_utf8(qemu_img(&["measure", "-O", "raw", text(&path)]).stderr).unwrap();
        assert_eq!(theirs, format!("qemu-img: Could not open '{}': {message}\n", text(&path)));
    }
}

#[test]
fn fields_of_the_header() {
    let no = |field, message| Refused(Unsupported, field, message);
    let size = |message| Refused(Limit, "cbDisk", message);
    let bad = |message| Refused(InvalidFormat, "u32Signature", message);
    check(
        Format::Vdi,
        &sample(""),
        Order::Little,
        &[
            (&[], Read),
            (&[signature(1)], bad("Image not in VDI format (bad signature 00000001)")),
            (&[signature(1), version(1)], bad("Image not in VDI format (bad signature 00000001)")),
            (&[version(0x1_0000)], no("u32Version", "unsupported VDI image (version 1.0)")),
            (&[kind(0)], Read),
            (&[kind(2)], Read),
            (&[kind(3)], Read),
            (&[kind(4)], Read),
            (&[kind(99)], Read),
            (
                &[offset_blocks(0x201)],
                no("offBlocks", "unsupported VDI image (unaligned block map offset 0x201)"),
            ),
            (&[offset_blocks(0)], Read),
            (&[offset_data(0x401)], no("offData", "unsupported VDI image (unaligned data offset 0x401)")),
            (&[offset_data(0)], Read),
            (&[offset_data(0xffff_fe00)], Read),
            (&[sector_len(4096)], no("cbSector", "unsupported VDI image (sector size 4096 is not 512)")),
            (&[block_len(0)], no("cbBlock", "unsupported VDI image (block size 0 is not 1048576)")),
            (
                &[block_len(2 << 20)],
                no("cbBlock", "unsupported VDI image (block size 2097152 is not 1048576)"),
            ),
            (&[(0x17c, 4, 512)], Read),
            (&[disk_size(0)], Read),
            (&[disk_size((10 << 20) - 5)], Read),
            (
                &[disk_size((10 << 20) + 1)],
                no(
                    "cBlocks",
                    "unsupported VDI image (disk size 10486272, image bitmap has room for 10485760)",
                ),
            ),
            (
                &[disk_size(0x1_ffff_f800_0001)],
                size(
                    "Unsupported VDI image size (size is 0x1fffff8000001, max supported is 0x1fffff8000000)",
                ),
            ),
            (
                &[disk_size(u64::MAX), signature(1)],
                size(
                    "Unsupported VDI image size (size is 0xffffffffffffffff, max supported is 0x1fffff8000000)",
                ),
            ),
            (&[blocks(11)], Read),
            (
                &[blocks(9)],
                no(
                    "cBlocks",
                    "unsupported VDI image (disk size 10485760, image bitmap has room for 9437184)",
                ),
            ),
            (
                &[blocks(1 << 29)],
                Refused(
                    Limit,
                    "cBlocks",
                    "unsupported VDI image (too many blocks 536870912, max is 536870784)",
                ),
            ),
            (&[(0x184, 4, 99)], Read),
            (&[(0x1a8, 4, 1)], no("uuidLinkage", "unsupported VDI image (non-NULL link UUID)")),
            (&[(0x1b8, 4, 1)], no("uuidParentModify", "unsupported VDI image (non-NULL parent UUID)")),
        ],
    );
}

#[test]
fn entries_of_the_block_map() {
    for options in ["", "static=on"] {
        check(
            Format::Vdi,
            &sample(options),
            Order::Little,
            &[
                // Twice the same block, a block past the end of the file, the last number of a block, a zero block.
                (&[(MAP, 4, 0), (MAP + 4, 4, 0)], Read),
                (&[(MAP, 4, 0x1000)], Read),
                (&[(MAP, 4, 0xffff_fffd)], Read),
                (&[(MAP, 4, 0xffff_fffe)], Read),
                (&[(MAP, 4, 0xffff_ffff)], Read),
                (&[(MAP, 4, 5), (MAP + 4, 4, 6)], Read),
            ],
        );
    }
}

/// `qemu-img` reads what is missing as zeros, so that block 0 is everywhere: a walk of 2^29 steps from a file of 512 bytes.
#[test]
fn a_block_map_past_the_end_of_the_file_is_refused() {
    let base = sample("");
    let beyond = |patches: &'static [Patch]| {
        let expected =
            RefusedOtherwise(Corrupt, "offBlocks", "Block map lies beyond the end of the file", None);
        (patches, expected)
    };
    const PAST: &[Patch] = &[offset_blocks(0xffff_fe00)];
    const LONG: &[Patch] = &[blocks(1 << 20), disk_size(1 << 40)];
    check(Format::Vdi, &base, Order::Little, &[beyond(PAST), beyond(LONG)]);
    check(Format::Vdi, &base[..0x1c0], Order::Little, &[beyond(&[])]);
    check(Format::Vdi, &base[..MAP + 39], Order::Little, &[beyond(&[])]);
    check(Format::Vdi, &base[..MAP + 40], Order::Little, &[(&[], Read)]);
}

/// A map in a hole: block 0 everywhere, which `qemu-img` walks.
#[test]
fn a_file_has_no_more_blocks_than_it_has_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let row = images::hostile::rows().into_iter().find(|row| row.id == "H02-vdi-map-of-2g").unwrap();
    row.write(directory.path()).unwrap();
    let storage = FileStorage::open(&directory.path().join(row.path()));
    let error = walk(&mut Image::open(storage, None).unwrap()).unwrap_err();
    assert_eq!((error.kind, error.field), (Corrupt, "block map"), "{error}");
}

#[test]
fn damage_is_survived() {
    let mut base = sample("");
    base.truncate(0x500);
    flips(&base, Format::Vdi, 0x230, 3000);
}
