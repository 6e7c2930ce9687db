//! The answer of `options`.

use protocol::{OptionType, OptionsAnswer};

use super::escape;

/// Columns that a name and a type are filled up to.
const WIDTH: usize = 22;

/// As `qemu-img create -o help` prints them: a line each, `name=<type>`, a dash and what is to say of it.
/// For a file that has a name the format is not told.
pub fn human(answer: &OptionsAnswer, named: bool) -> String {
    let mut text = match named {
        true => "Supported options:\n".to_owned(),
        false => format!("Supported {} options:\n", escape(&answer.format)),
    };
    for option in &answer.options {
        let kind = match option.value {
            OptionType::Bool => "bool (on/off)",
            OptionType::Number => "num",
            OptionType::Size => "size",
            OptionType::Text => "str",
        };
        let name = format!("{}=<{kind}>", escape(&option.name));
        text.push_str(&format!("  {name:WIDTH$} - {}\n", escape(&option.about)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::OptionLine;

    #[test]
    fn a_line_has_the_documented_shape() {
        let option = |name: &str, value| OptionLine { name: name.into(), value, about: "a\nb".into() };
        let options =
            vec![option("size", OptionType::Size), option("a_very_long_name_of_one", OptionType::Bool)];
        assert_eq!(
            human(&OptionsAnswer { format: "raw".into(), options }, false),
            "Supported raw options:\n  size=<size>            - a\\nb\n  a_very_long_name_of_one=<bool (on/off)> - a\\nb\n"
        );
    }
}
