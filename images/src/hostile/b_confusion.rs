//! Section B: files that are more than one thing, or not what they look like.

use super::{Class, DENIED, INVALID, OK, Row, UNSUPPORTED, row};
use crate::build::{luks, qcow2, vdi, vmdk, vpc};
use crate::{SparseFile, be, le};

/// It has the signature of another format too.
const TWO_FORMATS: Class = Class::Flag("several formats");
/// What is on the disk looks like an image itself.
const IMAGE_INSIDE: Class = Class::Flag("image inside an image");
/// A compressed file, of which only the bytes are seen.
const COMPRESSED: Class = Class::Flag("compressed file");

/// Puts the signature of an ISO 9660 volume where it belongs.
fn iso(file: SparseFile) -> SparseFile {
    file.put(32768, b"\x01CD001\x01\x00")
}

/// Puts a protective MBR and the signature of a GUID partition table where they belong.
fn gpt(file: SparseFile) -> SparseFile {
    file.put(446, [0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0])
        .put(510, [0x55, 0xaa])
        .put(512, "EFI PART")
}

fn raw() -> SparseFile {
    SparseFile::from([7; 512]).with_length(1 << 20)
}

/// A disk that a guest has filled as far as its first sectors.
fn disk_with(head: impl AsRef<[u8]>) -> SparseFile {
    SparseFile::from(head.as_ref()).with_length(1 << 20)
}

fn descriptor() -> String {
    vmdk::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0")
}

pub(super) fn rows() -> Vec<Row> {
    [polyglots(), signatures(), raw_disks(), hints()].into_iter().flatten().collect()
}

fn polyglots() -> Vec<Row> {
    vec![
        row(
            "B01-qcow2-gpt-iso",
            "a qcow2 image that is a partitioned disk and a CD as well",
            TWO_FORMATS,
            || iso(gpt(qcow2::image())),
        )
        .agrees(),
        row(
            "B02-descriptor-with-binary",
            "a VMDK descriptor with binary data behind its end",
            DENIED,
            || SparseFile::from(descriptor()).put(4096, [0xfe; 4096]),
        ),
        row("B03-fixed-vhd-of-qcow2", "a fixed VHD whose disk begins with a qcow2 image", DENIED, || {
            vpc::fixed(qcow2::overlay("/etc/passwd", "raw"))
        }),
        row("B03-fixed-vhd-of-qcow2-named", "the same, said to be a VHD", IMAGE_INSIDE, || {
            vpc::fixed(qcow2::overlay("/etc/passwd", "raw"))
        })
        .said_to_be("vpc"),
        row(
            "B04-fixed-footer-at-head",
            "the footer of a fixed VHD at the start of the file",
            INVALID,
            || {
                let disk = vpc::fixed(raw());
                let footer = disk.bytes(1 << 20, 512);
                disk.put(0, footer)
            },
        ),
        row("B05-iso-gpt-hybrid", "an ordinary hybrid of a CD and a partitioned disk", OK, || {
            iso(gpt(raw()))
        })
        .agrees(),
        row(
            "B06-footer-behind-raw",
            "a raw disk with a VHD's footer at its end",
            Class::Flag("may be a VHD"),
            || vpc::fixed(raw()),
        )
        .agrees(),
        row("B07-koly-behind-qcow2", "a qcow2 image with a DMG's trailer at its end", TWO_FORMATS, || {
            qcow2::image().put(qcow2::FREE, "koly\0\0\0\x04").with_length(qcow2::FREE + 512)
        })
        .agrees(),
        row(
            "B10-qcow2-inside-qcow2",
            "a disk whose content is a qcow2 image on another file",
            IMAGE_INSIDE,
            || qcow2::image().put(qcow2::DATA, qcow2::overlay("/etc/passwd", "raw").bytes(0, 4096)),
        )
        .agrees(),
        row("B14-vdi-with-partitions", "a VDI whose text is the start of a boot sector", TWO_FORMATS, || {
            vdi::image().put(0, [0xeb, 0x58, 0x90]).put(510, [0x55, 0xaa])
        }),
        row(
            "B15-vdi-signature-in-boot-sector",
            "a raw disk with a VDI's signature in its boot sector",
            UNSUPPORTED,
            || disk_with([0xeb, 0x58, 0x90]).set(le(0x40, 4), 0xbeda_107f),
        ),
        row("B16-qcow2-and-vdi", "a VDI that a qcow2 image begins", TWO_FORMATS, || {
            vdi::image().put(0, b"QFI\xfb\0\0\0\x03")
        })
        .agrees(),
    ]
}

fn signatures() -> Vec<Row> {
    let head = |head: &'static [u8]| move || disk_with(head);
    vec![
        row(
            "B09-descriptor-blank-lines",
            "a VMDK descriptor behind blank lines and comments",
            DENIED,
            || {
                SparseFile::from(format!(
                    "#\n  \n# x\n{}",
                    descriptor().split_once('\n').unwrap_or_default().1
                ))
            },
        ),
        row("B09-descriptor-crlf", "a VMDK descriptor with a carriage return in each line", DENIED, || {
            SparseFile::from(descriptor().replace('\n', "\r\n"))
        }),
        row(
            "B09-descriptor-utf16",
            "a VMDK descriptor in UTF-16: raw bytes",
            Class::Flag("may be a VMDK"),
            || SparseFile::from(vpc::utf16(&format!("\u{feff}{}", descriptor()))),
        )
        .agrees(),
        row(
            "B09-descriptor-bom",
            "a VMDK descriptor behind a byte order mark: raw bytes",
            Class::Flag("may be a VMDK"),
            || SparseFile::from(format!("\u{feff}{}", descriptor())),
        )
        .agrees(),
        row(
            "B09-descriptor-version-4",
            "a VMDK descriptor of an unknown version: raw bytes",
            Class::Flag("may be a VMDK"),
            || SparseFile::from(descriptor().replace("version=1", "version=4")),
        )
        .agrees(),
        row("B12-qcow-with-qcow2-fields", "a qcow2 image that calls itself version 1", INVALID, || {
            qcow2::image().set(qcow2::VERSION, 1)
        }),
        row(
            "B12-qcow2-version-0",
            "a qcow2 image of version 0: raw bytes",
            Class::Flag("may be a qcow2"),
            || qcow2::image().set(qcow2::VERSION, 0),
        )
        .agrees(),
        row("B12-qcow2-version-4", "a qcow2 image of a version to come", UNSUPPORTED, || {
            qcow2::image().set(qcow2::VERSION, 4)
        }),
        row("B12-qcow2-version-2-32", "a qcow2 image of version 2^32 - 1", UNSUPPORTED, || {
            qcow2::image().set(qcow2::VERSION, u64::from(u32::MAX))
        }),
        row(
            "B17-qcow2-signature-only",
            "a disk that begins with qcow2's signature",
            UNSUPPORTED,
            head(b"QFI\xfb\0\0\0\x03"),
        ),
        row("B17-vhd-signature-only", "a disk that begins with VHD's signature", INVALID, head(b"conectix")),
        row(
            "B17-vhdx-signature-only",
            "a disk that begins with VHDX's signature",
            INVALID,
            head(b"vhdxfile"),
        ),
        row("B17-vmdk-signature-only", "a disk that begins with VMDK's signature", INVALID, head(b"KDMV")),
        row("B17-qed-signature-only", "a disk that begins with QED's signature", INVALID, head(b"QED\0")),
        row("B17-cloop-signature-only", "a disk that begins with cloop's script", INVALID, || {
            disk_with(
                "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n",
            )
        }),
        row(
            "B17-luks2-signature",
            "a LUKS 2 volume: raw bytes to the prober",
            Class::Flag("encrypted"),
            || luks::image().set(luks::VERSION, 2),
        )
        .agrees(),
    ]
}

fn raw_disks() -> Vec<Row> {
    let head = |head: &'static [u8]| move || disk_with(head);
    vec![
        row("B08-raw-named-dmg", "a raw disk whose name says that it is a DMG", INVALID, raw)
            .named("image.dmg"),
        row("B08-raw-named-qcow2", "a raw disk whose name says that it is a qcow2 image", OK, raw)
            .named("image.qcow2")
            .agrees(),
        row("B11-fat-boot-sector", "a FAT volume, not a partitioned disk", OK, || {
            disk_with(b"\xeb\x3c\x90MSDOS5.0").put(54, "FAT16   ").put(510, [0x55, 0xaa])
        })
        .agrees(),
        row("B11-ntfs-boot-sector", "an NTFS volume, not a partitioned disk", OK, || {
            disk_with(b"\xeb\x52\x90NTFS    ").put(510, [0x55, 0xaa])
        })
        .agrees(),
        row("B11-mbr-loop", "extended partitions that lead in a circle: raw bytes", OK, || {
            let entry =
                |start: u32| [&[0, 0, 2, 0, 5, 0, 3, 0][..], &start.to_le_bytes(), &[1, 0, 0, 0]].concat();
            disk_with([0])
                .put(446, entry(1))
                .put(510, [0x55, 0xaa])
                .put(958, entry(1))
                .put(1022, [0x55, 0xaa])
        })
        .agrees(),
        row("B11-gpt-entry-size-1", "a GUID partition table with entries of one byte: raw bytes", OK, || {
            gpt(raw()).set(le(512 + 80, 4), u64::from(u32::MAX)).set(le(512 + 84, 4), 1)
        })
        .agrees(),
        row("B13-gzip", "a file that gzip made", COMPRESSED, head(b"\x1f\x8b\x08\0\0\0\0\0\0\x03")).agrees(),
        row("B13-xz", "a file that xz made", COMPRESSED, head(b"\xfd7zXZ\0\0\x04")).agrees(),
        row("B13-zstd", "a file that zstd made", COMPRESSED, head(b"\x28\xb5\x2f\xfd\x04\x58")).agrees(),
        row("B13-bzip2", "a file that bzip2 made", COMPRESSED, head(b"BZh91AY&SY")).agrees(),
        row("B18-empty", "a file without a byte", OK, SparseFile::new).agrees(),
        row("B18-one-byte", "a file of one byte", OK, || SparseFile::from("Q")).agrees(),
        row("B18-511-bytes", "a file of a byte less than a sector", OK, || SparseFile::from([7; 511]))
            .agrees(),
        row("B18-seven-bytes-of-qcow2", "a file that ends in the version of qcow2: raw bytes", OK, || {
            SparseFile::from(b"QFI\xfb\0\0\0")
        })
        .agrees(),
    ]
}

fn hints() -> Vec<Row> {
    vec![
        row("B20-qcow2-as-raw", "a qcow2 image on another file, said to be raw", IMAGE_INSIDE, || {
            qcow2::overlay("/etc/passwd", "raw")
        })
        .said_to_be("raw")
        .agrees(),
        row("B20-raw-as-qcow2", "a raw disk, said to be qcow2", INVALID, raw).said_to_be("qcow2"),
        row("B20-qcow2-as-vmdk", "a qcow2 image, said to be a VMDK", INVALID, qcow2::image)
            .said_to_be("vmdk"),
        row("B20-empty-as-qcow2", "a file without a byte, said to be qcow2", INVALID, SparseFile::new)
            .said_to_be("qcow2"),
        row("B20-empty-as-vmdk", "a file without a byte, said to be a VMDK", INVALID, SparseFile::new)
            .said_to_be("vmdk"),
        row("B20-empty-as-vpc", "a file without a byte, said to be a VHD", INVALID, SparseFile::new)
            .said_to_be("vpc"),
        row("B20-unknown-format", "a raw disk, said to be of a protocol's driver", UNSUPPORTED, raw)
            .said_to_be("nbd"),
        row("B20-fixed-vhd-as-vpc", "a fixed VHD, said to be one", OK, || vpc::fixed(raw()))
            .said_to_be("vpc")
            .agrees(),
        row(
            "B20-footer-with-wrong-size",
            "a footer that says that the disk is longer than the file",
            Class::Refuse(&[super::Kind::Corrupt]),
            || {
                let length = 1 << 20;
                let disk = vpc::fixed(raw().with_length(2 * length));
                let footer = disk.bytes(2 * length, 512);
                raw().put(length, footer)
            },
        )
        .said_to_be("vpc"),
        row("B20-footer-of-another-type", "a dynamic disk's footer at the end only", INVALID, || {
            let disk = vpc::dynamic();
            disk.put(0, [0; 512]).set(be(0, 8), 0)
        })
        .said_to_be("vpc"),
    ]
}
