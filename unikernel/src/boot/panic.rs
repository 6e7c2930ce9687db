//! The panic handler: one error record with place and message, made without allocating, then a fault to end the run. Of a
//! worker, who has no console, the first processor sends it.

use core::{
    cell::UnsafeCell,
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicBool, Ordering},
};

use drivers::Console;
use protocol::ErrorKind;
use spin::Mutex;

use super::{
    heap,
    workers::{is_first, wait_for_ever},
};

struct Slot(UnsafeCell<Option<Console>>);

// SAFETY: only the first processor gets to the console: `set_console` and `console` see to that.
unsafe impl Sync for Slot {}

static CONSOLE: Slot = Slot(UnsafeCell::new(None));

/// Puts the console where [`console`] and the panic handler find it.
pub fn set_console(console: Console) {
    assert!(is_first(), "a worker uses the console");
    // SAFETY: one processor, and no reference from `console` is alive before the console is set.
    unsafe { *CONSOLE.0.get() = Some(console) };
}

/// Runs `action` with the console. There is one from the moment [`set_console`] was called.
pub fn console<R>(action: impl FnOnce(&mut Console) -> R) -> Option<R> {
    assert!(is_first(), "a worker uses the console");
    // SAFETY: one processor; the console is taken out while in use, so that a panic inside finds none instead of a
    // second reference.
    let taken = unsafe { (*CONSOLE.0.get()).take() };
    taken.map(|mut console| {
        let result = action(&mut console);
        set_console(console);
        result
    })
}

/// Longest record a panic makes, in bytes.
const MAX_LINE: usize = 1024;

/// Text that keeps inside a JSON string whatever is written to it, and drops what is too long.
struct Line {
    bytes: [u8; MAX_LINE],
    length: usize,
}

impl Line {
    fn push(&mut self, byte: u8, reserve: usize) {
        if self.length + reserve < MAX_LINE {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }

    fn push_json(&mut self, text: &str) {
        for byte in text.bytes() {
            self.push(byte, 0);
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let plain = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
            self.push(if plain { byte } else { b'\'' }, 8);
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let mut line = Line { bytes: [0; MAX_LINE], length: 0 };
    let exhausted = heap::exhausted();
    let kind = if exhausted { ErrorKind::Limit } else { ErrorKind::GuestFault };
    line.push_json("{\"record\":\"error\",\"request_id\":0,\"error\":{\"kind\":\"");
    line.push_json(kind.name());
    line.push_json("\",\"message\":\"");
    if exhausted {
        let _ = line.write_str("guest memory is exhausted (see --memory)");
    } else {
        let place = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
        let _ = write!(line, "{}:{}: {}", place.0, place.1, info.message());
    }
    line.push_json("\"}}\n");
    if is_first() {
        end(&line)
    }
    LAST_WORDS.lock().get_or_insert(line);
    HAS_PANICKED.store(true, Ordering::Release);
    wait_for_ever()
}

/// The record of the first worker that panicked.
static LAST_WORDS: Mutex<Option<Line>> = Mutex::new(None);
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// Sends the record of a worker that has panicked, if there is one, and ends the run. For the first processor, when it waits
/// for workers.
pub fn end_if_a_worker_panicked() {
    if HAS_PANICKED.load(Ordering::Acquire)
        && let Some(line) = LAST_WORDS.lock().as_ref()
    {
        end(line)
    }
}

/// Sends a record, and ends the run.
fn end(line: &Line) -> ! {
    console(|console| console.write(&line.bytes[..line.length]));
    // SAFETY: no more than a fault: without a handler it ends the machine.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
