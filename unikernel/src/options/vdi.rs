//! The options of VDI, checked in `qemu-img`'s order.

use calc::{
    Length,
    vdi::{Image, Kind, MAX_SIZE},
};
use protocol::ErrorRecord;

use super::{Values, file, unsupported};

/// The image of a disk of `size` bytes that an option list asks for.
pub fn new_image(values: &Values, size: Length) -> Result<Image, ErrorRecord> {
    file::check(values)?;
    let kind = if values.flag("static") { Kind::Static } else { Kind::Dynamic };
    Image::new(size, kind).ok_or_else(|| {
        let sectors = size.bytes().next_multiple_of(512);
        unsupported(format_args!(
            "Unsupported VDI image size (size is {sectors:#x}, max supported is {MAX_SIZE:#x})"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::V11_1;

    fn length(list: &str, size: u64) -> Result<u64, String> {
        testing::length("vdi", list, size, V11_1, new_image)
    }

    #[test]
    fn preallocation_is_checked_and_changes_nothing() {
        assert_eq!(length("preallocation=full", 1 << 20), Ok(1024));
        assert_eq!(length("static=on,preallocation=falloc", 1 << 20), Ok(1024 + (1 << 20)));
        assert_eq!(
            length("static,preallocation=metadata", 1),
            Err("Unsupported preallocation mode: metadata".into())
        );
        assert_eq!(
            length("preallocation=x,extent_size_hint=4G", 1),
            Err("invalid parameter value: x".into())
        );
        assert_eq!(
            length("preallocation=metadata,extent_size_hint=4G", 1),
            Err("Extent size hint is too large".into())
        );
    }

    #[test]
    fn the_longest_disk() {
        assert!(length("", MAX_SIZE).is_ok());
        assert_eq!(
            length("", 1 << 63),
            Err("Unsupported VDI image size (size is 0x8000000000000000, max supported is 0x1fffff8000000)"
                .into())
        );
    }
}
