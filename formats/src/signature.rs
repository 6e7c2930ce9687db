//! What a file looks like beside the format that it is opened as: signatures of image formats, of volumes, of packed files
//! and of programs, at the places where others look for them.
//!
//! A signature is a sign and no proof. Offsets and bytes are those of `file(1)`'s database and of the specifications named
//! beside them.

use alloc::vec;
use alloc::vec::Vec;

use crate::{Storage, StorageError, cloop};

/// What a signature is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureKind {
    /// A disk-image format: who takes the file for one reads another disk, and perhaps other files.
    Image,
    /// What disks hold: partition tables, file systems, volumes.
    Volume,
    /// Encrypted data of a format that is not read as an image.
    Encrypted,
    /// A file that holds others, packed or not.
    Packed,
    /// A program.
    Program,
}

/// Where a signature begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Bytes from the start.
    Start(u64),
    /// Bytes before the end.
    End(u64),
}

/// A signature that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of what it is a sign of; that of a format where it is one's.
    pub name: &'static str,
    /// What that is.
    pub kind: SignatureKind,
    /// Where it was found.
    pub at: Anchor,
}

struct Fact {
    name: &'static str,
    kind: SignatureKind,
    at: Anchor,
    bytes: &'static [u8],
}

const fn fact(name: &'static str, kind: SignatureKind, at: u64, bytes: &'static [u8]) -> Fact {
    Fact { name, kind, at: Anchor::Start(at), bytes }
}

const fn behind(name: &'static str, before_end: u64, bytes: &'static [u8]) -> Fact {
    Fact { name, kind: SignatureKind::Image, at: Anchor::End(before_end), bytes }
}

use SignatureKind::{Encrypted, Image, Packed, Program, Volume};

/// Bytes from the start that are looked at: up to the last signature there, btrfs's.
const HEAD: usize = 0x1_0040 + 8;
/// Length of the shortest header of an image in bytes, qcow's: a shorter file is none.
const HEADER_MIN: u64 = 48;
/// Bytes before the end that are looked at.
const TAIL: usize = 1024;

/// The start of a VMDK descriptor as its makers write it. QEMU does not ask for it.
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";

/// The table. What has no comment is in the format's specification at that place.
const FACTS: [Fact; 52] = [
    // Any version: those that no reader here knows, another may.
    fact("qcow2", Image, 0, b"QFI\xfb"),
    fact("qed", Image, 0, b"QED\0"),
    fact("vmdk", Image, 0, b"KDMV"),
    fact("vmdk", Image, 0, b"COWD"),
    // SESPARSE.
    fact("vmdk", Image, 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    fact("vpc", Image, 0, b"conectix"),
    fact("vhdx", Image, 0, b"vhdxfile"),
    fact("vdi", Image, 0x40, b"\x7f\x10\xda\xbe"),
    fact("parallels", Image, 0, b"WithoutFreeSpace"),
    fact("parallels", Image, 0, b"WithouFreSpacExt"),
    fact("bochs", Image, 0, b"Bochs Virtual HD Image"),
    fact("luks", Image, 0, b"LUKS\xba\xbe\0\x01"),
    fact("luks2", Encrypted, 0, b"LUKS\xba\xbe\0\x02"),
    // The second header of LUKS 2, which stands for a first that is broken.
    fact("luks2", Encrypted, 0x4000, b"SKUL\xba\xbe\0\x02"),
    fact("bitlocker", Encrypted, 3, b"-FVE-FS-"),
    behind("vpc", 512, b"conectix"),
    // Old footers.
    behind("vpc", 511, b"conectix"),
    behind("dmg", 512, b"koly"),
    fact("mbr", Volume, 510, b"\x55\xaa"),
    // UEFI: the header is in the second sector, of 512 or 4096 bytes.
    fact("gpt", Volume, 512, b"EFI PART"),
    fact("gpt", Volume, 4096, b"EFI PART"),
    fact("apm", Volume, 512, b"PM\0\0"),
    // ECMA-119, 8.1; ECMA-167 2/9.1.
    fact("iso9660", Volume, 0x8001, b"CD001"),
    fact("udf", Volume, 0x8001, b"BEA01"),
    fact("fat", Volume, 54, b"FAT12   "),
    fact("fat", Volume, 54, b"FAT16   "),
    fact("fat", Volume, 82, b"FAT32   "),
    fact("exfat", Volume, 3, b"EXFAT   "),
    fact("ntfs", Volume, 3, b"NTFS    "),
    fact("ext", Volume, 0x438, b"\x53\xef"),
    fact("xfs", Volume, 0, b"XFSB"),
    fact("btrfs", Volume, 0x1_0040, b"_BHRfS_M"),
    fact("hfs", Volume, 1024, b"H+\0\x04"),
    fact("apfs", Volume, 32, b"NXSB"),
    fact("squashfs", Volume, 0, b"hsqs"),
    fact("lvm", Volume, 512, b"LABELONE"),
    fact("swap", Volume, 4086, b"SWAPSPACE2"),
    fact("gzip", Packed, 0, b"\x1f\x8b\x08"),
    fact("xz", Packed, 0, b"\xfd7zXZ\0"),
    fact("zstd", Packed, 0, b"\x28\xb5\x2f\xfd"),
    fact("bzip2", Packed, 0, b"BZh"),
    fact("lz4", Packed, 0, b"\x04\x22\x4d\x18"),
    fact("lzip", Packed, 0, b"LZIP"),
    fact("zip", Packed, 0, b"PK\x03\x04"),
    fact("7z", Packed, 0, b"7z\xbc\xaf\x27\x1c"),
    fact("rar", Packed, 0, b"Rar!\x1a\x07"),
    fact("tar", Packed, 257, b"ustar"),
    fact("cpio", Packed, 0, b"07070"),
    fact("wim", Packed, 0, b"MSWIM\0\0\0"),
    fact("elf", Program, 0, b"\x7fELF"),
    fact("pe", Program, 0, b"MZ"),
    // An XAR archive, such as a macOS installer package.
    fact("xar", Packed, 0, b"xar!"),
];

/// Boot sectors of file systems, which end as a partitioned disk's do.
const BOOT_SECTORS: [&str; 4] = ["fat", "exfat", "ntfs", "bitlocker"];

/// Every signature that a file has, each name at most once at a place.
pub fn signatures<S: Storage>(storage: &mut S) -> Result<Vec<Signature>, StorageError> {
    let length = storage.len();
    let head_len = usize::try_from(length).unwrap_or(HEAD).min(HEAD);
    let mut head = vec![0; head_len];
    storage.read_at(0, &mut head)?;
    let tail_len = usize::try_from(length).unwrap_or(TAIL).min(TAIL);
    let mut tail = vec![0; tail_len];
    storage.read_at(length.saturating_sub(tail_len as u64), &mut tail)?;

    let mut found: Vec<Signature> = Vec::new();
    for Fact { name, kind, at, bytes } in FACTS {
        let part = match at {
            Anchor::Start(offset) => usize::try_from(offset).ok().and_then(|offset| head.get(offset..)),
            // Nothing is both at the start and at the end.
            Anchor::End(distance) if distance < length => usize::try_from(distance)
                .ok()
                .and_then(|distance| tail_len.checked_sub(distance))
                .and_then(|start| tail.get(start..)),
            Anchor::End(_) => None,
        };
        let is_there = part.is_some_and(|part| part.starts_with(bytes));
        if is_there && (kind != Image || length >= HEADER_MIN) {
            found.push(Signature { name, kind, at });
        }
    }
    if found.iter().any(|signature| BOOT_SECTORS.contains(&signature.name)) {
        found.retain(|signature| signature.name != "mbr");
    }
    let mut text = |name| {
        if found.iter().all(|found| found.name != name || found.at != Anchor::Start(0)) {
            found.push(Signature { name, kind: Image, at: Anchor::Start(0) });
        }
    };
    if cloop::probe(&head) {
        text("cloop");
    }
    if is_descriptor(&head) {
        text("vmdk");
    }
    if head.iter().take(1024).any(|&byte| byte == b'<') && contains(&head, b"<Parallels_disk_image") {
        text("parallels-descriptor");
    }
    // A second trailer: which of the two counts is for each reader to say.
    let trailers = tail.windows(4).filter(|window| window == b"koly").count();
    if trailers > 1 {
        found.push(Signature { name: "dmg", kind: Image, at: Anchor::End(TAIL as u64) });
    }
    Ok(found)
}

/// Whether a text looks like a VMDK descriptor to anybody: as QEMU finds it, or by its first line, in UTF-8 or UTF-16,
/// behind a byte order mark and white space or not.
fn is_descriptor(head: &[u8]) -> bool {
    let start = head.get(..1024).unwrap_or(head);
    let narrow: Vec<u8> = match start {
        [0xef, 0xbb, 0xbf, rest @ ..] => rest.to_vec(),
        [0xff, 0xfe, rest @ ..] => rest.chunks_exact(2).map(|unit| unit[0]).collect(),
        [0xfe, 0xff, rest @ ..] => rest.chunks_exact(2).map(|unit| unit[1]).collect(),
        [_, 0, _, 0, ..] => start.chunks_exact(2).map(|unit| unit[0]).collect(),
        _ => start.to_vec(),
    };
    let text = narrow.trim_ascii_start();
    let first = text.get(..DESCRIPTOR.len()).unwrap_or(text);
    first.eq_ignore_ascii_case(DESCRIPTOR) || crate::vmdk::probe(head.get(..512).unwrap_or(head))
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.get(..1024).unwrap_or(bytes).windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Vec<&'static str> {
        let mut storage = bytes;
        signatures(&mut storage).unwrap().into_iter().map(|found| found.name).collect()
    }

    fn with(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for &(at, part) in parts {
            let part: &[u8] = part;
            bytes[at..at + <[u8]>::len(part)].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn what_is_looked_at_holds_every_signature() {
        for Fact { at, bytes, .. } in FACTS {
            match at {
                Anchor::Start(offset) => assert!(usize::try_from(offset).unwrap() + bytes.len() <= HEAD),
                Anchor::End(distance) => assert!(usize::try_from(distance).unwrap() <= TAIL),
            }
        }
    }

    #[test]
    fn a_file_can_have_several() {
        assert_eq!(names(b""), [""; 0]);
        assert_eq!(names(b"QFI"), [""; 0]);
        assert_eq!(names(&with(600, &[(0, b"\xeb\x52\x90NTFS    "), (510, b"\x55\xaa")])), ["ntfs"]);
        assert_eq!(names(&with(600, &[(510, b"\x55\xaa")])), ["mbr"]);
        let hybrid = with(0x9000, &[(510, b"\x55\xaa"), (512, b"EFI PART"), (0x8001, b"CD001")]);
        assert_eq!(names(&hybrid), ["mbr", "gpt", "iso9660"]);
        assert_eq!(names(&with(2048, &[(0, b"QFI\xfb"), (1536, b"koly")])), ["qcow2", "dmg"]);
        assert_eq!(names(&with(2047, &[(1536, b"conectix")])), ["vpc"]);
        assert_eq!(names(&with(512, &[(0, b"conectix")])), ["vpc"]);
        assert_eq!(names(&with(4096, &[(3072, b"koly"), (3584, b"koly")])), ["dmg", "dmg"]);
    }

    #[test]
    fn descriptors_are_found_in_any_dress() {
        let text = "# Disk DescriptorFile\nversion=4\n";
        let wide = |mark: &str| -> Vec<u8> {
            let text = alloc::format!("{mark}{text}");
            text.encode_utf16().flat_map(u16::to_le_bytes).collect()
        };
        for bytes in
            [text.into(), alloc::format!("\u{feff}\n {text}").into_bytes(), wide(""), wide("\u{feff}")]
        {
            assert_eq!(names(&bytes), ["vmdk"], "{bytes:?}");
        }
        assert_eq!(names(b"#\nversion=1\n"), ["vmdk"]);
        assert_eq!(names(b"# Disk\n"), [""; 0]);
    }
}
