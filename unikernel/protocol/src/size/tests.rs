//! Texts and what the `qemu-img` of every release makes of them, recorded with 5.2.0, 7.2.22, 10.0.2 and 11.1.3.

use Expected::{Bytes, Invalid, Range};

use super::{SizeError, parse};
use crate::QemuVersion::{self, V5_2, V7_2, V10_0, V11_1};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Bytes(u64),
    Invalid,
    Range,
}

impl Expected {
    fn of(text: &str, profile: QemuVersion) -> Self {
        match parse(text, profile) {
            Ok(bytes) => Bytes(bytes),
            Err(SizeError::Invalid) => Invalid,
            Err(SizeError::Range) => Range,
        }
    }
}

/// Texts that no release takes.
#[rustfmt::skip]
const INVALID: &[&str] = &[
    "1.5", "1.5b", ".5", ".", "", " ", "\t", "\u{a0}1", "+ 1", "- 1", "1 ", "1k ", "1kk", "kB", "1kB",
    "1KiB", "1KB", "0x", "0X", "0xg", "0x1.8", "0x.8", "0x1 ", "-x", "-1x", "- 0", "-", "+", "-0x",
    "+-1", "-+1", "nan", "inf", "infinity", "NaN", "-inf", "1,5k", "++1", "1.5G1", "1.5.5k", "1.-5k",
    "1.+5k", "1. 5k", ".e", ".k", ".E", "+ .5k", "1..k", "1.0x5k", "1_000", "0b1", "0bb", "00x10",
    "1.5kk", "0.5", "1.5 k", "1 k", "0.1b", ".e5", "1e-1", "1.5e-1", "0x 10", "0x-1", "0x+1", "x10",
    "1\u{e9}", "\u{661}", "1\u{a0}", "1k\n", "1\n", "1\u{1}", "1.5kb", "1.5mb", "1mm", "1/2", "(1)",
    "1e9999k", " + 1", "0xk", "0b0", "1%", "%1", "1s", "1S", "2s", "1c", "1w", "1kilobyte", "1u", "1U",
    "1L", "1l", "1ll", "0o10", "0d10", "1Y", "1Z", "1y", "1R", "0x.", "0x.k", "0xp", "-1.5", "-1.5b",
    "-0.4b", "-nan", "-1 ", "-1kk", "18446744073709551616x", "0xfffffffffffffffffx", "1.5Ek", "1.Ek",
];

/// Numbers that are out of range in every release.
#[rustfmt::skip]
const OUT_OF_RANGE: &[&str] = &[
    "0x8000000000000000", "0xffffffffffffffff", "0x10000000000000000", "8E", "16E", "15E", "15.999E",
    "9223372036854775808", "18446744073709551615", "18446744073709551616", "99999999999999999999999",
    "-18446744073709551616", "2305843009213693952.0k", "8191.9999999999999999P",
    "18446744073709551615.9k", "8.0E", "9007199254740991.9999k", "9007199254740991.9996k",
    "9007199254740991.99951171875k", "8796093022207.9999999999999M", "9007199254740992k",
    "9007199254740993.5k", "18014398509481983.5k", "18014398509481984k", "17179869183.9G", "16384P",
    "16383P", "16383.9P", "15.9999999999999999999999999E", "15.99999999999999999999999999999E", "17E",
    "32E", "2048E", "-36893488147419103232", "-99999999999999999999999", "18446744073709551615k",
    "9223372036854775808k", "9223372036854775807k", "9.9E", "8.0000000000000000001E", "8.E", "16.E",
];

/// Texts that mean the same in every release.
#[rustfmt::skip]
const AGREED: &[(&str, u64)] = &[
    ("0", 0), ("00", 0), ("0.0004882812499999k", 0), ("0.k", 0), ("0b", 0), ("0B", 0), ("0.0", 0),
    ("0.", 0), ("0.0b", 0), ("0.0k", 0), ("0x0", 0), ("0.00000000000000000001E", 0),
    ("0.0000000000000000000434E", 0), ("0.E", 0), ("1", 1), ("\u{b}1", 1), ("\u{c}1", 1), ("\r1", 1),
    ("+1", 1), ("0x1", 1), ("0X1", 1), ("1.0", 1), ("1.0b", 1), ("1.0B", 1), ("1.00", 1),
    ("1.0000000000000000000000000000", 1), ("0.0009765625k", 1), ("1B", 1), ("1b", 1),
    ("0x00000000000000000000000001", 1), ("00000000000000000000000000001", 1), (" +1", 1), ("511", 511),
    ("1k", 1_024), ("1K", 1_024), (" 1k", 1_024), ("  1k", 1_024), ("\t\n 1k", 1_024), ("01k", 1_024),
    ("1.k", 1_024), ("1.00000000000000000000000000001k", 1_024), ("1.5k", 1_536), ("5.", 5),
    ("5.G", 5_368_709_120), ("0x1B", 27), ("0x1b", 27), ("1E", 1_152_921_504_606_846_976),
    ("1e", 1_152_921_504_606_846_976), ("1.0e", 1_152_921_504_606_846_976),
    ("1.e", 1_152_921_504_606_846_976),
    ("1.0000000000000000004336808689942017E", 1_152_921_504_606_846_976),
    ("1.E", 1_152_921_504_606_846_976), ("1.5e", 1_729_382_256_910_270_464),
    ("0.5e", 576_460_752_303_423_488), ("010", 10), ("08", 8), ("09", 9),
    ("7.9999999999E", 9_223_372_036_739_483_648), ("+0x10", 16), (" 0x10", 16),
    ("1t", 1_099_511_627_776), ("1.5T", 1_649_267_441_664), ("1.5t", 1_649_267_441_664),
    ("1p", 1_125_899_906_842_624), ("1P", 1_125_899_906_842_624), ("1g", 1_073_741_824),
    ("1m", 1_048_576), ("1M", 1_048_576), ("1.1k", 1_126), ("1.1G", 1_181_116_006),
    ("1.1P", 1_238_489_897_526_886), ("0.1k", 102), ("0.3G", 322_122_547),
    ("3.3333333333333333333333333G", 3_579_139_413), ("7.5E", 8_646_911_284_551_352_320),
    ("0.9E", 1_037_629_354_146_162_304), ("0.4999999999999999999999k", 512), ("512.000001k", 524_288),
    ("5.5555555555555555555P", 6_254_999_482_459_022), ("0x1e3", 483), ("0xe", 14), ("0xE", 14),
    ("0x1E", 30), ("0xeb", 235), ("7.E", 8_070_450_532_247_928_832),
];

/// Texts that releases disagree about: in 5.2, in 7.2, from 10.0 on.
#[rustfmt::skip]
const DRIFT: &[(&str, Expected, Expected, Expected)] = &[
    (".5G", Bytes(536_870_912), Invalid, Bytes(536_870_912)),
    ("-1", Range, Invalid, Range),
    (" -1", Range, Invalid, Range),
    ("0x1k", Bytes(1_024), Bytes(1_024), Invalid),
    ("0x1p3", Bytes(8), Invalid, Invalid),
    ("0x1p3k", Bytes(8_192), Invalid, Invalid),
    ("0x1.k", Bytes(1_024), Invalid, Invalid),
    ("0x1.", Bytes(1), Invalid, Invalid),
    ("1e3", Bytes(1_000), Invalid, Invalid),
    ("1e3k", Bytes(1_024_000), Invalid, Invalid),
    ("1E3", Bytes(1_000), Invalid, Invalid),
    ("1E1", Bytes(10), Invalid, Invalid),
    ("0x7fffffffffffffff", Range, Bytes(9_223_372_036_854_775_807), Bytes(9_223_372_036_854_775_807)),
    ("0x10000000000000000k", Range, Invalid, Invalid),
    ("9223372036854775807", Range, Bytes(9_223_372_036_854_775_807), Bytes(9_223_372_036_854_775_807)),
    ("18446744073709551616k", Range, Invalid, Invalid),
    ("-9223372036854775808", Range, Invalid, Range),
    ("-9223372036854775809", Range, Invalid, Range),
    ("-18446744073709551615", Range, Invalid, Range),
    ("-0", Bytes(0), Invalid, Range),
    ("-0k", Bytes(0), Invalid, Invalid),
    ("-0.5k", Range, Invalid, Invalid),
    ("-.5k", Range, Invalid, Invalid),
    ("-1k", Range, Invalid, Invalid),
    ("-0x1", Range, Invalid, Invalid),
    ("-0x10", Range, Invalid, Invalid),
    ("-0x0", Bytes(0), Invalid, Invalid),
    ("-0.0", Bytes(0), Invalid, Invalid),
    ("-0.0k", Bytes(0), Invalid, Invalid),
    ("-0.00001k", Range, Invalid, Invalid),
    ("0.00048828125k", Bytes(0), Bytes(1), Bytes(1)),
    ("0.00048828124999999999999999999999999999k", Bytes(0), Bytes(1), Bytes(1)),
    ("0.000488281250000000000000000000000000001k", Bytes(0), Bytes(1), Bytes(1)),
    ("7.99999999999999999999E", Range, Bytes(8_070_450_532_247_928_832), Range),
    ("1.5e3k", Bytes(1_536_000), Invalid, Invalid),
    ("1.e3", Bytes(1_000), Invalid, Invalid),
    ("1.5e1", Bytes(15), Invalid, Invalid),
    ("1.5E1k", Bytes(15_360), Invalid, Invalid),
    ("+.5k", Bytes(512), Invalid, Bytes(512)),
    (" .5k", Bytes(512), Invalid, Bytes(512)),
    ("7.9999999999999999999E", Range, Bytes(8_070_450_532_247_928_832), Range),
    ("7.999999999999999999E", Range, Bytes(8_070_450_532_247_928_832), Range),
    ("7.99999999999999999E", Range, Bytes(8_070_450_532_247_928_832), Range),
    ("7.9999999999999999E", Range, Bytes(9_223_372_036_854_775_680), Bytes(9_223_372_036_854_775_680)),
    ("1.1M", Bytes(1_153_433), Bytes(1_153_434), Bytes(1_153_434)),
    ("1.1T", Bytes(1_209_462_790_553), Bytes(1_209_462_790_554), Bytes(1_209_462_790_554)),
    ("1.1E", Bytes(1_268_213_655_067_531_776), Bytes(1_268_213_655_067_531_680), Bytes(1_268_213_655_067_531_680)),
    ("2.7182818284590452353602874713527E", Bytes(3_133_965_575_612_453_376), Bytes(3_133_965_575_612_453_504), Bytes(3_133_965_575_612_453_504)),
    ("0.99999999999999999999999999999E", Bytes(1_152_921_504_606_846_976), Bytes(0), Bytes(1_152_921_504_606_846_976)),
    ("7.9999E", Bytes(9_223_256_744_704_315_392), Bytes(9_223_256_744_704_315_136), Bytes(9_223_256_744_704_315_136)),
    ("1.9999999999999999999999E", Bytes(2_305_843_009_213_693_952), Bytes(1_152_921_504_606_846_976), Bytes(2_305_843_009_213_693_952)),
    ("1e0", Bytes(1), Invalid, Invalid),
    ("1e+1", Bytes(10), Invalid, Invalid),
    ("1.5E+1", Bytes(15), Invalid, Invalid),
    ("1.0e3", Bytes(1_000), Invalid, Invalid),
    ("1.0e3k", Bytes(1_024_000), Invalid, Invalid),
    (".5e3", Bytes(500), Invalid, Invalid),
    (".5E3k", Bytes(512_000), Invalid, Invalid),
    ("1.5E3", Bytes(1_500), Invalid, Invalid),
    ("9223372036854775807.0", Range, Bytes(9_223_372_036_854_775_807), Bytes(9_223_372_036_854_775_807)),
    ("9223372036854775807.0b", Range, Bytes(9_223_372_036_854_775_807), Bytes(9_223_372_036_854_775_807)),
    ("9223372036854775807.9b", Range, Invalid, Invalid),
    ("9007199254740991.9994k", Range, Bytes(9_223_372_036_854_775_807), Bytes(9_223_372_036_854_775_807)),
    ("9007199254740991.99951171874k", Range, Bytes(9_223_372_036_854_775_807), Bytes(9_223_372_036_854_775_807)),
    ("8589934591.9999999999999999999G", Range, Bytes(9_223_372_035_781_033_984), Range),
    ("8388607.9999999999999999999T", Range, Bytes(9_223_370_937_343_148_032), Range),
    ("8191.99999999999999999999999P", Range, Bytes(9_222_246_136_947_933_184), Range),
    ("9007199254740993", Bytes(9_007_199_254_740_992), Bytes(9_007_199_254_740_993), Bytes(9_007_199_254_740_993)),
    ("9007199254740993.0", Bytes(9_007_199_254_740_992), Bytes(9_007_199_254_740_993), Bytes(9_007_199_254_740_993)),
    ("1e9999", Range, Invalid, Invalid),
    ("0.5e400", Range, Invalid, Invalid),
    (".0k", Bytes(0), Invalid, Bytes(0)),
    (".0", Bytes(0), Invalid, Bytes(0)),
    (".00b", Bytes(0), Invalid, Bytes(0)),
    ("0.00000000000000000043368086899420177E", Bytes(0), Bytes(1), Bytes(1)),
    ("1.0000000000000000013E", Bytes(1_152_921_504_606_846_976), Bytes(1_152_921_504_606_846_977), Bytes(1_152_921_504_606_846_977)),
    ("1.0000000000000000012E", Bytes(1_152_921_504_606_846_976), Bytes(1_152_921_504_606_846_977), Bytes(1_152_921_504_606_846_977)),
    ("123456789.987654321M", Bytes(129_453_827_018_094), Bytes(129_453_827_018_095), Bytes(129_453_827_018_095)),
    ("0.1T", Bytes(109_951_162_777), Bytes(109_951_162_778), Bytes(109_951_162_778)),
    ("0.7P", Bytes(788_129_934_789_836), Bytes(788_129_934_789_837), Bytes(788_129_934_789_837)),
    ("4.4444444444444444444E", Bytes(5_124_095_576_030_431_232), Bytes(5_124_095_576_030_430_976), Bytes(5_124_095_576_030_430_976)),
    ("0x1G", Bytes(1_073_741_824), Bytes(1_073_741_824), Invalid),
    ("0x1P", Bytes(1_125_899_906_842_624), Bytes(1_125_899_906_842_624), Invalid),
    ("0x1T", Bytes(1_099_511_627_776), Bytes(1_099_511_627_776), Invalid),
    ("-8E", Range, Invalid, Invalid),
    ("-16E", Range, Invalid, Invalid),
    ("-17E", Range, Invalid, Invalid),
    ("-32E", Range, Invalid, Invalid),
    ("-9223372036854775808.5k", Range, Invalid, Invalid),
    ("-1e3", Range, Invalid, Invalid),
    ("-.5", Invalid, Invalid, Range),
    ("-0e", Bytes(0), Invalid, Invalid),
    ("-1E", Range, Invalid, Invalid),
    ("-0E", Bytes(0), Invalid, Invalid),
    ("-7E", Range, Invalid, Invalid),
    ("-0.9E", Range, Invalid, Invalid),
    ("-0x1k", Range, Invalid, Invalid),
    ("-18446744073709551616k", Range, Invalid, Invalid),
    ("-0x8000000000000000", Range, Invalid, Invalid),
    ("-0xffffffffffffffff", Range, Invalid, Invalid),
    ("-0xffffffffffffffffff", Range, Invalid, Invalid),
    ("0x8000000000000000k", Range, Range, Invalid),
    ("18446744073709551616.5k", Range, Invalid, Invalid),
    ("18446744073709551616.5", Range, Invalid, Invalid),
    ("18446744073709551615.5", Range, Invalid, Invalid),
    ("0x10000000000000000.5", Range, Invalid, Invalid),
    ("18446744073709551616.", Range, Invalid, Invalid),
    ("18446744073709551616.k", Range, Invalid, Invalid),
    ("18446744073709551616e3", Range, Invalid, Invalid),
    ("-18446744073709551616.5k", Range, Invalid, Invalid),
    ("0xffffffffffffffff.5", Range, Invalid, Invalid),
    ("0.5E5", Bytes(50_000), Invalid, Invalid),
];

#[test]
fn texts_that_mean_the_same_in_every_release() {
    for profile in QemuVersion::ALL {
        for text in INVALID {
            assert_eq!(Expected::of(text, profile), Invalid, "{text:?} {profile:?}");
        }
        for text in OUT_OF_RANGE {
            assert_eq!(Expected::of(text, profile), Range, "{text:?} {profile:?}");
        }
        for &(text, bytes) in AGREED {
            assert_eq!(Expected::of(text, profile), Bytes(bytes), "{text:?} {profile:?}");
        }
    }
}

#[test]
fn texts_that_releases_read_differently() {
    for &(text, v5_2, v7_2, newer) in DRIFT {
        for (profile, expected) in [(V5_2, v5_2), (V7_2, v7_2), (V10_0, newer), (V11_1, newer)] {
            assert_eq!(Expected::of(text, profile), expected, "{text:?} {profile:?}");
        }
    }
}

#[test]
fn fractions_too_small_for_a_double() {
    let zeros = "0".repeat(400);
    for (tail, v5_2, v7_2, newer) in [
        ("1", Bytes(5), Invalid, Invalid),
        ("1b", Bytes(5), Bytes(5), Invalid),
        ("1k", Bytes(5120), Bytes(5), Bytes(5120)),
        ("1kk", Invalid, Bytes(5120), Invalid),
    ] {
        let text = alloc::format!("5.{zeros}{tail}");
        for (profile, expected) in [(V5_2, v5_2), (V7_2, v7_2), (V10_0, newer), (V11_1, newer)] {
            assert_eq!(Expected::of(&text, profile), expected, "{tail} {profile:?}");
        }
    }
}

#[test]
fn errors_are_worded_as_the_release_words_them() {
    let say = |error: SizeError, profile| error.explain("image size", "x", profile);
    let old = "Invalid image size specified. You may use k, M, G, T, P or E suffixes for\n\
               kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.";
    assert_eq!(say(SizeError::Invalid, V5_2), old);
    assert_eq!(say(SizeError::Invalid, V7_2), old);
    assert_eq!(say(SizeError::Invalid, V10_0), "Invalid image size specified: 'x'.");
    assert_eq!(say(SizeError::Invalid, V11_1), "Invalid image size specified: 'x'");
    for profile in QemuVersion::ALL {
        let range = "Invalid image size specified. Must be between 0 and 9223372036854775807.";
        assert_eq!(say(SizeError::Range, profile), range);
    }
}
