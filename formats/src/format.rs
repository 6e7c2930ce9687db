//! The formats by name, and telling one from another by the first bytes of a file.

use crate::{Error, Storage, bochs, cloop, luks, parallels, qcow, qcow2, qed, vdi, vhdx, vmdk, vpc};

/// Bytes of a file that [`probe`] looks at, as many as QEMU does.
const PROBE_LEN: usize = 512;

/// A disk-image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the file are the bytes of the disk.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VHD, the format of Virtual PC and Hyper-V.
    Vpc,
    /// VHDX, the successor of VHD.
    Vhdx,
    /// VMware's format: one sparse file, or a descriptor of several.
    Vmdk,
    /// QEMU's first copy-on-write format, version 1 of qcow2.
    Qcow,
    /// QEMU's enhanced disk format.
    Qed,
    /// VirtualBox's format.
    Vdi,
    /// The format of Parallels and Virtuozzo.
    Parallels,
    /// An encrypted disk, version 1 of the format.
    Luks,
    /// A growing disk of Bochs.
    Bochs,
    /// A compressed loop device.
    Cloop,
    /// UDIF, the format of Apple's disk images.
    Dmg,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 13] = [
        Self::Qcow2,
        Self::Qcow,
        Self::Qed,
        Self::Vmdk,
        Self::Vdi,
        Self::Vpc,
        Self::Vhdx,
        Self::Parallels,
        Self::Luks,
        Self::Bochs,
        Self::Cloop,
        Self::Dmg,
        Self::Raw,
    ];

    /// The name by which `qemu-img` knows the format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vpc => "vpc",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Qcow => "qcow",
            Self::Qed => "qed",
            Self::Vdi => "vdi",
            Self::Parallels => "parallels",
            Self::Luks => "luks",
            Self::Bochs => "bochs",
            Self::Cloop => "cloop",
            Self::Dmg => "dmg",
        }
    }

    /// The format of this name; names are case-sensitive, as they are to `qemu-img`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// Whether the first bytes of a file, what is missing counting as zero, are those of an image of some format.
type Probe = fn(&[u8]) -> bool;

/// The formats that have a signature, in `qemu-img`'s order where a file may have two.
const SIGNATURES: [(Format, Probe); 11] = [
    (Format::Parallels, parallels::probe),
    (Format::Qed, qed::probe),
    (Format::Bochs, bochs::probe),
    (Format::Cloop, cloop::probe),
    (Format::Vdi, vdi::probe),
    (Format::Qcow, qcow::probe),
    (Format::Vpc, vpc::probe),
    (Format::Vmdk, vmdk::probe),
    (Format::Vhdx, vhdx::probe),
    (Format::Qcow2, qcow2::probe),
    (Format::Luks, luks::probe),
];

/// The format that the start of the file shows. Without any signature it is [`Format::Raw`]: so is an empty file.
pub fn probe<S: Storage>(storage: &mut S) -> Result<Format, Error> {
    if storage.is_empty() {
        return Ok(Format::Raw);
    }
    let mut head = [0; PROBE_LEN];
    storage.read_at(0, &mut head)?;
    let found = SIGNATURES.into_iter().find(|(_, probe)| probe(&head));
    Ok(found.map_or(Format::Raw, |(format, _)| format))
}

/// The same for a file whose name ends in `.dmg`. That is the only sign of this format: every signature outweighs it but
/// that of cloop.
pub fn probe_named_dmg<S: Storage>(storage: &mut S) -> Result<Format, Error> {
    Ok(match probe(storage)? {
        Format::Raw | Format::Cloop if !storage.is_empty() => Format::Dmg,
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_others_are_not() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        assert_eq!(Format::from_name("QCOW2"), None);
        assert_eq!(Format::from_name(""), None);
    }

    #[test]
    fn signatures_make_a_format_and_all_else_is_raw() {
        let cases: [(&[u8], Format); 14] = [
            (b"", Format::Raw),
            (b"Q", Format::Raw),
            (b"QFI\xfb", Format::Raw),
            (b"QFI\xfb\0\0\0\x00", Format::Raw),
            (b"QFI\xfb\0\0\0\x01", Format::Qcow),
            (b"QFI\xfb\0\0\0\x02", Format::Qcow2),
            (b"QFI\xfb\xff\xff\xff\xff", Format::Qcow2),
            (b"qfi\xfb\0\0\0\x03", Format::Raw),
            (b"conectix", Format::Vpc),
            (b"conecti", Format::Raw),
            (b"vhdxfile", Format::Vhdx),
            (b"vhdxfilE", Format::Raw),
            (b"KDMV", Format::Vmdk),
            (b"#\nversion=1\n", Format::Vmdk),
        ];
        for (mut bytes, format) in cases {
            assert_eq!(probe(&mut bytes), Ok(format), "{bytes:?}");
        }
    }

    #[test]
    fn a_name_that_ends_in_dmg_counts_where_no_signature_does() {
        let cloop = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
        let cases: [(&[u8], Format); 4] =
            [(b"", Format::Raw), (b"x", Format::Dmg), (b"conectix", Format::Vpc), (cloop, Format::Dmg)];
        for (mut bytes, format) in cases {
            assert_eq!(probe_named_dmg(&mut bytes), Ok(format), "{bytes:?}");
        }
    }
}
