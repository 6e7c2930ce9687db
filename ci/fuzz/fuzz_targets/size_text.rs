//! The grammar of sizes: any text is a size or an error, in every release's reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    QemuVersion,
    options::is_valid_list,
    size::{SizeError, parse, parse_number, parse_signed, parse_wide},
};

fuzz_target!(|text: &str| {
    for profile in QemuVersion::ALL {
        match (parse(text, profile), parse_wide(text, profile)) {
            (Ok(size), wide) => {
                assert!(size <= i64::MAX as u64);
                assert_eq!(wide, Ok(size));
                assert_eq!(
                    parse(&size.to_string(), QemuVersion::V11_1),
                    Ok(size),
                    "a size is written as a number"
                );
            }
            (Err(SizeError::Range), Ok(size)) => assert!(size > i64::MAX as u64),
            (Err(error), wide) => {
                assert_eq!(wide, Err(error));
                assert!(!error.explain("image size", text, profile).is_empty());
            }
        }
        if let (Ok(signed), Ok(number)) = (parse_signed(text, profile), parse_number(text, profile)) {
            assert_eq!(signed as u64, number);
        }
    }
    let _ = is_valid_list(text);
});
