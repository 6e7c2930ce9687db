//! `getopt_long` over the option table of an argh struct: permutation, `--`, bundles (`-Uf qcow2`), attached values
//! (`-fqcow2`, `--output=json`), abbreviated long names, and getopt's words for what is wrong.
//!
//! argh has none of these, so a command line is read here and handed to argh in one canonical spelling. This file
//! knows no subcommand: what it is told about a table's history comes in as [`Exception`]s.

use std::ffi::{OsStr, OsString};

use argh::{ArgsInfo, FlagInfoKind};
use protocol::QemuVersion;
use thiserror::Error;

/// What an argh struct cannot say about one of its options.
pub enum Exception {
    /// The long name is known from this version on.
    LongSince(&'static str, QemuVersion),
    /// The short letter is known from this version on.
    ShortSince(char, QemuVersion),
    /// The option has no long name.
    Nameless(&'static str),
    /// The short letter is not known any more from this version on.
    ShortUntil(char, QemuVersion),
    /// A second long name of the option, known from this version on: name, option, version.
    Alias(&'static str, &'static str, QemuVersion),
    /// A second letter of the option, known from this version on: letter, option, version.
    ShortAlias(char, &'static str, QemuVersion),
    /// An option that qemu-img does not have: found by its full name only, so that it never makes an abbreviation
    /// ambiguous.
    Own(&'static str),
    /// A switch that may have a value attached, as in `--progress=json`, which qemu-img does not have.
    Attachable(&'static str),
    /// An option that there is not, under neither of its names.
    Absent(&'static str),
}

/// One name of an option.
struct Name {
    text: &'static str,
    option: usize,
    abbreviable: bool,
}

struct Opt {
    /// The long name argh knows, without dashes.
    long: &'static str,
    short: Option<char>,
    second: Option<char>,
    takes_value: bool,
    /// A switch that may have a value behind `=`.
    attachable: bool,
}

/// The options of one command, as one version has them.
pub struct Table {
    options: Vec<Opt>,
    names: Vec<Name>,
}

/// One option as it stands on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// The option's long name, without dashes.
    pub option: &'static str,
    /// Its value; of a switch what is attached to it, usually nothing.
    pub value: String,
}

/// What getopt would say.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArgvError {
    /// A long option nobody knows, as given.
    #[error("unrecognized option '{0}'")]
    Unrecognized(String),
    /// An abbreviation of several options.
    #[error("option '{given}' is ambiguous; possibilities:{}", quoted(candidates))]
    Ambiguous {
        /// As given.
        given: String,
        /// The long names it may stand for.
        candidates: Vec<&'static str>,
    },
    /// A long option at the end of the line lacks its value.
    #[error("option '--{0}' requires an argument")]
    LongLacksValue(&'static str),
    /// A short option at the end of the line lacks its value.
    #[error("option requires an argument -- '{0}'")]
    ShortLacksValue(char),
    /// `--switch=value`.
    #[error("option '--{name}' doesn't allow an argument")]
    ValueOfSwitch {
        /// The switch.
        name: &'static str,
        /// As given.
        given: String,
    },
    /// A short option nobody knows.
    #[error("invalid option -- '{0}'")]
    Invalid(char),
    /// An option or its value is not UTF-8 (file names may be anything).
    #[error("argument '{0}' is not valid UTF-8")]
    Encoding(String),
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!(" '--{name}'")).collect()
}

impl Table {
    /// The table of `T` as of `version`.
    pub fn of<T: ArgsInfo>(exceptions: &[Exception], version: QemuVersion) -> Self {
        let mut table = Self { options: Vec::new(), names: Vec::new() };
        for flag in T::get_args_info().flags {
            let long = flag.long.trim_start_matches("--");
            let option = table.options.len();
            let mut short = flag.short.or((long == "help").then_some('h'));
            let mut second = None;
            let mut known = true;
            let (mut abbreviable, mut attachable) = (true, false);
            for exception in exceptions {
                match *exception {
                    Exception::LongSince(name, since) if name == long => known = version >= since,
                    Exception::ShortSince(letter, since) if short == Some(letter) && version < since => {
                        short = None;
                    }
                    Exception::ShortUntil(letter, until) if short == Some(letter) && version >= until => {
                        short = None;
                    }
                    Exception::Nameless(name) if name == long => known = false,
                    Exception::Own(name) if name == long => abbreviable = false,
                    Exception::Attachable(name) if name == long => attachable = true,
                    Exception::Absent(name) if name == long => (known, short) = (false, None),
                    Exception::ShortAlias(letter, name, since) if name == long && version >= since => {
                        second = Some(letter);
                    }
                    Exception::Alias(text, name, since) if name == long && version >= since => {
                        table.names.push(Name { text, option, abbreviable: true });
                    }
                    _ => {}
                }
            }
            if known {
                table.names.push(Name { text: long, option, abbreviable });
            }
            let takes_value = matches!(flag.kind, FlagInfoKind::Option { .. });
            table.options.push(Opt { long, short, second, takes_value, attachable });
        }
        table
    }

    /// The option a long name stands for: an exact match, or the only one it abbreviates.
    fn find(&self, name: &str, given: &str) -> Result<(&'static str, &Opt), ArgvError> {
        if let Some(exact) = self.names.iter().find(|candidate| candidate.text == name) {
            return Ok((exact.text, &self.options[exact.option]));
        }
        let matches: Vec<&Name> =
            self.names.iter().filter(|known| known.abbreviable && known.text.starts_with(name)).collect();
        match matches.as_slice() {
            [] => Err(ArgvError::Unrecognized(given.to_owned())),
            [first, rest @ ..] if rest.iter().all(|other| other.option == first.option) => {
                Ok((first.text, &self.options[first.option]))
            }
            several => Err(ArgvError::Ambiguous {
                given: given.to_owned(),
                candidates: several.iter().map(|name| name.text).collect(),
            }),
        }
    }
}

/// Reads a command line option by option; what is not an option is kept as an operand.
pub struct Reader<'t, 'a> {
    table: &'t Table,
    arguments: std::slice::Iter<'a, OsString>,
    /// The rest of a bundle of short options.
    bundle: &'a str,
    /// Stop at the first operand instead of looking for options behind it.
    stop_at_operand: bool,
    canonical: Vec<String>,
    operands: Vec<&'a OsStr>,
}

impl<'t, 'a> Reader<'t, 'a> {
    /// A reader of `arguments`, the command's name not among them.
    pub fn new(table: &'t Table, arguments: &'a [OsString]) -> Self {
        Self {
            table,
            arguments: arguments.iter(),
            bundle: "",
            stop_at_operand: false,
            canonical: Vec::new(),
            operands: Vec::new(),
        }
    }

    /// Options end at the first operand, which belongs with all behind it to somebody else.
    pub fn stop_at_operand(mut self) -> Self {
        self.stop_at_operand = true;
        self
    }

    /// What stood on the line beside the options.
    pub fn operands(&self) -> &[&'a OsStr] {
        &self.operands
    }

    /// The options read so far in the one spelling argh takes.
    pub fn canonical(&self) -> Vec<&str> {
        self.canonical.iter().map(String::as_str).collect()
    }

    /// Arguments not yet looked at.
    pub fn rest(&self) -> &'a [OsString] {
        self.arguments.as_slice()
    }

    fn item(&mut self, option: &Opt, value: Option<String>) -> Item {
        self.canonical.push(format!("--{}", option.long));
        self.canonical.extend(value.clone().filter(|_| option.takes_value));
        Item { option: option.long, value: value.unwrap_or_default() }
    }

    fn long(&mut self, given: &'a str) -> Result<Item, ArgvError> {
        let (name, attached) = match given[2..].split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&given[2..], None),
        };
        let (name, option) = self.table.find(name, given)?;
        let value = match (option.takes_value, attached) {
            (true, Some(value)) => Some(value.to_owned()),
            (true, None) => {
                let next = self.arguments.next().ok_or(ArgvError::LongLacksValue(name))?;
                Some(text(next)?.to_owned())
            }
            (false, Some(value)) if option.attachable => Some(value.to_owned()),
            (false, Some(_)) => return Err(ArgvError::ValueOfSwitch { name, given: given.to_owned() }),
            (false, None) => None,
        };
        Ok(self.item(option, value))
    }

    fn short(&mut self) -> Option<Result<Item, ArgvError>> {
        let letter = self.bundle.chars().next()?;
        let rest = &self.bundle[letter.len_utf8()..];
        self.bundle = rest;
        let known = |option: &&Opt| [option.short, option.second].contains(&Some(letter));
        let Some(option) = self.table.options.iter().find(known) else {
            return Some(Err(ArgvError::Invalid(letter)));
        };
        if !option.takes_value {
            return Some(Ok(self.item(option, None)));
        }
        self.bundle = "";
        let value = if rest.is_empty() {
            match self.arguments.next().map(|next| text(next)) {
                Some(Ok(next)) => next,
                Some(Err(error)) => return Some(Err(error)),
                None => return Some(Err(ArgvError::ShortLacksValue(letter))),
            }
        } else {
            rest
        };
        Some(Ok(self.item(option, Some(value.to_owned()))))
    }
}

impl Iterator for Reader<'_, '_> {
    type Item = Result<Item, ArgvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(item) = self.short() {
            return Some(item);
        }
        loop {
            let argument = self.arguments.next()?;
            let bytes = argument.as_encoded_bytes();
            if bytes == b"--" {
                self.operands.extend(self.arguments.by_ref().map(OsString::as_os_str));
                return None;
            }
            if bytes.len() < 2 || bytes[0] != b'-' {
                self.operands.push(argument);
                if self.stop_at_operand {
                    return None;
                }
                continue;
            }
            let given = match text(argument) {
                Ok(given) => given,
                Err(error) => return Some(Err(error)),
            };
            if given.starts_with("--") {
                return Some(self.long(given));
            }
            self.bundle = &given[1..];
            return self.short();
        }
    }
}

fn text(argument: &OsString) -> Result<&str, ArgvError> {
    argument.to_str().ok_or_else(|| ArgvError::Encoding(argument.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use argh::FromArgs;

    use super::*;

    /// A command.
    #[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
    struct Command {
        /// format
        #[argh(option, short = 'f')]
        format: Vec<String>,
        /// snapshot
        #[argh(option, short = 'l')]
        snapshot: Vec<String>,
        /// share
        #[argh(switch, short = 'U')]
        force_share: bool,
        /// size
        #[argh(option, short = 's')]
        size: Vec<String>,
        /// own
        #[argh(option)]
        sizeable: Vec<String>,
        /// files
        #[argh(positional)]
        file: Vec<String>,
    }

    const EXCEPTIONS: &[Exception] = &[
        Exception::ShortSince('s', QemuVersion::V11_1),
        Exception::LongSince("snapshot", QemuVersion::V10_0),
        Exception::Alias("source-format", "format", QemuVersion::V11_1),
        Exception::Own("sizeable"),
    ];

    fn read(version: QemuVersion, line: &[&str]) -> Result<(Vec<String>, Vec<String>), String> {
        let table = Table::of::<Command>(EXCEPTIONS, version);
        let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
        let mut reader = Reader::new(&table, &arguments);
        for item in reader.by_ref() {
            item.map_err(|error| error.to_string())?;
        }
        Ok((
            reader.canonical().into_iter().map(str::to_owned).collect(),
            reader.operands().iter().map(|operand| operand.to_string_lossy().into_owned()).collect(),
        ))
    }

    #[test]
    fn every_spelling_becomes_the_canonical_one() {
        for line in [
            &["-f", "raw", "a"][..],
            &["-fraw", "a"],
            &["a", "-fraw"],
            &["--format", "raw", "a"],
            &["--format=raw", "a"],
            &["--form=raw", "--", "a"],
            &["a", "--source-format", "raw"],
            &["--sou", "raw", "a"],
        ] {
            let (options, operands) = read(QemuVersion::V11_1, line).unwrap();
            assert_eq!(
                (options, operands),
                (vec!["--format".into(), "raw".into()], vec!["a".into()]),
                "{line:?}"
            );
        }
    }

    #[test]
    fn bundles_values_and_operands_are_told_apart() {
        let (options, operands) =
            read(QemuVersion::V11_1, &["-Uf-", "-Uf", "--", "-", "--size=", "--", "-x", "--format"]).unwrap();
        assert_eq!(
            options,
            ["--force-share", "--format", "-", "--force-share", "--format", "--", "--size", ""]
        );
        assert_eq!(operands, ["-", "-x", "--format"]);
    }

    #[test]
    fn argh_reads_the_canonical_line_whatever_the_values_are() {
        let table = Table::of::<Command>(EXCEPTIONS, QemuVersion::V11_1);
        let arguments: Vec<OsString> =
            ["-l--help", "-f", "help", "-U", "-U"].iter().map(OsString::from).collect();
        let mut reader = Reader::new(&table, &arguments);
        assert!(reader.by_ref().all(|item| item.is_ok()));
        let command = Command::from_args(&["x"], &reader.canonical()).unwrap();
        assert_eq!(command.snapshot, ["--help"]);
        assert_eq!(command.format, ["help"]);
        assert!(command.force_share);
    }

    #[test]
    fn errors_are_in_getopts_words() {
        let new = QemuVersion::V11_1;
        let old = QemuVersion::V7_2;
        for (version, line, words) in [
            (new, &["--foo"][..], "unrecognized option '--foo'"),
            (new, &["--foo=3"], "unrecognized option '--foo=3'"),
            (
                new,
                &["--s=1"],
                "option '--s=1' is ambiguous; possibilities: '--source-format' '--snapshot' '--size'",
            ),
            (new, &["--size"], "option '--size' requires an argument"),
            (new, &["--siz"], "option '--size' requires an argument"),
            (new, &["-s"], "option requires an argument -- 's'"),
            (new, &["-Us"], "option requires an argument -- 's'"),
            (new, &["--force-share=1"], "option '--force-share' doesn't allow an argument"),
            (new, &["-Ux"], "invalid option -- 'x'"),
            (new, &["-U=3"], "invalid option -- '='"),
            (new, &["-é"], "invalid option -- 'é'"),
            (new, &["--sizea", "1"], "unrecognized option '--sizea'"),
            (old, &["-s", "1"], "invalid option -- 's'"),
            (old, &["--snapshot", "1"], "unrecognized option '--snapshot'"),
            (old, &["--source-format", "1"], "unrecognized option '--source-format'"),
        ] {
            assert_eq!(read(version, line).unwrap_err(), words, "{line:?}");
        }
        assert_eq!(read(old, &["--s", "1"]).unwrap().0, ["--size", "1"]);
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_in_options_and_kept_in_operands() {
        use std::os::unix::ffi::OsStringExt;
        let table = Table::of::<Command>(EXCEPTIONS, QemuVersion::V11_1);
        let odd = OsString::from_vec(b"\xff".to_vec());
        let arguments = [odd.clone()];
        let mut reader = Reader::new(&table, &arguments);
        assert!(reader.next().is_none());
        assert_eq!(reader.operands(), [odd.as_os_str()]);
        let arguments = [OsString::from("-f"), odd];
        assert!(matches!(Reader::new(&table, &arguments).next(), Some(Err(ArgvError::Encoding(_)))));
    }

    #[test]
    fn a_reader_can_leave_the_rest_to_a_subcommand() {
        let table = Table::of::<Command>(EXCEPTIONS, QemuVersion::V11_1);
        let arguments: Vec<OsString> = ["-U", "measure", "-U", "x"].iter().map(OsString::from).collect();
        let mut reader = Reader::new(&table, &arguments).stop_at_operand();
        assert!(reader.next().is_some());
        assert!(reader.next().is_none());
        assert_eq!(reader.operands(), ["measure"]);
        assert_eq!(reader.rest(), ["-U", "x"]);
    }
}
