//! How C reads a number at the start of a text (`strtoull`, `strtod`), which the grammar of sizes is made of.

/// Which digits an integer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Base 10.
    Decimal,
    /// Base 16, with or without `0x`.
    Hexadecimal,
    /// Base 0: `0x` is hexadecimal, a leading `0` octal; with `binary`, `0b` is binary (C23).
    Any {
        /// Whether `0b` is understood.
        binary: bool,
    },
}

/// An integer and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integer<'a> {
    /// Its absolute value; absent at 2^64 and above.
    pub magnitude: Option<u64>,
    /// Whether there was a minus sign.
    pub negative: bool,
    /// The text behind the last digit.
    pub rest: &'a str,
}

/// A finite floating-point number and what follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Float<'a> {
    /// The nearest double; infinite when too large.
    pub value: f64,
    /// Whether C sets `ERANGE`: too large, or so small that digits are lost.
    pub out_of_range: bool,
    /// The text behind the number.
    pub rest: &'a str,
}

/// Splits white space and a sign off; true for a minus.
fn sign(text: &str) -> (bool, &str) {
    let text = text.trim_start_matches(|c| matches!(c, ' ' | '\t'..='\r'));
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Splits the leading digits of this radix off.
fn digits(text: &str, radix: u32) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len()))
}

/// The text behind a prefix such as `0x`, in either case, if a digit of its radix follows.
fn behind_prefix<'a>(text: &'a str, letter: &str, radix: u32) -> Option<&'a str> {
    let rest = text.strip_prefix('0')?;
    let (head, rest) = rest.split_at_checked(1)?;
    (head.eq_ignore_ascii_case(letter) && rest.starts_with(|c: char| c.is_digit(radix))).then_some(rest)
}

/// Reads an integer as `strtoull` does; `None` when there is no digit.
pub fn integer(text: &str, base: Base) -> Option<Integer<'_>> {
    let (negative, text) = sign(text);
    let hexadecimal = behind_prefix(text, "x", 16);
    let (radix, text) = match (base, hexadecimal) {
        (Base::Decimal, _) => (10, text),
        (Base::Hexadecimal | Base::Any { .. }, Some(rest)) => (16, rest),
        (Base::Hexadecimal, None) => (16, text),
        (Base::Any { binary }, None) => match behind_prefix(text, "b", 2) {
            Some(rest) if binary => (2, rest),
            _ if text.starts_with('0') => (8, text),
            _ => (10, text),
        },
    };
    let (digits, rest) = digits(text, radix);
    let magnitude = u64::from_str_radix(digits, radix).ok();
    (!digits.is_empty()).then_some(Integer { magnitude, negative, rest })
}

/// Reads a number as `strtod` does, decimal or hexadecimal; `None` for what is no finite number.
pub fn float(text: &str) -> Option<Float<'_>> {
    let (negative, text) = sign(text);
    let (value, zero, rest) = hexadecimal_float(text).or_else(|| decimal_float(text))?;
    let out_of_range = value.is_infinite() || (value < f64::MIN_POSITIVE && !zero);
    Some(Float { value: if negative { -value } else { value }, out_of_range, rest })
}

/// Length of an exponent such as `e-5` at the start of the text, and its value, held within ±100,000.
fn exponent(text: &str, letter: char) -> (usize, i32) {
    let Some(behind) = text.strip_prefix([letter, letter.to_ascii_uppercase()]) else { return (0, 0) };
    let (negative, unsigned) = match behind.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, behind.strip_prefix('+').unwrap_or(behind)),
    };
    let (digits, rest) = digits(unsigned, 10);
    if digits.is_empty() {
        return (0, 0);
    }
    let value = digits.parse().unwrap_or(i32::MAX).min(100_000);
    (text.len() - rest.len(), if negative { -value } else { value })
}

/// The value, whether every digit is zero, and the rest.
fn decimal_float(text: &str) -> Option<(f64, bool, &str)> {
    let (whole, rest) = digits(text, 10);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), |rest| digits(rest, 10));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (exponent, _) = exponent(rest, 'e');
    let (number, rest) = text.split_at(text.len() - rest.len() + exponent);
    let zero = [whole, fraction].iter().all(|digits| digits.bytes().all(|digit| digit == b'0'));
    Some((number.parse().ok()?, zero, rest))
}

/// As [`decimal_float`], for `0x1.8p3`.
fn hexadecimal_float(text: &str) -> Option<(f64, bool, &str)> {
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let (whole, rest) = digits(text, 16);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), |rest| digits(rest, 16));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut mantissa, mut shift) = (0_u64, 0_i32);
    for (digit, is_fraction) in
        whole.chars().map(|digit| (digit, false)).chain(fraction.chars().map(|digit| (digit, true)))
    {
        let digit = u64::from(digit.to_digit(16)?);
        if mantissa < 1 << 60 {
            mantissa = mantissa << 4 | digit;
            shift = shift.saturating_sub(if is_fraction { 4 } else { 0 });
        } else {
            // More digits than a double holds: only whether any of them is not zero matters for rounding.
            mantissa |= u64::from(digit != 0);
            shift = shift.saturating_add(if is_fraction { 0 } else { 4 });
        }
    }
    let (length, exponent) = exponent(rest, 'p');
    let value = scale(mantissa as f64, shift.saturating_add(exponent));
    Some((value, mantissa == 0, &rest[length..]))
}

/// `value * 2^shift`, in steps that a double holds.
fn scale(mut value: f64, shift: i32) -> f64 {
    let (factor, steps) = if shift < 0 { (0.5, shift.unsigned_abs()) } else { (2.0, shift.unsigned_abs()) };
    for _ in 0..steps.min(4096) {
        value *= factor;
    }
    value
}

/// `value` without its fraction, for `0 <= value < 2^64`; 2^64 itself wraps to 0, as it does on x86.
pub fn truncate(value: f64) -> u64 {
    const FRACTION_BITS: u64 = 52;
    const BIAS: u64 = 1023;
    let bits = value.to_bits();
    let mantissa = bits & ((1 << FRACTION_BITS) - 1) | 1 << FRACTION_BITS;
    match (bits >> FRACTION_BITS).checked_sub(BIAS) {
        None => 0,
        Some(exponent @ 0..=FRACTION_BITS) => mantissa >> (FRACTION_BITS - exponent),
        Some(exponent) => mantissa << (exponent - FRACTION_BITS).min(63),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_c_reads_them() {
        let any = Base::Any { binary: true };
        let value = |text, base| integer(text, base).map(|integer| (integer.magnitude, integer.rest));
        assert_eq!(value(" \t+12k", Base::Decimal), Some((Some(12), "k")));
        assert_eq!(value("0x1fz", any), Some((Some(31), "z")));
        assert_eq!(value("0xz", any), Some((Some(0), "xz")));
        assert_eq!(value("017", any), Some((Some(15), "")));
        assert_eq!(value("08", any), Some((Some(0), "8")));
        assert_eq!(value("0b101", any), Some((Some(5), "")));
        assert_eq!(value("0b101", Base::Any { binary: false }), Some((Some(0), "b101")));
        assert_eq!(value("0b2", any), Some((Some(0), "b2")));
        assert_eq!(value("18446744073709551616.", Base::Decimal), Some((None, ".")));
        assert_eq!(value("00x10", Base::Hexadecimal), Some((Some(0), "x10")));
        assert_eq!(integer("-7", Base::Decimal).map(|integer| integer.negative), Some(true));
        for none in ["", "-", "+ 1", "x", ".5", "\u{a0}1", "--1"] {
            assert_eq!(integer(none, any), None, "{none}");
        }
    }

    #[test]
    fn floats_are_read_as_c_reads_them() {
        let value = |text| float(text).map(|float| (float.value, float.rest));
        assert_eq!(value("1.5e1k"), Some((15.0, "k")));
        assert_eq!(value("1.ek"), Some((1.0, "ek")));
        assert_eq!(value("1e+"), Some((1.0, "e+")));
        assert_eq!(value("0x1.8p1"), Some((3.0, "")));
        assert_eq!(value("0x.8P-1"), Some((0.25, "")));
        assert_eq!(value("0x1pk"), Some((1.0, "pk")));
        assert_eq!(value("0x."), Some((0.0, "x.")));
        assert_eq!(value("0x8000000000000000000001"), Some((154_742_504_910_672_534_362_390_528.0, "")));
        assert_eq!(value("0x0.00000000000000000000000008p100"), Some((0.5, "")));
        for none in ["", ".", "-.", "inf", "nan", "infinity", "e5", "+-1"] {
            assert_eq!(float(none), None, "{none}");
        }
        for lost in ["1e9999", "0.5e-400", "0x1p9999", "0x1p-9999", "1e99999999999999999999"] {
            assert_eq!(float(lost).map(|float| float.out_of_range), Some(true), "{lost}");
        }
        assert_eq!(float("0e-9999").map(|float| float.out_of_range), Some(false));
    }

    #[test]
    fn truncation_keeps_the_whole_part() {
        for (value, whole) in [
            (0.0, 0),
            (0.999, 0),
            (1.0, 1),
            (1.999, 1),
            (2_251_799_813_685_248.5, 2_251_799_813_685_248),
            (9_223_372_036_854_775_808.0, 1 << 63),
            (18_446_744_073_709_549_568.0, u64::MAX - 2047),
            (18_446_744_073_709_551_616.0, 0),
        ] {
            assert_eq!(truncate(value), whole, "{value}");
        }
    }
}
