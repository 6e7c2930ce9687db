//! The host's command, as the guest reads it: header, payload, and the words of the kernel command line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{CommandHeader, HEADER_LENGTH, MeasureRequest, handover::Handover};

fuzz_target!(|bytes: &[u8]| {
    if let Some((head, payload)) = bytes.split_first_chunk::<HEADER_LENGTH>() {
        if let Ok(header) = CommandHeader::decode(head) {
            assert_eq!(header.encode(), *head, "what is accepted is all there is");
        }
        payload_is_read(payload);
    }
    payload_is_read(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(word) = Handover::parse(text)
    {
        let again = word.to_string();
        assert_eq!(Handover::parse(&again), Some(word));
    }
});

fn payload_is_read(payload: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<MeasureRequest>(payload) {
        let again = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<MeasureRequest>(&again).expect("its own JSON"), request);
    }
}
