//! Whether a file is one thing to everybody: by its signatures, and by those of the disk in it.

use alloc::{format, vec::Vec};

use formats::{Anchor, Format, Image, Region, Signature, SignatureKind, Storage, StorageError, signatures};
use protocol::{Code, SignatureInfo};

use super::{at_start, findings::Findings, signature};

/// Volumes whose signature is not there by chance, and not at the start of any image that is no disk.
const STRONG: [&str; 4] = ["mbr", "gpt", "iso9660", "udf"];

/// Tells what else than `format` a file with these signatures is. `is_fixed_vhd`: it ends in a sound footer.
pub fn judge(format: Format, found: &[Signature], is_fixed_vhd: bool, findings: &mut Findings) {
    let has_volume = found.iter().any(|found| STRONG.contains(&found.name));
    for signature in found {
        let Signature { name, kind, at } = *signature;
        let mut ambiguous = |name| {
            let message = format!("It is read as {}, and has the signature of {name}", format.name());
            findings.add(Code::AmbiguousFormat, name, message);
        };
        match kind {
            SignatureKind::Image if format == Format::Raw && name == "luks" => {
                findings.add(Code::Encrypted, name, "It is a LUKS volume");
            }
            SignatureKind::Image if format == Format::Raw && is_fixed_vhd && at != Anchor::Start(0) => {
                findings.add(Code::FixedVhd, "footer", "It ends in the footer of a fixed VHD");
            }
            SignatureKind::Image if !is_own(format, signature) => ambiguous(name),
            SignatureKind::Volume if STRONG.contains(&name) && !holds_disk(format, found) => ambiguous(name),
            SignatureKind::Packed if format == Format::Raw && has_volume => ambiguous(name),
            SignatureKind::Encrypted if format == Format::Raw && name == "luks2" => {
                findings.add(Code::Encrypted, name, "It is a LUKS volume of version 2");
            }
            SignatureKind::Encrypted if format == Format::Raw => {
                findings.add(Code::EncryptedContent, name, format!("It has the signature of {name}"));
            }
            SignatureKind::Packed if format == Format::Raw => {
                findings.add(Code::NotADisk, name, format!("It is a file of {name}"));
            }
            SignatureKind::Program if format == Format::Raw && !has_volume => {
                findings.add(Code::NotADisk, name, format!("It is a program in {name}"));
            }
            _ => {}
        }
    }
}

/// Whether a file of `format` has the signature for that format's sake.
fn is_own(format: Format, signature: &Signature) -> bool {
    match format {
        Format::Qcow => signature.name == "qcow2",
        // A second trailer is not.
        Format::Dmg => signature.name == "dmg" && signature.at == Anchor::End(512),
        format => signature.name == format.name(),
    }
}

/// Whether a file of `format` may begin with the first bytes of the disk.
fn holds_disk(format: Format, found: &[Signature]) -> bool {
    match format {
        Format::Raw | Format::Dmg | Format::Luks => true,
        Format::Vpc => !found.iter().any(|found| found.name == "vpc" && found.at == Anchor::Start(0)),
        _ => false,
    }
}

/// Tells what the start of the disk is, where that is not the start of the file. What cannot be read is not looked at: the
/// walk over the mapping tells why.
pub fn content<S: Storage>(image: &mut Image<S>, findings: &mut Findings) -> Vec<SignatureInfo> {
    if image.format() == Format::Raw || image.encrypted() {
        return Vec::new();
    }
    let found = signatures(&mut Disk(image)).unwrap_or_default();
    let found: Vec<Signature> = at_start(found).collect();
    for Signature { name, kind, .. } in &found {
        let message = format!("The disk has the signature of {name}");
        match kind {
            SignatureKind::Encrypted => findings.add(Code::EncryptedContent, name, message),
            SignatureKind::Image if *name == "luks" => findings.add(Code::EncryptedContent, name, message),
            SignatureKind::Image => findings.add(Code::ImageInside, name, message),
            SignatureKind::Volume | SignatureKind::Packed | SignatureKind::Program => {}
        }
    }
    found.into_iter().map(|found| signature(found, 0)).collect()
}

/// The disk in an image, as a file.
struct Disk<'a, S>(&'a mut Image<S>);

impl<S: Storage> Storage for Disk<'_, S> {
    fn len(&self) -> u64 {
        self.0.virtual_size()
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let inside = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, beyond) = buf.split_at_mut(inside.min(buf.len()));
        beyond.fill(0);
        self.0.read(offset, inside).map_err(|_| StorageError)
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: self.len().saturating_sub(offset).max(1), hole: false })
    }
}
