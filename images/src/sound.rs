//! Images that are what they seem to be, of kinds that no tool here makes: disks of VHD's many makers, and volumes without
//! any image around them. Whoever refuses one refuses what people use.

use crate::SparseFile;
use crate::build::vpc;

/// An image that is to be read.
pub struct Sound {
    /// Its name.
    pub name: String,
    /// The format that the caller names (`-f`), if it is not left to probing.
    pub format: Option<&'static str>,
    /// Its bytes.
    pub file: SparseFile,
}

/// Values of VHD's "Creator Application": Hyper-V, Virtual PC, Virtual Server, VirtualBox, disk2vhd, Xen's tools, Citrix's,
/// WinImage, and QEMU in both of its ways.
const VHD_MAKERS: [(&str, &str); 10] = [
    ("hyper-v", "win "),
    ("virtual-pc", "vpc "),
    ("virtual-server", "vs  "),
    ("virtualbox", "vbox"),
    ("disk2vhd", "d2v "),
    ("xen-tapdisk", "tap\0"),
    ("citrix", "CTXS"),
    ("winimage", "wa\0\0"),
    ("qemu", "qemu"),
    ("qemu-by-size", "qem2"),
];

/// A name and what stands where.
type Volume = (&'static str, &'static [(u64, &'static [u8])]);

const BOOT: (u64, &[u8]) = (510, b"\x55\xaa");
const PROTECTIVE: (u64, &[u8]) = (446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0x07, 0, 0]);
const PARTITION: (u64, &[u8]) = (446, &[0x80, 1, 1, 0, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 0x10, 0, 0]);

/// Raw disks, as far as signatures go.
const VOLUMES: [Volume; 27] = [
    ("zeros", &[]),
    ("mbr", &[PARTITION, BOOT]),
    ("grub", &[(0, b"\xeb\x63\x90"), PARTITION, BOOT, (512, b"\x52\xe8\x28\x01")]),
    ("gpt", &[PROTECTIVE, BOOT, (512, b"EFI PART\0\0\x01\0")]),
    ("gpt-4k", &[PROTECTIVE, BOOT, (4096, b"EFI PART\0\0\x01\0")]),
    ("apple-partitions", &[(0, b"ER\x02\0"), (512, b"PM\0\0\0\0\0\x03")]),
    ("iso", &[(32768, b"\x01CD001\x01\0")]),
    ("iso-mbr-hybrid", &[(0, b"\x33\xed\x90"), PARTITION, BOOT, (32768, b"\x01CD001\x01\0")]),
    (
        "iso-gpt-hybrid",
        &[(0, b"\x45\x52\x08\0"), PROTECTIVE, BOOT, (512, b"EFI PART"), (32768, b"\x01CD001\x01\0")],
    ),
    (
        "iso-that-is-a-program",
        &[(0, b"MZ"), PROTECTIVE, BOOT, (512, b"EFI PART"), (32768, b"\x01CD001\x01\0")],
    ),
    ("udf-bridge", &[(32768, b"\x01CD001\x01\0"), (34816, b"\0BEA01\x01\0")]),
    ("udf", &[(32768, b"\0BEA01\x01\0")]),
    ("fat12-floppy", &[(0, b"\xeb\x3c\x90MSDOS5.0"), (54, b"FAT12   "), BOOT]),
    ("fat16", &[(0, b"\xeb\x3c\x90mkfs.fat"), (54, b"FAT16   "), BOOT]),
    ("fat32", &[(0, b"\xeb\x58\x90mkfs.fat"), (82, b"FAT32   "), BOOT]),
    ("exfat", &[(0, b"\xeb\x76\x90EXFAT   "), BOOT]),
    ("ntfs", &[(0, b"\xeb\x52\x90NTFS    "), BOOT]),
    ("bitlocker", &[(0, b"\xeb\x58\x90-FVE-FS-"), BOOT]),
    ("xfs", &[(0, b"XFSB\0\0\x10\0")]),
    ("btrfs", &[(0x1_0040, b"_BHRfS_M")]),
    ("hfs", &[(1024, b"H+\0\x04")]),
    ("apfs", &[(32, b"NXSB")]),
    ("squashfs", &[(0, b"hsqs")]),
    ("lvm", &[(512, b"LABELONE\x01\0\0\0\0\0\0\0"), (536, b"LVM2 001")]),
    ("swap", &[(1024, b"\x01\0\0\0"), (4086, b"SWAPSPACE2")]),
    ("zfs", &[(0x2_0000, b"\x0c\xb1\xba\0\0\0\0\0")]),
    ("text", &[(0, b"# Disk usage, 2026\n")]),
];

/// All of them.
pub fn images() -> Vec<Sound> {
    let volume = |&(name, parts): &Volume| {
        let disk = SparseFile::new().with_length(1 << 20);
        let file = parts.iter().fold(disk, |file, &(at, bytes)| file.put(at, bytes));
        Sound { name: format!("{name}.raw"), format: None, file }
    };
    let dynamic = |&(name, maker): &(&str, &str)| {
        let file = vpc::seal(vpc::dynamic().put(vpc::CREATOR, maker));
        Sound { name: format!("{name}.vhd"), format: None, file }
    };
    let disk = || SparseFile::new().put(PARTITION.0, PARTITION.1).put(BOOT.0, BOOT.1).with_length(1 << 20);
    let fixed = |format: Option<&'static str>| Sound {
        name: format!("fixed-as-{}.vhd", format.unwrap_or("probed")),
        format,
        file: vpc::fixed(disk()),
    };
    let fixed = [None, Some("vpc"), Some("raw")].map(fixed);
    VOLUMES.iter().map(volume).chain(VHD_MAKERS.iter().map(dynamic)).chain(fixed).collect()
}
