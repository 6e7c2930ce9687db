//! The files that an image names.

use alloc::{format, vec::Vec};

use formats::{Error, Format, Image, Storage};
use protocol::{Code, InspectPart, ReferenceInfo, Role, Text};

use super::findings::Findings;

/// Longest name in bytes: so long a path can be in Linux.
const NAME_MAX: usize = 4096;
/// Bytes of names in a part: so that it fits into a record even where each byte is six in JSON.
const PART_LEN: usize = 8 << 10;
/// Bytes of JSON of a reference that are no name, as names count.
const ITEM_LEN: usize = 20;

/// Tells of all of them; an error is not the image's fault.
pub fn tell<S: Storage>(
    image: &mut Image<S>,
    findings: &mut Findings,
    tell: &mut dyn FnMut(InspectPart),
) -> Result<(), Error> {
    let mut found = Vec::new();
    if let Some(backing) = image.backing().cloned() {
        let field = match image.format() {
            Format::Vpc | Format::Vhdx => "parent locator",
            Format::Vmdk => "parentFileNameHint",
            _ => "backing_file_offset",
        };
        findings.add(Code::BackingFile, field, "It is an overlay of another image");
        let mut names = Vec::new();
        match image.backing_names() {
            Ok(found) => names = found,
            Err(error) => findings.error(error)?,
        }
        // The one that counts was read before.
        if names.is_empty() {
            names.push(backing.name);
        }
        let format = backing.format.filter(|format| !format.is_empty());
        for name in names {
            let format = format.as_deref().map(|format| bounded(format, field, findings));
            let name = Some(bounded(&name, field, findings));
            found.push(ReferenceInfo { role: Role::Backing, name, format });
        }
    }
    let data_file = image.qcow2().and_then(|qcow2| qcow2.data_file_name());
    match (image.data_file(), data_file) {
        (None, None) => {}
        (taken, name) => {
            let (field, message) = match taken {
                Some(_) => ("incompatible_features", "Its data is in another file"),
                None => ("external data file name", "It names a file for its data, which it does not take"),
            };
            findings.add(Code::DataFile, field, message);
            let name = name.map(|name| bounded(name, field, findings));
            found.push(ReferenceInfo { role: Role::DataFile, name, format: None });
        }
    }
    let extents = image.references();
    if !extents.is_empty() {
        let message = format!("Parts of its disk are in {} other files", extents.len());
        findings.add(Code::ExtentFile, "extent description", message);
    }
    for name in extents {
        let name = Some(bounded(name, "extent description", findings));
        found.push(ReferenceInfo { role: Role::Extent, name, format: None });
    }

    let (mut part, mut length) = (Vec::new(), 0);
    for reference in found {
        let texts = [&reference.name, &reference.format];
        let more: usize =
            texts.into_iter().flatten().map(|text| text.as_bytes().len()).sum::<usize>() + ITEM_LEN;
        if length + more > PART_LEN && !part.is_empty() {
            tell(InspectPart::References(core::mem::take(&mut part)));
            length = 0;
        }
        length += more;
        part.push(reference);
    }
    if !part.is_empty() {
        tell(InspectPart::References(part));
    }
    Ok(())
}

/// A name, as much of it as can be one.
fn bounded(name: &[u8], field: &str, findings: &mut Findings) -> Text {
    if name.len() > NAME_MAX {
        findings.add(Code::OverLimit, field, format!("A name is longer than {NAME_MAX} bytes"));
    }
    Text(name.get(..NAME_MAX).unwrap_or(name).to_vec())
}
