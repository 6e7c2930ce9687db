//! The options of VHD, checked in `qemu-img`'s order.

use calc::{
    Length,
    vpc::{Image, Kind, Size},
};
use protocol::{ErrorRecord, QemuVersion};

use super::{Values, bad_value, file, unsupported};

/// The image of a disk of `size` bytes that an option list asks for.
pub fn new_image(values: &Values, size: Length, profile: QemuVersion) -> Result<Image, ErrorRecord> {
    file::check(values)?;
    let kind = match values.text("subformat") {
        None | Some("dynamic") => Kind::Dynamic,
        Some("fixed") => Kind::Fixed,
        Some(other) => return Err(bad_value("subformat", other, profile)),
    };
    let rule = if values.flag("force_size") { Size::Forced } else { Size::Geometry };
    if kind == Kind::Fixed && size == Length::default() {
        // A footer alone: an image is made of it, and not opened.
        return Err(unsupported(format_args!("Error reading dynamic VHD header")));
    }
    Image::new(size, kind, rule)
        .ok_or_else(|| unsupported(format_args!("Disk size is too large, max size is 2040 GiB")))
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::{V5_2, V11_1};

    fn length(list: &str, size: u64, profile: QemuVersion) -> Result<u64, String> {
        testing::length("vpc", list, size, profile, |values, size| new_image(values, size, profile))
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        assert_eq!(
            length("subformat=foo,preallocation=x", 1, V11_1),
            Err("invalid parameter value: x".into())
        );
        assert_eq!(
            length("subformat=foo", u64::MAX >> 1, V11_1),
            Err("Parameter 'subformat' does not accept value 'foo'".into())
        );
        assert_eq!(length("subformat=foo", 1, V5_2), Err("Invalid parameter 'foo'".into()));
        let too_long = "Disk size is too large, max size is 2040 GiB";
        assert_eq!(length("force_size", (2040 << 30) + 1, V11_1), Err(too_long.into()));
        assert_eq!(length("subformat=fixed", 0, V11_1), Err("Error reading dynamic VHD header".into()));
        assert_eq!(length("", 0, V11_1), Ok(2048));
    }
}
