//! Sizes for people.

/// `size` bytes to three digits, as in `1.5 MiB`: qemu-img's `size_to_str`.
pub fn size_text(size: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    // A thousand of a unit is already one of the next: three digits are enough.
    let exponent = binary_exponent(size as f64 / (1000.0 / 1024.0));
    let unit = usize::try_from((exponent - 1) / 10).unwrap_or(0).min(UNITS.len() - 1);
    let number = size as f64 / (1_u64 << (unit * 10)) as f64;
    format!("{} {}B", three_digits(number), UNITS[unit])
}

/// The exponent that C's `frexp` finds for a number that is at least 1, or 0.
fn binary_exponent(number: f64) -> i64 {
    if number == 0.0 { 0 } else { (number.to_bits() >> 52 & 0x7ff).cast_signed() - 1022 }
}

/// A number that is at least 0.1, or 0, as C's `%.3g` prints it.
fn three_digits(number: f64) -> String {
    let scientific = format!("{number:.2e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i8 = exponent.parse().unwrap_or(0);
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match exponent {
        ..=2 => strip(&format!("{number:.*}", usize::from((2 - exponent).unsigned_abs()))),
        _ => format!("{}e+{exponent:02}", strip(digits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (size, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (512, "512 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1_032_192, "0.984 MiB"),
            (1024, "1 KiB"),
            (2560, "2.5 KiB"),
            (197_120, "192 KiB"),
            (200_704, "196 KiB"),
            (1_023_795, "1e+03 KiB"),
            (1_024_000, "0.977 MiB"),
            (10_514_432, "10 MiB"),
            (1_421_312, "1.36 MiB"),
            (5_368_709_120, "5 GiB"),
            (i64::MAX as u64, "8 EiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size_text(size), text, "{size}");
        }
    }
}
