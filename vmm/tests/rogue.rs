//! A guest that breaks the rules is stopped, each time with its own typed error, and the process lives on.

use std::time::{Duration, Instant};

use instar::{
    devices::DeviceError,
    error::Error,
    launch::{Command, DeviceStart, Disk, Limits, no_parts, run_guest},
    records::StreamError,
};
use protocol::{ErrorKind, Op, RecordError};

const ROGUE: &[u8] = include_bytes!(env!("INSTAR_ROGUE"));

/// Long enough for a loaded machine; every test but those about the deadline ends far sooner.
const TIMEOUT: Duration = Duration::from_secs(20);

fn run_started(deed: &str, timeout: Duration, start: DeviceStart) -> Error {
    let command = Command { start, ..Command::new(Op::Measure, deed.as_bytes().to_vec()) };
    let limits = Limits { memory: 16 << 20, timeout };
    let begin = Instant::now();
    let Err(error) = run_guest(ROGUE, command, &limits, None, &mut no_parts) else {
        panic!("{deed}: a rogue guest has no answer")
    };
    assert!(begin.elapsed() < timeout + TIMEOUT, "{deed} went on after the deadline");
    error
}

/// The deed of a worker beside which there is another one that does the same.
fn run_worker(deed: &str, timeout: Duration) -> Error {
    let command = Command { workers: 2, ..Command::new(Op::Measure, deed.as_bytes().to_vec()) };
    let limits = Limits { memory: 16 << 20, timeout };
    let begin = Instant::now();
    let error = run_guest(ROGUE, command, &limits, None, &mut no_parts).err().expect("no answer");
    assert!(begin.elapsed() < timeout + TIMEOUT, "{deed} went on after the deadline");
    error
}

fn run_for(deed: &str, timeout: Duration) -> Error {
    run_started(deed, timeout, DeviceStart::HandedOver)
}

fn run(deed: &str) -> Error {
    run_for(deed, TIMEOUT)
}

/// The deed ends in a processor fault inside the function `place`.
fn assert_fault(deed: &str, place: &str) {
    assert_is_fault(deed, run(deed), place);
}

fn assert_is_fault(deed: &str, error: Error, place: &str) {
    assert_eq!(error.kind(), ErrorKind::GuestFault);
    match error {
        // SVM does not say where it happened.
        Error::GuestFault { rip: 0xfff0, .. } => {}
        Error::GuestFault { place: found, .. } => assert!(found.contains(place), "{deed}: at {found}"),
        other => panic!("{deed}: {other:?}"),
    }
}

#[test]
fn writing_to_text_is_a_fault() {
    assert_fault("write-text", "rogue::write");
}

#[test]
fn writing_to_read_only_data_is_a_fault() {
    assert_fault("write-rodata", "rogue::write");
}

#[test]
fn executing_data_is_a_fault() {
    match run("execute-data") {
        Error::GuestFault { rip, .. } => assert_ne!(rip, 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn touching_page_0_is_a_fault() {
    assert_fault("touch-null", "rogue::write");
}

#[test]
fn touching_the_page_tables_is_a_fault() {
    assert_fault("touch-page-tables", "rogue::write");
}

#[test]
fn overrunning_the_stack_is_a_fault() {
    assert_fault("overrun-stack", "overrun_stack");
}

#[test]
fn dividing_by_zero_is_a_fault() {
    assert_fault("divide-by-zero", "rogue::");
}

#[test]
fn a_privileged_instruction_is_a_fault() {
    assert_fault("privileged", "rogue::");
}

#[test]
fn touching_a_port_is_a_fault() {
    assert_fault("port", "rogue::");
}

#[test]
fn a_panic_is_reported_with_its_place() {
    match run("panic") {
        Error::GuestPanic(message) => {
            assert!(message.contains("rogue.rs:") && message.ends_with("told to"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn exhausting_memory_is_a_limit() {
    let error = run("exhaust-memory");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("--memory"), "{error}");
}

#[test]
fn spinning_for_ever_ends_at_the_deadline() {
    let error = run_for("spin", Duration::from_millis(300));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("0.3 seconds"), "{error}");
}

#[test]
fn garbage_is_no_answer() {
    match run("garbage") {
        Error::Stream(StreamError::Record(RecordError::Encoding)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_endless_line_is_no_answer() {
    match run("endless-line") {
        Error::Stream(StreamError::LineTooLong) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_line_is_no_answer() {
    match run("endless-records") {
        Error::Stream(StreamError::Record(RecordError::Schema(_))) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_result_is_refused() {
    match run("two-results") {
        Error::Stream(StreamError::Trailing) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_file_is_cut_that_is_not_to_be_written() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let disks = vec![Disk::read_only("source", file.try_clone().unwrap(), 4096)];
    for disks in [vec![], disks] {
        let command = Command { disks, ..Command::new(Op::Measure, b"cut-source".to_vec()) };
        let limits = Limits { memory: 16 << 20, timeout: TIMEOUT };
        let error = run_guest(ROGUE, command, &limits, None, &mut no_parts).err();
        assert!(matches!(error, Some(Error::Stream(StreamError::Length))), "{error:?}");
    }
    assert_eq!(file.metadata().unwrap().len(), 4096);
}

#[test]
fn an_answer_to_another_request_is_refused() {
    match run("wrong-request") {
        Error::Stream(StreamError::Request(77)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fault_of_a_worker_ends_the_command() {
    for (deed, place) in [
        ("worker-touches-null", "rogue::write"),
        ("worker-writes-text", "rogue::write"),
        ("worker-overruns-stack", "overrun_stack"),
        ("worker-divides-by-zero", "rogue::"),
    ] {
        assert_is_fault(deed, run_worker(deed, TIMEOUT), place);
    }
}

#[test]
fn a_worker_may_touch_no_device() {
    for (deed, address) in
        [("worker-touches-console", 0xd000_0000), ("worker-reads-idle-register", 0xd000_1000)]
    {
        match run_worker(deed, TIMEOUT) {
            Error::Device(DeviceError::NoDevice(found)) => assert_eq!(found, address, "{deed}"),
            other => panic!("{deed}: {other:?}"),
        }
    }
}

#[test]
fn a_panic_of_a_worker_is_reported_with_its_place() {
    for (deed, words) in
        [("worker-panics", "told a worker to"), ("worker-uses-heap", "a worker uses the heap")]
    {
        match run_worker(deed, TIMEOUT) {
            Error::GuestPanic(message) => {
                assert!(message.contains(".rs:") && message.ends_with(words), "{message}");
            }
            other => panic!("{deed}: {other:?}"),
        }
    }
}

#[test]
fn workers_end_at_the_deadline_whatever_they_do() {
    for deed in ["worker-spins", "spin"] {
        let error = run_worker(deed, Duration::from_millis(300));
        assert_eq!(error.kind(), ErrorKind::Timeout, "{deed}");
    }
}
