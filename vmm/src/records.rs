//! The guest's answer as a stream of bytes that may be anything: lines are bounded, parsed strictly, and exactly one
//! of them is terminal.

use std::collections::VecDeque;

use protocol::{Answer, ErrorRecord, MAX_RECORD, Need, Part, Record, RecordError, parse_record};
use thiserror::Error;

/// Most bytes a guest may send in answer to a command whose answer is kept until it is whole.
pub const MAX_ANSWER: u64 = 16 << 20;

/// Why bytes from the guest are not a valid answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StreamError {
    /// A line is not a record.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// A line longer than any record, not ended yet.
    #[error("record is longer than {MAX_RECORD} bytes")]
    LineTooLong,
    /// More bytes than the command may have in answer.
    #[error("answer is longer than {0} bytes")]
    TooLong(u64),
    /// A record for a command that was not given.
    #[error("record is for request {0}")]
    Request(u64),
    /// An answer, or a part of one, that is another operation's.
    #[error("answer is another operation's")]
    Operation,
    /// The length of a file that is not to be changed, or out of bounds.
    #[error("a file is to get a length that it cannot have")]
    Length,
    /// Something behind the terminal record.
    #[error("data behind the terminal record")]
    Trailing,
}

/// How the guest ended the command.
pub type Outcome = Result<Answer, ErrorRecord>;

/// What the guest said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It waits for a file.
    Need(Need),
    /// The file of a disk shall be this long.
    Length {
        /// Serial of the disk.
        disk: String,
        /// Bytes.
        length: u64,
    },
    /// A part of the answer.
    Part(Part),
    /// The command has ended; nothing follows.
    Ended(Outcome),
}

/// The records received for one command.
#[derive(Debug)]
pub struct RecordStream {
    request_id: u64,
    line: Vec<u8>,
    received: u64,
    max: u64,
    /// Whether the terminal record is there: nothing may follow it, even when it was taken.
    ended: bool,
    events: VecDeque<Event>,
}

impl RecordStream {
    /// Nothing received yet for the command `request_id`, whose answer may have `max` bytes.
    pub fn new(request_id: u64, max: u64) -> Self {
        Self { request_id, line: Vec::new(), received: 0, max, ended: false, events: VecDeque::new() }
    }

    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > self.max {
            return Err(StreamError::TooLong(self.max));
        }
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.ended {
                return Err(StreamError::Trailing);
            }
            match part.strip_suffix(b"\n") {
                Some(end) => {
                    self.extend_line(end)?;
                    let line = std::mem::take(&mut self.line);
                    self.take_record(parse_record(&line)?)?;
                }
                None => self.extend_line(part)?,
            }
        }
        Ok(())
    }

    /// What the guest said next; each record is given once.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn extend_line(&mut self, part: &[u8]) -> Result<(), StreamError> {
        if self.line.len() + part.len() > MAX_RECORD {
            return Err(StreamError::LineTooLong);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_record(&mut self, record: Record) -> Result<(), StreamError> {
        let (request_id, event) = match record {
            Record::Need { request_id, need } => (request_id, Event::Need(need)),
            Record::Length { request_id, disk, length } => (request_id, Event::Length { disk, length }),
            Record::Part { request_id, part } => (request_id, Event::Part(part)),
            Record::Result { request_id, answer } => (request_id, Event::Ended(Ok(answer))),
            Record::Error { request_id, error } => (request_id, Event::Ended(Err(error))),
        };
        // A guest that failed before it knew the command says 0.
        let early = request_id == 0 && matches!(event, Event::Ended(Err(_)));
        if request_id != self.request_id && !early {
            return Err(StreamError::Request(request_id));
        }
        self.ended = matches!(event, Event::Ended(_));
        self.events.push_back(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &[u8] =
        b"{\"record\":\"result\",\"request_id\":1,\"answer\":{\"measure\":{\"required\":1,\"fully-allocated\":2}}}\n";

    fn push_all(chunks: &[&[u8]]) -> Result<RecordStream, StreamError> {
        let mut stream = RecordStream::new(1, MAX_ANSWER);
        for chunk in chunks {
            stream.push(chunk)?;
        }
        Ok(stream)
    }

    #[test]
    fn a_record_in_pieces_is_a_record() {
        let pieces: Vec<&[u8]> = RESULT.chunks(1).collect();
        let mut stream = push_all(&pieces).unwrap();
        assert!(matches!(stream.next_event(), Some(Event::Ended(Ok(_)))));
        assert_eq!(stream.next_event(), None);
    }

    #[test]
    fn a_record_without_its_newline_is_not_the_end() {
        assert_eq!(push_all(&[&RESULT[..RESULT.len() - 1]]).unwrap().next_event(), None);
    }

    #[test]
    fn whatever_follows_the_terminal_record_is_refused() {
        assert_eq!(push_all(&[RESULT, b"\n"]).unwrap_err(), StreamError::Trailing);
        assert_eq!(push_all(&[&[RESULT, RESULT].concat()]).unwrap_err(), StreamError::Trailing);
        let mut taken = push_all(&[RESULT]).unwrap();
        taken.next_event();
        assert_eq!(taken.push(b"\n"), Err(StreamError::Trailing));
    }

    #[test]
    fn a_record_for_another_request_is_refused() {
        let other = String::from_utf8(RESULT.to_vec()).unwrap().replace("_id\":1", "_id\":2");
        assert_eq!(push_all(&[other.as_bytes()]).unwrap_err(), StreamError::Request(2));
    }

    #[test]
    fn lines_and_answers_are_bounded() {
        assert_eq!(push_all(&[&vec![b'x'; MAX_RECORD], b"x"]).unwrap_err(), StreamError::LineTooLong);
        let mut stream = RecordStream::new(1, 20);
        assert_eq!(stream.push(&[b'\n'; 21]), Err(StreamError::TooLong(20)));
    }

    #[test]
    fn an_error_before_the_command_was_known_counts() {
        let line =
            b"{\"record\":\"error\",\"request_id\":0,\"error\":{\"kind\":\"limit\",\"message\":\"m\"}}\n";
        assert!(matches!(push_all(&[line]).unwrap().next_event(), Some(Event::Ended(Err(_)))));
    }

    #[test]
    fn needs_come_in_their_order_and_end_nothing() {
        let need = |name: &str| {
            let text =
                r#"{"record":"need","request_id":1,"need":{"name":"NAME","role":"backing","of":"source"}}"#;
            text.replace("NAME", name) + "\n"
        };
        let mut stream = push_all(&[need("a").as_bytes(), need("b").as_bytes(), RESULT]).unwrap();
        let mut names = Vec::new();
        while let Some(Event::Need(need)) = stream.next_event() {
            names.push(need.name);
        }
        assert_eq!(names, ["a", "b"]);
    }
}
