//! The guest's answer, as the host reads it: any bytes in any pieces are the same events, whatever the pieces.
#![no_main]

use instar::records::{Event, MAX_ANSWER, RecordStream};
use libfuzzer_sys::fuzz_target;
use protocol::{Record, parse_record};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut whole = RecordStream::new(1, MAX_ANSWER);
    let taken = whole.push(bytes);
    let mut pieces = RecordStream::new(1, MAX_ANSWER);
    let taken_in_pieces = bytes.chunks(usize::from(piece) + 1).try_for_each(|piece| pieces.push(piece));
    assert_eq!(taken, taken_in_pieces, "pieces make no difference");
    let mut ended = false;
    while let Some(event) = whole.next_event() {
        ended = matches!(event, Event::Ended(_));
        assert_eq!(pieces.next_event(), Some(event));
    }
    assert_eq!(pieces.next_event(), None);
    if taken.is_ok() && ended {
        assert!(whole.push(b"\n").is_err(), "nothing follows the terminal record");
    }

    if let Ok(record) = parse_record(bytes) {
        let line = Record::to_line(&record);
        assert_eq!(parse_record(line.strip_suffix(b"\n").expect("a line")), Ok(record));
    }
});
