//! The answer of `measure`.

use protocol::MeasureAnswer;

/// As `--output human` prints it: unsigned, the bitmaps last.
pub fn human(answer: &MeasureAnswer) -> String {
    let mut text =
        format!("required size: {}\nfully allocated size: {}\n", answer.required, answer.fully_allocated);
    if let Some(bitmaps) = answer.bitmaps {
        text.push_str(&format!("bitmaps size: {bitmaps}\n"));
    }
    text
}

/// As `--output json` prints it: the bitmaps first, every number signed, so that a sum past 2^63 is negative.
pub fn json(answer: &MeasureAnswer) -> String {
    let mut text = String::from("{\n");
    if let Some(bitmaps) = answer.bitmaps {
        text.push_str(&format!("    \"bitmaps\": {},\n", bitmaps.cast_signed()));
    }
    text.push_str(&format!("    \"required\": {},\n", answer.required.cast_signed()));
    text.push_str(&format!("    \"fully-allocated\": {}\n}}\n", answer.fully_allocated.cast_signed()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_the_documented_ones() {
        let answer = MeasureAnswer { required: 524_288, fully_allocated: 10_813_440, bitmaps: Some(458_752) };
        assert_eq!(
            human(&answer),
            "required size: 524288\nfully allocated size: 10813440\nbitmaps size: 458752\n"
        );
        assert_eq!(
            json(&answer),
            "{\n    \"bitmaps\": 458752,\n    \"required\": 524288,\n    \"fully-allocated\": 10813440\n}\n"
        );
    }

    #[test]
    fn a_sum_past_2_63_is_negative_in_json_only() {
        let answer = MeasureAnswer { required: 1 << 63, fully_allocated: u64::MAX, bitmaps: None };
        assert_eq!(
            human(&answer),
            "required size: 9223372036854775808\nfully allocated size: 18446744073709551615\n"
        );
        assert_eq!(
            json(&answer),
            "{\n    \"required\": -9223372036854775808,\n    \"fully-allocated\": -1\n}\n"
        );
    }
}
