//! The host's console under a driver that does anything: the guest gets the command and nothing else, and what the host
//! takes from it is bounded.
#![no_main]

use instar::devices::{Console, Port};
use instar_fuzz::driver::{Deed, Driver};
use libfuzzer_sys::fuzz_target;

/// Most bytes that wait for the host.
const MAX_UNREAD: usize = 4 << 20;

fuzz_target!(|input: (Vec<u8>, Vec<Deed>)| {
    let (command, deeds) = input;
    let port = Port::saying(command);
    let mut driver = Driver::new(Console::new(port.clone()));
    for deeds in deeds.chunks(16) {
        driver.run(deeds, |_, _| {});
        assert!(port.take().len() <= MAX_UNREAD);
    }
});
