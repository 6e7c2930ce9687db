//! The grammar of sizes on a command line (`qemu_strtosz`): `1G`, `1.5k`, `0x200`, and the numbers in `-o` lists.
//!
//! Releases read the same text differently at the edges; every function here takes the release to follow.

mod number;
#[cfg(test)]
mod tests;

use alloc::{format, string::String};

use number::{Base, Float, truncate};

use crate::QemuVersion;

/// Largest size a command line takes, in bytes.
const MAX: u64 = i64::MAX.unsigned_abs();

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Not of the grammar.
    Invalid,
    /// A number, but negative or too large.
    Range,
}

impl SizeError {
    /// What `qemu-img` says when `text` is given as `what` (`image size`); more than one line in old releases.
    ///
    /// ```
    /// use protocol::{QemuVersion, size::SizeError};
    /// let text = SizeError::Invalid.explain("image size", "1kk", QemuVersion::V11_1);
    /// assert_eq!(text, "Invalid image size specified: '1kk'");
    /// ```
    pub fn explain(self, what: &str, text: &str, profile: QemuVersion) -> String {
        match (self, profile) {
            (Self::Range, _) => format!("Invalid {what} specified. Must be between 0 and {MAX}."),
            (Self::Invalid, QemuVersion::V5_2 | QemuVersion::V7_2 | QemuVersion::V8_0) => format!(
                "Invalid {what} specified. You may use k, M, G, T, P or E suffixes for\n\
                 kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
            ),
            (Self::Invalid, QemuVersion::V10_0) => format!("Invalid {what} specified: '{text}'."),
            (Self::Invalid, QemuVersion::V11_1) => format!("Invalid {what} specified: '{text}'"),
        }
    }
}

/// Reads a size in bytes, below 2^63: decimal with an optional suffix `b k M G T P E` (powers of 1024, either case), a
/// fraction where the suffix scales it, or hexadecimal.
///
/// ```
/// use protocol::{QemuVersion, size::{self, SizeError}};
/// let parse = |text| size::parse(text, QemuVersion::V11_1);
/// assert_eq!(parse("1.5k"), Ok(1536));
/// assert_eq!(parse("0x200"), Ok(512));
/// assert_eq!(parse("1.5"), Err(SizeError::Invalid));
/// assert_eq!(parse("8E"), Err(SizeError::Range));
/// ```
pub fn parse(text: &str, profile: QemuVersion) -> Result<u64, SizeError> {
    parse_wide(text, profile).and_then(|size| if size <= MAX { Ok(size) } else { Err(SizeError::Range) })
}

/// As [`parse`], up to 2^64 - 1: the range of a size in an `-o` list.
///
/// ```
/// use protocol::{QemuVersion, size::{SizeError, parse_wide}};
/// assert_eq!(parse_wide("15E", QemuVersion::V11_1), Ok(15 << 60));
/// assert_eq!(parse_wide("16E", QemuVersion::V11_1), Err(SizeError::Range));
/// ```
pub fn parse_wide(text: &str, profile: QemuVersion) -> Result<u64, SizeError> {
    match profile {
        QemuVersion::V5_2 => double(text),
        QemuVersion::V7_2 | QemuVersion::V8_0 | QemuVersion::V10_0 | QemuVersion::V11_1 => {
            fixed_point(text, profile)
        }
    }
}

/// Reads a plain number of an `-o` list: decimal, octal (`010`), hexadecimal, and binary (`0b1`) from 11.1 on. A minus
/// sign negates modulo 2^64, as C does.
///
/// ```
/// use protocol::{QemuVersion, size::parse_number};
/// assert_eq!(parse_number("0x10", QemuVersion::V11_1), Ok(16));
/// assert_eq!(parse_number("-1", QemuVersion::V11_1), Ok(u64::MAX));
/// ```
pub fn parse_number(text: &str, profile: QemuVersion) -> Result<u64, SizeError> {
    whole_number(text, profile).map(|(magnitude, negative)| match negative {
        true => magnitude.wrapping_neg(),
        false => magnitude,
    })
}

/// As [`parse_number`], with a sign that counts: from -2^63 to 2^63 - 1.
///
/// ```
/// use protocol::{QemuVersion, size::{SizeError, parse_signed}};
/// assert_eq!(parse_signed("-010", QemuVersion::V11_1), Ok(-8));
/// assert_eq!(parse_signed("9223372036854775808", QemuVersion::V11_1), Err(SizeError::Range));
/// ```
pub fn parse_signed(text: &str, profile: QemuVersion) -> Result<i64, SizeError> {
    let (magnitude, negative) = whole_number(text, profile)?;
    let value =
        if negative { 0_i64.checked_sub_unsigned(magnitude) } else { 0_i64.checked_add_unsigned(magnitude) };
    value.ok_or(SizeError::Range)
}

/// The absolute value of a number that takes all of the text, and whether it is negative.
fn whole_number(text: &str, profile: QemuVersion) -> Result<(u64, bool), SizeError> {
    let base = Base::Any { binary: profile >= QemuVersion::V11_1 };
    let integer = number::integer(text, base).ok_or(SizeError::Invalid)?;
    match integer.magnitude {
        Some(magnitude) if integer.rest.is_empty() => Ok((magnitude, integer.negative)),
        _ => Err(out_of_range(integer.rest)),
    }
}

/// The error for a number out of range: with something behind it, it is not a number at all.
fn out_of_range(rest: &str) -> SizeError {
    if rest.is_empty() { SizeError::Range } else { SizeError::Invalid }
}

/// The suffix that must be all of the text, as a power of two.
fn suffix(text: &str) -> Result<u32, SizeError> {
    match text {
        "" | "b" | "B" => Ok(0),
        "k" | "K" => Ok(10),
        "m" | "M" => Ok(20),
        "g" | "G" => Ok(30),
        "t" | "T" => Ok(40),
        "p" | "P" => Ok(50),
        "e" | "E" => Ok(60),
        _ => Err(SizeError::Invalid),
    }
}

/// Releases up to 5.2: the number is a double, with all that `strtod` reads.
fn double(text: &str) -> Result<u64, SizeError> {
    let Float { value, out_of_range: lost, rest } = number::float(text).ok_or(SizeError::Invalid)?;
    if lost {
        return Err(out_of_range(rest));
    }
    let shift = suffix(rest)?;
    let magnitude = value.abs();
    if shift == 0 && magnitude < (MAX as f64) && truncate(magnitude) as f64 != magnitude {
        return Err(SizeError::Invalid);
    }
    let bytes = magnitude * (1_u64 << shift) as f64;
    if value < 0.0 || bytes >= TWO_POW_64 {
        return Err(SizeError::Range);
    }
    Ok(truncate(bytes))
}

/// 2^64.
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

/// Later releases: an integer of 64 bits and a fraction of 64 bits, rounded half up.
fn fixed_point(text: &str, profile: QemuVersion) -> Result<u64, SizeError> {
    let strict = profile >= QemuVersion::V10_0;
    let Some(integer) = number::integer(text, Base::Decimal) else {
        // Only a fraction can stand without digits in front of it.
        let (carry, fraction, rest) = if strict && text.contains('.') {
            strict_fraction(text)?
        } else {
            return Err(SizeError::Invalid);
        };
        return scaled(carry, fraction, rest);
    };
    let rest = integer.rest;
    let Some(whole) = integer.magnitude else { return Err(out_of_range(rest)) };
    if integer.negative {
        return Err(if strict { out_of_range(rest) } else { SizeError::Invalid });
    }
    if whole == 0 && rest.starts_with(['x', 'X']) {
        return hexadecimal(text, strict);
    }
    if !rest.starts_with('.') {
        return scaled(whole, 0, rest);
    }
    let (carry, fraction, rest) = match rest.get(1..) {
        Some(behind) if strict && !behind.starts_with(|c: char| c.is_ascii_digit()) => (0, 0, behind),
        _ if strict => strict_fraction(rest)?,
        _ => lax_fraction(rest)?,
    };
    let whole = whole.checked_add(carry).ok_or_else(|| out_of_range(rest))?;
    scaled(whole, fraction, rest)
}

fn hexadecimal(text: &str, strict: bool) -> Result<u64, SizeError> {
    let integer = number::integer(text, Base::Hexadecimal).ok_or(SizeError::Invalid)?;
    let value = integer.magnitude.ok_or_else(|| out_of_range(integer.rest))?;
    if strict && !integer.rest.is_empty() {
        return Err(SizeError::Invalid);
    }
    scaled(value, 0, integer.rest)
}

/// What a fraction adds to the integer, its 64 bits, and the text behind it.
type Fraction<'a> = (u64, u64, &'a str);

/// From 8.1 on: `e` is a suffix, never an exponent, and no fraction other than zero vanishes.
fn strict_fraction(text: &str) -> Result<Fraction<'_>, SizeError> {
    let (number, _) = text.split_at(text.find(['e', 'E']).unwrap_or(text.len()));
    let float = number::float(number).ok_or(SizeError::Invalid)?;
    let rest = text.get(number.len() - float.rest.len()..).unwrap_or_default();
    if float.value.is_sign_negative() {
        return Err(out_of_range(rest));
    }
    if float.value == 1.0 {
        return Ok((1, 0, rest));
    }
    let vanishing = float.out_of_range || float.value > 0.0;
    Ok((0, truncate(float.value * TWO_POW_64).max(u64::from(vanishing)), rest))
}

/// 6.0 to 8.0: an exponent is an error, a fraction that rounds to 1 counts as 0, and behind one too small for a double
/// the next character is lost.
fn lax_fraction(text: &str) -> Result<Fraction<'_>, SizeError> {
    let Some(float) = number::float(text) else { return Ok((0, 0, text.get(1..).unwrap_or_default())) };
    if float.out_of_range {
        return float.rest.get(1..).map(|rest| (0, 0, rest)).ok_or(SizeError::Invalid);
    }
    let (number, rest) = text.split_at(text.len() - float.rest.len());
    if number.contains(['e', 'E']) {
        return Err(SizeError::Invalid);
    }
    Ok((0, truncate(float.value * TWO_POW_64), rest))
}

/// `whole + fraction / 2^64` times the suffix, rounded half up.
fn scaled(whole: u64, fraction: u64, rest: &str) -> Result<u64, SizeError> {
    let shift = suffix(rest)?;
    if shift == 0 {
        return if fraction == 0 { Ok(whole) } else { Err(SizeError::Invalid) };
    }
    let fraction = u128::from(fraction) << shift;
    let bytes = (u128::from(whole) << shift) + (fraction >> 64) + (fraction >> 63 & 1);
    u64::try_from(bytes).map_err(|_| SizeError::Range)
}
