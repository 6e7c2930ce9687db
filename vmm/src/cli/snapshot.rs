//! `-l`: a snapshot's id or name, or `snapshot.id=ID,snapshot.name=NAME`.

use protocol::{QemuVersion, options::parameters};

use crate::report::{self, Failure, Speaker, escape};

/// What makes an argument a list of parameters instead of a name.
const BASE: &str = "snapshot.";

/// Checks one argument as qemu-img does while it reads the line.
pub fn check(argument: &str, speaker: Speaker) -> Result<(), Failure> {
    if !argument.starts_with(BASE) {
        return Ok(());
    }
    for (name, value) in parameters(argument) {
        if value.is_none() && speaker.profile > QemuVersion::V5_2 {
            let name = escape(name);
            report::complain(&format!(
                "{}: warning: short-form boolean option '{name}' deprecated\nPlease use {name}=on instead\n",
                speaker.name()
            ));
        }
        if !matches!(name, "snapshot.id" | "snapshot.name") {
            return Err(Failure::usage(format!(
                "Invalid parameter '{}'\nFailed in parsing snapshot param '{}'",
                escape(name),
                escape(argument)
            )));
        }
    }
    Ok(())
}

/// The argument that counts of several: the last list of parameters, or else the last name.
pub fn choose(arguments: &[String]) -> Option<&String> {
    arguments.iter().rev().find(|argument| argument.starts_with(BASE)).or(arguments.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: Speaker = Speaker { as_qemu_img: true, profile: QemuVersion::V5_2 };

    #[test]
    fn only_ids_and_names_are_parameters() {
        for good in [
            "",
            "x",
            "snapshot",
            "snapshot.id=1",
            "snapshot.name=a,,b,snapshot.id=",
            "snapshot.id=1,",
            "snapshot.id",
        ] {
            assert_eq!(check(good, SPEAKER), Ok(()), "{good}");
        }
        for bad in ["snapshot.", "snapshot.foo=1", "snapshot.id=1,foo", "snapshot.id=1,=", "snapshot.ids=1"] {
            assert!(check(bad, SPEAKER).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_flag_ends_at_any_comma() {
        let message = check("snapshot.id=1,fo,,o", SPEAKER).unwrap_err().render(SPEAKER);
        assert!(message.starts_with("qemu-img: Invalid parameter 'fo'\n"), "{message}");
    }

    #[test]
    fn parameters_beat_names_and_the_last_wins() {
        let choose = |arguments: &[&str]| {
            choose(&arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).cloned()
        };
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&["a", "b"]).as_deref(), Some("b"));
        assert_eq!(choose(&["snapshot.id=1", "snapshot.id=2", "b"]).as_deref(), Some("snapshot.id=2"));
    }
}
