//! The records a guest streams back: one JSON object a line, exactly one of them terminal.
//!
//! To the host a record is hostile input: [`parse_record`] bounds its length and depth, demands UTF-8 and refuses
//! unknown fields.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    CheckAnswer, CheckPart, CompareAnswer, ComparePart, ConvertAnswer, ConvertPart, CreateAnswer, CreatePart,
    ImageInfo, InfoPart, InspectAnswer, InspectPart, MapAnswer, MapPart, MeasureAnswer, Need, OptionsAnswer,
};

/// Longest record in bytes, its newline not counted.
pub const MAX_RECORD: usize = 64 << 10;

/// One line from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "record")]
pub enum Record {
    /// A file is wanted that an image names: the guest waits for a [`Reply`](crate::Reply).
    Need {
        /// The id of the command that wants it.
        request_id: u64,
        /// Which file.
        need: Need,
    },
    /// A file that is written to shall be this long. It grows by whole sectors where it is written to; this cuts it
    /// to what it should be.
    Length {
        /// The id of the command that writes.
        request_id: u64,
        /// Serial of the disk.
        disk: String,
        /// Length of the file in bytes.
        length: u64,
    },
    /// What was found so far, where all of it does not fit into one record.
    Part {
        /// The id of the command that found it.
        request_id: u64,
        /// What was found.
        part: Part,
    },
    /// Terminal: the command succeeded.
    Result {
        /// The id of the command this answers.
        request_id: u64,
        /// What was found.
        answer: Answer,
    },
    /// Terminal: the command failed.
    Error {
        /// The id of the command this answers.
        request_id: u64,
        /// Why.
        error: ErrorRecord,
    },
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Part {
    /// Of [`Op::Info`](crate::Op::Info).
    Info(InfoPart),
    /// Of [`Op::Check`](crate::Op::Check).
    Check(CheckPart),
    /// Of [`Op::Inspect`](crate::Op::Inspect).
    Inspect(InspectPart),
    /// Of [`Op::Map`](crate::Op::Map).
    Map(MapPart),
    /// Of [`Op::Convert`](crate::Op::Convert).
    Convert(ConvertPart),
    /// Of [`Op::Create`](crate::Op::Create).
    Create(CreatePart),
    /// Of [`Op::Compare`](crate::Op::Compare).
    Compare(ComparePart),
}

/// The answer of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Answer {
    /// Of [`Op::Measure`](crate::Op::Measure).
    Measure(MeasureAnswer),
    /// Of [`Op::Options`](crate::Op::Options).
    Options(OptionsAnswer),
    /// Of [`Op::Info`](crate::Op::Info).
    Info(Box<ImageInfo>),
    /// Of [`Op::Check`](crate::Op::Check).
    Check(CheckAnswer),
    /// Of [`Op::Inspect`](crate::Op::Inspect).
    Inspect(Box<InspectAnswer>),
    /// Of [`Op::Map`](crate::Op::Map).
    Map(MapAnswer),
    /// Of [`Op::Convert`](crate::Op::Convert).
    Convert(ConvertAnswer),
    /// Of [`Op::Create`](crate::Op::Create).
    Create(CreateAnswer),
    /// Of [`Op::Compare`](crate::Op::Compare).
    Compare(CompareAnswer),
}

/// The class of a failure; stable, for callers to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Reading or writing a file failed.
    Io,
    /// Not an image of that format, or its header breaks the specification.
    InvalidFormat,
    /// A valid image, option or format that is not supported.
    Unsupported,
    /// The tables behind a valid header are broken.
    Corrupt,
    /// A name inside the image was not followed.
    ReferenceDenied,
    /// A bound on work or memory was met.
    Limit,
    /// The unikernel panicked, faulted or spoke nonsense.
    GuestFault,
    /// The deadline passed.
    Timeout,
    /// The command itself is wrong.
    Usage,
}

impl ErrorKind {
    /// The kind as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::InvalidFormat => "invalid-format",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::ReferenceDenied => "reference-denied",
            Self::Limit => "limit",
            Self::GuestFault => "guest-fault",
            Self::Timeout => "timeout",
            Self::Usage => "usage",
        }
    }
}

/// A typed failure, ready to be printed but for the file's name, which only the host knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRecord {
    /// The class.
    pub kind: ErrorKind,
    /// One or more lines in `qemu-img`'s words where it has some.
    pub message: String,
    /// Serial of the disk whose image could not be opened: the message is printed behind `Could not open 'FILE': `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The field or structure to blame, as the format's specification spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ErrorRecord {
    /// A failure that blames no file.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), disk: None, field: None }
    }
}

impl core::fmt::Display for ErrorRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why a line is not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Longer than [`MAX_RECORD`].
    TooLong,
    /// Not UTF-8.
    Encoding,
    /// Not JSON, or not of the schema.
    Schema(String),
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => write!(f, "record is longer than {MAX_RECORD} bytes"),
            Self::Encoding => f.write_str("record is not UTF-8"),
            Self::Schema(why) => write!(f, "record is not of the schema: {why}"),
        }
    }
}

impl core::error::Error for RecordError {}

impl Record {
    /// The record as one line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        // Serialising these types cannot fail: no map keys other than strings, no fallible Serialize of our own.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Reads one line (without its newline) as a record.
pub fn parse_record(line: &[u8]) -> Result<Record, RecordError> {
    if line.len() > MAX_RECORD {
        return Err(RecordError::TooLong);
    }
    let text = core::str::from_utf8(line).map_err(|_| RecordError::Encoding)?;
    serde_json::from_str(text).map_err(|error| RecordError::Schema(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn result() -> Record {
        let answer = MeasureAnswer { required: 1, fully_allocated: u64::MAX, bitmaps: None };
        Record::Result { request_id: 7, answer: Answer::Measure(answer) }
    }

    #[test]
    fn records_survive_the_wire() {
        let error = Record::Error {
            request_id: 7,
            error: ErrorRecord {
                kind: ErrorKind::Corrupt,
                message: "two\nlines".into(),
                disk: Some("source".into()),
                field: Some("l1_size".into()),
            },
        };
        for record in [result(), error] {
            let line = record.to_line();
            assert_eq!(parse_record(&line[..line.len() - 1]), Ok(record));
        }
    }

    #[test]
    fn the_text_is_the_documented_one() {
        assert_eq!(
            core::str::from_utf8(&result().to_line()),
            Ok(
                "{\"record\":\"result\",\"request_id\":7,\"answer\":{\"measure\":{\"required\":1,\"fully-allocated\":18446744073709551615}}}\n"
            )
        );
    }

    #[test]
    fn hostile_lines_are_refused() {
        assert_eq!(parse_record(&vec![b' '; MAX_RECORD + 1]), Err(RecordError::TooLong));
        assert_eq!(parse_record(b"\xff{}"), Err(RecordError::Encoding));
        let nested = "[".repeat(1000);
        for line in [
            "",
            "{}",
            "null",
            nested.as_str(),
            r#"{"record":"result","request_id":7,"answer":{"measure":{"required":1,"fully-allocated":2,"x":3}}}"#,
            r#"{"record":"result","request_id":7,"answer":{"measure":{"required":-1,"fully-allocated":2}}}"#,
            r#"{"record":"result","request_id":7,"answer":{"measure":{"required":1e99,"fully-allocated":2}}}"#,
            r#"{"record":"result","request_id":7,"answer":{"measure":{"required":1,"fully-allocated":2}},"more":1}"#,
            r#"{"record":"result","request_id":7,"answer":{"measure":{"required":1,"fully-allocated":2}}} trailing"#,
            r#"{"record":"surprise","request_id":7}"#,
        ] {
            assert!(matches!(parse_record(line.as_bytes()), Err(RecordError::Schema(_))), "{line}");
        }
    }
}
