//! The descriptor of a new image, and the content id of one that is written to.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::create::{Create, Piece};
use super::{SECTOR, text::Text};
use crate::reader::Reader;
use crate::{Error, ErrorKind, StorageMut};

/// Sectors of a track, whatever the disk.
const TRACK_SECTORS: u64 = 63;

/// The text of the descriptor of a disk of `size` bytes in these pieces, as `qemu-img` writes it.
pub(super) fn text(create: &Create<'_>, size: u64, pieces: &[Piece]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut add = |parts: &[&[u8]]| parts.iter().for_each(|part| text.extend_from_slice(part));
    let number = |value: u64| alloc::format!("{value}");
    let heads = create.adapter.heads();
    let parent_cid = create.parent.map_or(u32::MAX, |parent| parent.cid);
    add(&[b"# Disk DescriptorFile\nversion=1\n", cid_line(create.cid).as_bytes()]);
    add(&[b"parent", cid_line(parent_cid).as_bytes()]);
    add(&[b"createType=\"", create.subformat.create_type().name().as_bytes(), b"\"\n"]);
    if let Some(parent) = create.parent {
        add(&[b"parentFileNameHint=\"", parent.name, b"\""]);
    }
    add(&[b"\n# Extent description\n"]);
    for piece in pieces {
        let sectors = number(piece.size.div_ceil(SECTOR));
        let (kind, end): (&[u8], &[u8]) =
            if create.subformat.is_flat() { (b" FLAT \"", b"\" 0\n") } else { (b" SPARSE \"", b"\"\n") };
        add(&[b"RW ", sectors.as_bytes(), kind, &piece.name, end]);
    }
    add(&[b"\n# The Disk Data Base\n#DDB\n\n"]);
    let cylinders = number(size / (TRACK_SECTORS * heads * SECTOR));
    for (key, value) in [
        ("virtualHWVersion", Some(create.hardware_version)),
        ("geometry.cylinders", Some(&*cylinders)),
        ("geometry.heads", Some(&*number(heads))),
        ("geometry.sectors", Some(&*number(TRACK_SECTORS))),
        ("adapterType", Some(create.adapter.name())),
        ("toolsVersion", create.tools_version),
    ] {
        if let Some(value) = value {
            add(&[b"ddb.", key.as_bytes(), b" = \"", value.as_bytes(), b"\"\n"]);
        }
    }
    text
}

fn cid_line(cid: u32) -> String {
    alloc::format!("CID={cid:x}\n")
}

/// Gives the image whose descriptor is at `offset` of its file, and `length` bytes long at least, another content id. What
/// is behind its text, up to a whole sector, is zeros.
pub(super) fn set_cid<S: StorageMut>(
    storage: &mut S,
    offset: u64,
    length: Option<u64>,
    cid: u32,
) -> Result<(), Error> {
    let mut reader = Reader::new(storage);
    let old = match length {
        Some(_) => Text::read_embedded(&mut reader)?,
        None => Text::read(&mut reader, offset)?,
    };
    let missing = |field| Error::new(ErrorKind::InvalidFormat, field, "Descriptor has no content id");
    let old = old.bytes();
    let find = |key: &[u8]| old.windows(key.len()).position(|window| window == key);
    let parent = find(b"parentCID").and_then(|at| old.get(at..)).ok_or_else(|| missing("parentCID"))?;
    let head = find(b"CID=").and_then(|at| old.get(..at)).ok_or_else(|| missing("CID"))?;
    let mut new = vec![];
    for part in [head, cid_line(cid).as_bytes(), parent] {
        new.extend_from_slice(part);
    }
    let room = length.unwrap_or_else(|| storage.len().saturating_sub(offset).max(new.len() as u64));
    let room = usize::try_from(room.next_multiple_of(SECTOR)).unwrap_or(usize::MAX);
    if new.len() > room {
        return Err(Error::new(
            ErrorKind::Limit,
            "descriptor",
            "Descriptor has no room for another content id",
        ));
    }
    new.resize(room, 0);
    Ok(storage.write_at(offset, &new)?)
}
