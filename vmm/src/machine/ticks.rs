//! The clock that a guest has.

use std::{
    arch::x86_64::_rdtsc,
    hint::spin_loop,
    time::{Duration, Instant},
};

/// Ticks of the time-stamp counter in a millisecond: guests see the same counter, with another start. Takes one.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and Linux leaves it to programs unless they gave it up.
    let now = || unsafe { _rdtsc() };
    let (since, first) = (Instant::now(), now());
    while since.elapsed() < Duration::from_millis(1) {
        spin_loop();
    }
    let (taken, last) = (since.elapsed().as_nanos().max(1), now());
    u64::try_from(u128::from(last.wrapping_sub(first)) * 1_000_000 / taken).unwrap_or(u64::MAX).max(1)
}
