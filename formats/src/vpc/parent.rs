//! Section "Dynamic Disk Header Format", Parent Locator Entries: by which names a differencing image knows its parent.

use alloc::vec;
use alloc::vec::Vec;

use super::header::{Locator, Parent};
use crate::utf16::{ByteOrder, decode};
use crate::{BackingFile, Error, ErrorKind, Storage};

/// Longest name in bytes: Windows' longest path, 32767 units of UTF-16.
const NAME_LEN_MAX: u32 = 65534;
/// Values of "Platform Code" that are understood, the best first: a path relative to this image, an absolute path, a
/// file URL.
const PLATFORMS: [&[u8; 4]; 3] = [b"W2ru", b"W2ku", b"MacX"];

/// The parent by the best name that the image has for it.
pub(super) fn read<S: Storage>(storage: &mut S, parent: &Parent) -> Result<BackingFile, Error> {
    for platform in PLATFORMS {
        for locator in parent.locators.iter().filter(|locator| locator.platform_code == *platform) {
            let name = name(storage, locator)?;
            if !name.is_empty() {
                return Ok(backing(name));
            }
        }
    }
    let name = decode(&parent.name, ByteOrder::Big);
    if name.is_empty() {
        let message = "Differencing disk does not name its parent";
        return Err(Error::new(ErrorKind::InvalidFormat, "parent_locator", message));
    }
    Ok(backing(name))
}

/// All names that the image has for the parent, those of [`read`]'s order first. Locators of other systems are no names.
pub(super) fn names<S: Storage>(storage: &mut S, parent: &Parent) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for platform in PLATFORMS {
        for locator in parent.locators.iter().filter(|locator| locator.platform_code == *platform) {
            names.push(name(storage, locator)?);
        }
    }
    names.push(decode(&parent.name, ByteOrder::Big));
    names.retain(|name| !name.is_empty());
    Ok(names)
}

fn backing(name: Vec<u8>) -> BackingFile {
    BackingFile { name, format: Some(b"vpc".to_vec()) }
}

fn name<S: Storage>(storage: &mut S, locator: &Locator) -> Result<Vec<u8>, Error> {
    let (offset, length) = (locator.data_offset.get(), locator.data_length.get());
    if length > NAME_LEN_MAX {
        return Err(Error::new(ErrorKind::Limit, "parent_locator", "Parent locator is too long"));
    }
    if offset.checked_add(u64::from(length)).is_none_or(|end| end > storage.len()) {
        let message = "Parent locator lies beyond the end of the file";
        return Err(Error::new(ErrorKind::Corrupt, "parent_locator", message));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    storage.read_at(offset, &mut bytes)?;
    if locator.platform_code == *b"MacX" {
        return Ok(crate::reader::c_string(bytes));
    }
    Ok(decode(&bytes, ByteOrder::Little))
}
