//! The options of VHDX, checked in `qemu-img`'s order.

use calc::{
    Length,
    vhdx::{BlockSize, Image, Kind, LogSize, MAX_SIZE},
};
use protocol::{ErrorRecord, QemuVersion};

use super::{Values, bad_value, file, unsupported, usage};

/// Longest BAT in bytes that `qemu-img` writes at once; only that of a disk of 0 bytes is longer.
const MAX_BAT: u64 = (2 << 30) - 1;

/// The image of a disk of `size` bytes that an option list asks for.
pub fn new_image(values: &Values, size: Length, profile: QemuVersion) -> Result<Image, ErrorRecord> {
    file::check(values)?;
    // On unless turned off.
    let zero = values.flag("block_state_zero") || !values.has("block_state_zero");
    let kind = match values.text("subformat") {
        None | Some("dynamic") => Kind::Dynamic,
        Some("fixed") if zero => Kind::FixedZero,
        Some("fixed") => Kind::Fixed,
        Some(other) => return Err(bad_value("subformat", other, profile)),
    };
    let too_long = || unsupported(format_args!("Image size too large; max of 64TB"));
    if size.bytes() > MAX_SIZE {
        return Err(too_long());
    }
    let log = log_size(values)?;
    let block_size = match values.number("block_size") {
        None | Some(0) => BlockSize::for_disk(size),
        Some(bytes) => {
            BlockSize::new(bytes).ok_or_else(|| usage(format_args!("Block size must be a power of two")))?
        }
    };
    let image = Image::new(size, block_size, log, kind).ok_or_else(too_long)?;
    if image.bat() > MAX_BAT && (zero || kind != Kind::Dynamic) {
        return Err(unsupported(format_args!("Failed to write the BAT: Input/output error")));
    }
    if !image.has_last_block() {
        return Err(unsupported(format_args!(
            "The last block of a fixed image that is longer than 4 GiB must be whole"
        )));
    }
    Ok(image)
}

fn log_size(values: &Values) -> Result<LogSize, ErrorRecord> {
    let Some(bytes) = values.number("log_size") else { return Ok(LogSize::DEFAULT) };
    LogSize::new(bytes).ok_or_else(|| {
        // Rounded up to a MiB, the largest numbers wrap to 0.
        usage(match bytes.checked_next_multiple_of(1 << 20) {
            None | Some(0) => format_args!("Log size must be a multiple of 1 MB"),
            Some(_) => format_args!("Log size must be smaller than 4 GB"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::V11_1;

    fn length(list: &str, size: u64) -> Result<u64, String> {
        testing::length("vhdx", list, size, V11_1, |values, size| new_image(values, size, V11_1))
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        let tebibytes = |n: u64| n << 40;
        for (list, size, message) in [
            ("subformat=x,log_size=0", tebibytes(65), "Parameter 'subformat' does not accept value 'x'"),
            ("log_size=0,block_size=3M", tebibytes(65), "Image size too large; max of 64TB"),
            ("log_size=0,block_size=3M", 1, "Log size must be a multiple of 1 MB"),
            ("log_size=4G,block_size=3M", 1, "Log size must be smaller than 4 GB"),
            ("log_size=18446744073709551615", 1, "Log size must be a multiple of 1 MB"),
            ("block_size=3M", 1, "Block size must be a power of two"),
            (
                "subformat=fixed,block_state_zero=off",
                (4 << 30) + 512,
                "The last block of a fixed image that is longer than 4 GiB must be whole",
            ),
            ("block_size=256M", 0, "Failed to write the BAT: Input/output error"),
        ] {
            assert_eq!(length(list, size), Err(message.into()), "{list} {size}");
        }
    }

    #[test]
    fn sizes_are_rounded_and_bounded() {
        assert_eq!(length("block_size=8E,log_size=1536k", 1 << 20), Ok(9 << 20));
        assert_eq!(length("block_size=256M,block_state_zero=off", 0), Ok(2055 << 20));
        assert_eq!(length("", 0), Ok(71 << 20));
        assert_eq!(length("block_size=0", 64 << 40), Ok(16 << 20));
    }
}
