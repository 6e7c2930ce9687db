//! The options of qcow version 1, checked in `qemu-img`'s order.
//!
//! One deliberate difference, as with LUKS: a secret that is not given is not missed.

use calc::{Length, qcow::Image};
use protocol::{ErrorRecord, QemuVersion};

use super::{Quoted, Values, bad_value, file, unsupported, usage};

/// The image of a disk of `size` bytes that an option list asks for; `secrets` are the names of the secrets there are.
pub fn new_image(
    values: &Values,
    size: Length,
    secrets: &[&str],
    profile: QemuVersion,
) -> Result<Image, ErrorRecord> {
    let (old_word, format) = (values.flag("encryption"), values.text("encrypt.format"));
    if old_word && format.is_some() {
        return Err(usage(format_args!(
            "'encrypt.format' and its alias 'encryption' can't be used at the same time"
        )));
    }
    file::check(values)?;
    let secret = values.text("encrypt.key-secret");
    let encryption = match format.or(old_word.then_some("aes")) {
        None if secret.is_some() => return Err(usage(format_args!("Parameter 'encrypt.format' is missing"))),
        Some(other) if !["aes", "qcow", "luks"].contains(&other) => {
            return Err(bad_value("format", other, profile));
        }
        encryption => encryption,
    };
    if size == Length::default() {
        return Err(unsupported(format_args!("Image size is too small, cannot be zero length")));
    }
    if encryption == Some("luks") {
        return Err(unsupported(format_args!("Unsupported encryption format")));
    }
    if let Some(secret) = secret.filter(|secret| !secrets.contains(secret)) {
        return Err(usage(format_args!("No secret with id '{}'", Quoted(secret.as_bytes()))));
    }
    // A file system made of a directory is no image below.
    let backing_file = values.text("backing_file").filter(|&name| name != "fat:");
    let backing_name = backing_file.map(|name| u32::try_from(name.len()).unwrap_or(u32::MAX));
    Image::new(size, backing_name).ok_or_else(|| unsupported(format_args!("Image too large")))
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::{V5_2, V11_1};

    fn length(list: &str, size: u64, profile: QemuVersion) -> Result<u64, String> {
        testing::length("qcow", list, size, profile, |values, size| new_image(values, size, &["s"], profile))
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        let alias = "'encrypt.format' and its alias 'encryption' can't be used at the same time";
        for (list, size, message) in [
            ("encryption,encrypt.format=x,preallocation=x", 1, alias),
            ("encrypt.format=x,preallocation=y", 1, "invalid parameter value: y"),
            ("encrypt.format=x", 0, "Parameter 'format' does not accept value 'x'"),
            ("encrypt.key-secret=t", 0, "Parameter 'encrypt.format' is missing"),
            ("encrypt.format=luks", 0, "Image size is too small, cannot be zero length"),
            ("encrypt.format=luks,encrypt.key-secret=t", 1, "Unsupported encryption format"),
            ("encryption=on,encrypt.key-secret=t", 1, "No secret with id 't'"),
            ("", 512 << 40, "Image too large"),
        ] {
            assert_eq!(length(list, size, V11_1), Err(message.into()), "{list} {size}");
        }
        assert_eq!(length("encrypt.format=x", 1, V5_2), Err("Invalid parameter 'x'".into()));
    }

    #[test]
    fn encryption_has_no_length() {
        for list in ["", "encryption=on", "encrypt.format=aes,encrypt.key-secret=s", "backing_file=fat:"] {
            assert_eq!(length(list, 1 << 20, V11_1), Ok(560), "{list}");
        }
    }
}
