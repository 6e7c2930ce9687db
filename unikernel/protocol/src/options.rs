//! `-o` lists: their grammar, what both sides must know of messages about them, and the `options` operation, which tells
//! what a list can have in it.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::QemuVersion;

/// Marks a line of an [`ErrorRecord`](crate::ErrorRecord)'s message as a hint: it is printed without this mark and
/// without the program's name in front of it.
pub const HINT: char = '\t';

/// Whether one `-o` list may be joined with others by commas (`Invalid option list: X` otherwise): it is not empty,
/// does not begin with a comma, and does not end with a comma that nothing escapes.
///
/// ```
/// use protocol::options::is_valid_list;
/// assert!(is_valid_list("a=1,b") && is_valid_list("a=1,,"));
/// assert!(!is_valid_list("") && !is_valid_list(",a") && !is_valid_list("a,") && !is_valid_list("a,,,"));
/// ```
pub fn is_valid_list(list: &str) -> bool {
    let trailing = list.len() - list.trim_end_matches(',').len();
    !list.is_empty() && !list.starts_with(',') && trailing.is_multiple_of(2)
}

/// The parameters of a list `name=value,flag`, in which `,,` stands for a comma inside a value: the name of each, and its
/// value if it has one.
///
/// ```
/// use protocol::options::parameters;
/// let list: Vec<_> = parameters("a=1,,2,b").collect();
/// assert_eq!(list, [("a", Some("1,2".into())), ("b", None)]);
/// ```
pub fn parameters(list: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    let mut rest = list;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (name, value, behind) = split_parameter(rest);
        rest = behind;
        Some((name, value))
    })
}

/// Splits the first parameter off a list: its name, its value, and the list behind it.
fn split_parameter(list: &str) -> (&str, Option<String>, &str) {
    match list.find(['=', ',']) {
        Some(at) if list[at..].starts_with('=') => {
            let (value, rest) = split_value(&list[at + 1..]);
            (&list[..at], Some(value), rest)
        }
        end => {
            let (flag, rest) = list.split_at(end.unwrap_or(list.len()));
            (flag, None, rest.strip_prefix(',').unwrap_or(rest))
        }
    }
}

/// Splits a value off: up to a single comma, with `,,` made one.
fn split_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once(',') {
        value.push_str(head);
        match tail.strip_prefix(',') {
            Some(behind) => {
                value.push(',');
                rest = behind;
            }
            None => return (value, tail),
        }
    }
    value.push_str(rest);
    (value, "")
}

/// Whether a list asks what it could have in it: by the flag `help` or `?`.
///
/// ```
/// use protocol::options::asks_for_help;
/// assert!(asks_for_help("help") && asks_for_help("a=1,,2,?"));
/// assert!(!asks_for_help("a=help") && !asks_for_help("a=1,,help"));
/// ```
pub fn asks_for_help(list: &str) -> bool {
    parameters(list).any(|(name, value)| value.is_none() && ["help", "?"].contains(&name))
}

/// Which options a new image of a format takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionsRequest {
    /// Whose options.
    pub profile: QemuVersion,
    /// Name of the format.
    pub target_format: String,
}

/// The options, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionsAnswer {
    /// Name of the format.
    pub format: String,
    /// What it takes, those of the file it lies in included.
    pub options: Vec<OptionLine>,
}

/// One option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionLine {
    /// The name it is given by.
    pub name: String,
    /// What its value is.
    pub value: OptionType,
    /// What it does, its default and its range.
    pub about: String,
}

/// What the value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionType {
    /// `on` or `off`.
    Bool,
    /// A number.
    Number,
    /// Bytes, or with a suffix.
    Size,
    /// Any text.
    Text,
}
