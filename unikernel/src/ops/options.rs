//! `options`: what a format's `-o` list can have in it.

use alloc::borrow::ToOwned;

use protocol::{ErrorRecord, OptionLine, OptionType, OptionsAnswer, OptionsRequest};

use crate::options::{Driver, Kind};

/// Answers `request`.
pub fn run(request: &OptionsRequest) -> Result<OptionsAnswer, ErrorRecord> {
    let driver = Driver::for_target(&request.target_format, request.profile)?;
    let line = |spec: &crate::options::Spec| OptionLine {
        name: spec.name.to_owned(),
        value: match spec.kind {
            Kind::Bool => OptionType::Bool,
            Kind::Number => OptionType::Number,
            Kind::Size => OptionType::Size,
            Kind::Text => OptionType::Text,
        },
        about: spec.about.to_owned(),
    };
    let options = driver.options(request.profile).into_iter().map(line).collect();
    Ok(OptionsAnswer { format: driver.name.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Answer, MAX_RECORD, QemuVersion, Record};

    #[test]
    fn every_format_s_options_are_one_record() {
        for format in
            ["raw", "qcow2", "luks", "vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels", "file"]
        {
            let request = OptionsRequest { profile: QemuVersion::V11_1, target_format: format.to_owned() };
            let answer = run(&request).unwrap();
            assert!(answer.options.iter().all(|line| !line.about.is_empty()), "{format}");
            let record = Record::Result { request_id: 1, answer: Answer::Options(answer) };
            assert!(record.to_line().len() < MAX_RECORD / 8, "{format}");
        }
    }

    #[test]
    fn a_format_that_cannot_be_made_has_none() {
        let of = |format: &str| {
            let request = OptionsRequest { profile: QemuVersion::V11_1, target_format: format.to_owned() };
            run(&request).unwrap_err().message
        };
        assert_eq!(of("bochs"), "Format driver 'bochs' does not support image creation");
        assert_eq!(of("nosuch"), "Unknown file format 'nosuch'");
    }
}
