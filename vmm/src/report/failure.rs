//! A failure on its way to stderr.

use std::process::ExitCode;

use protocol::{ErrorKind, ErrorRecord, QemuVersion, options::HINT};

use super::escape;
use crate::error::Error;

/// Most lines of a message that are printed.
const MAX_LINES: usize = 8;

/// Most characters of one line that are printed.
const MAX_LINE: usize = 16 << 10;

/// Who speaks, and in which version's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Invoked under the name `qemu-img`: its prefix and nothing of our own.
    pub as_qemu_img: bool,
    /// Whose wording is followed.
    pub profile: QemuVersion,
}

impl Speaker {
    /// The program's name in messages.
    pub fn name(self) -> &'static str {
        if self.as_qemu_img { "qemu-img" } else { "instar" }
    }

    /// A warning of our own, which is never printed under the name `qemu-img`.
    pub fn warn(self, text: &str) {
        if !self.as_qemu_img {
            super::complain(&format!("instar: warning: {}\n", escape(text)));
        }
    }
}

/// Why a command failed: a class and what to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: ErrorKind,
    field: Option<String>,
    lines: Vec<String>,
    /// The command whose grammar was broken: getopt names it in front of its words.
    grammar_of: Option<&'static str>,
    /// The command whose `--help` is worth a look; empty for the program itself.
    help_of: Option<&'static str>,
    exit_code: u8,
}

impl Failure {
    /// A failure of a class. Lines of `message` are messages of their own, or hints where they begin with
    /// [`HINT`]; text from elsewhere goes through [`escape`] on its way in.
    pub fn new(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        let lines = message.as_ref().lines().map(str::to_owned).collect();
        Self { kind, field: None, lines, grammar_of: None, help_of: None, exit_code: 1 }
    }

    /// The command line is wrong.
    pub fn usage(message: impl AsRef<str>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// getopt's complaint about the options of `command` (empty: of the program).
    pub fn grammar(command: &'static str, message: impl AsRef<str>) -> Self {
        Self { grammar_of: Some(command), ..Self::usage(escape(message.as_ref())) }.try_help(command)
    }

    /// As said about something else, whose name stands in front.
    pub fn behind(mut self, name: &str) -> Self {
        if let Some(line) = self.lines.first_mut() {
            line.insert_str(0, name);
        }
        self
    }

    /// The failure as the guest would tell it, without `prefix` in front of it.
    pub fn into_record(self, prefix: &str) -> ErrorRecord {
        let message = self.lines.join("\n");
        let message = message.strip_prefix(prefix).unwrap_or(&message);
        ErrorRecord { field: self.field, ..ErrorRecord::new(self.kind, message) }
    }

    /// Names the field or structure to blame.
    pub fn field(self, field: Option<String>) -> Self {
        Self { field, ..self }
    }

    /// Points to the help of `command` (empty: of the program).
    pub fn try_help(self, command: &'static str) -> Self {
        Self { help_of: Some(command), ..self }
    }

    /// The program's exit code is to be `code` instead of 1.
    pub fn exits_with(self, code: u8) -> Self {
        Self { exit_code: code, ..self }
    }

    /// The program's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_code)
    }

    /// All of it as it goes to stderr.
    pub fn render(&self, speaker: Speaker) -> String {
        let name = speaker.name();
        // Before 10.0 a subcommand's complaints came from getopt itself, under the subcommand's name alone, and no
        // one pointed to its help.
        let old = speaker.profile < QemuVersion::V10_0;
        let prefix = match self.grammar_of {
            Some(command) if !command.is_empty() && old && speaker.as_qemu_img => command.to_owned(),
            Some(command) if !command.is_empty() => format!("{name} {command}"),
            _ => name.to_owned(),
        };
        let mut out = String::new();
        for (index, line) in self.lines.iter().take(MAX_LINES).enumerate() {
            let line: String = line.chars().take(MAX_LINE).collect();
            match line.strip_prefix(HINT) {
                // A guest must not be able to speak without a name in front.
                Some(hint) if index > 0 => out.push_str(&escape(hint)),
                _ => out.push_str(&format!("{prefix}: {}", escape(&line))),
            }
            if index == 0 && !speaker.as_qemu_img {
                out.push_str(&self.suffix());
            }
            out.push('\n');
        }
        match self.help_of {
            Some(command) if command.is_empty() || !old => {
                let more = if speaker.profile == QemuVersion::V10_0 { "info" } else { "information" };
                let space = if command.is_empty() { "" } else { " " };
                out.push_str(&format!("Try '{name}{space}{command} --help' for more {more}\n"));
            }
            _ => {}
        }
        out
    }

    fn suffix(&self) -> String {
        match &self.field {
            Some(field) => format!(" ({}: {})", self.kind.name(), escape(field)),
            None => format!(" ({})", self.kind.name()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(as_qemu_img: bool, profile: QemuVersion) -> Speaker {
        Speaker { as_qemu_img, profile }
    }

    #[test]
    fn under_its_own_name_the_kind_is_told() {
        let failure = Failure::new(ErrorKind::Corrupt, "Could not open 'a': Broken").field(Some("l1".into()));
        let own = speaker(false, QemuVersion::V11_1);
        assert_eq!(failure.render(own), "instar: Could not open 'a': Broken (corrupt: l1)\n");
        assert_eq!(
            failure.render(speaker(true, QemuVersion::V11_1)),
            "qemu-img: Could not open 'a': Broken\n"
        );
    }

    #[test]
    fn help_is_pointed_to_in_each_versions_words() {
        let failure = Failure::grammar("measure", "unrecognized option '--foo'");
        for (profile, text) in [
            (
                QemuVersion::V11_1,
                "qemu-img measure: unrecognized option '--foo'\nTry 'qemu-img measure --help' for more information\n",
            ),
            (
                QemuVersion::V10_0,
                "qemu-img measure: unrecognized option '--foo'\nTry 'qemu-img measure --help' for more info\n",
            ),
            (QemuVersion::V7_2, "measure: unrecognized option '--foo'\n"),
        ] {
            assert_eq!(failure.render(speaker(true, profile)), text);
        }
    }

    #[test]
    fn hints_stand_on_lines_of_their_own() {
        let failure = Failure::new(ErrorKind::Io, "Taken\n\tIs another process there?");
        assert_eq!(
            failure.render(speaker(false, QemuVersion::V11_1)),
            "instar: Taken (io)\nIs another process there?\n"
        );
    }

    #[test]
    fn hostile_messages_stay_small_and_plain() {
        let long = "x".repeat(1 << 20);
        let failure = Failure::new(ErrorKind::GuestFault, format!("\x1b[2J\n{long}\n{}", "y\n".repeat(100)));
        let text = failure.render(speaker(true, QemuVersion::V11_1));
        assert!(text.starts_with("qemu-img: \\x1b[2J\n"));
        assert_eq!(text.lines().count(), MAX_LINES);
        assert!(text.len() < MAX_LINES * (MAX_LINE + 16));
    }
}
