//! The files that an image names.

use alloc::{format, vec::Vec};

use formats::{Format, Image, Storage};
use protocol::{Code, InspectPart, ReferenceInfo, Role, Text};

use super::findings::Findings;

/// Bytes of names in a part: so that it fits into a record even where each byte is six in JSON.
const PART_LEN: usize = 8 << 10;
/// Bytes of JSON of a reference that are no name, as names count.
const ITEM_LEN: usize = 20;

/// Tells of all of them.
pub fn tell<S: Storage>(image: &Image<S>, findings: &mut Findings, tell: &mut dyn FnMut(InspectPart)) {
    let mut found = Vec::new();
    if let Some(backing) = image.backing() {
        let field = match image.format() {
            Format::Vpc | Format::Vhdx => "parent locator",
            Format::Vmdk => "parentFileNameHint",
            _ => "backing_file_offset",
        };
        findings.add(Code::BackingFile, field, "It is an overlay of another image");
        let format = backing.format.clone().filter(|format| !format.is_empty());
        found.push(ReferenceInfo {
            role: Role::Backing,
            name: Some(Text(backing.name.clone())),
            format: format.map(Text),
        });
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
            found.push(ReferenceInfo { role: Role::DataFile, name: name.map(Text::from), format: None });
        }
    }
    let extents = image.references();
    if !extents.is_empty() {
        let message = format!("Parts of its disk are in {} other files", extents.len());
        findings.add(Code::ExtentFile, "extent description", message);
    }
    for name in extents {
        found.push(ReferenceInfo { role: Role::Extent, name: Some(Text(name.clone())), format: None });
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
}
