//! `--output`: the shape of an answer.

use protocol::QemuVersion;

use crate::report::{Failure, escape};

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Lines for people.
    Human,
    /// JSON.
    Json,
}

impl Output {
    /// The shape that was asked for last; values were [checked](Self::check).
    pub fn of(given: &[String]) -> Self {
        given.last().and_then(|text| Self::parse(text)).unwrap_or(Self::Human)
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Whether `text` is a shape; `command` is whose option it is.
    pub fn check(text: &str, command: &'static str, profile: QemuVersion) -> Result<(), Failure> {
        if Self::parse(text).is_some() {
            return Ok(());
        }
        let text = escape(text);
        let message = match profile {
            QemuVersion::V5_2 | QemuVersion::V7_2 | QemuVersion::V8_0 => {
                "--output must be used with human or json as argument.".into()
            }
            QemuVersion::V10_0 => format!("--output expects 'human' or 'json' not '{text}'"),
            QemuVersion::V11_1 => format!("--output expects 'human' or 'json', not '{text}'"),
        };
        Err(Failure::usage(message).try_help(command))
    }
}
