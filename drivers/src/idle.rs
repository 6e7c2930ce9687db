//! Waiting for another processor or for a device, without keeping a processor of the host busy for long.

use core::{
    arch::x86_64::_rdtsc,
    hint::spin_loop,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicPtr, Ordering},
};

/// Ticks of the time-stamp counter for which one spins: some tens of microseconds, about what an exit takes.
const SPIN: u64 = 100_000;

/// Microseconds that one sleeps who waits: shorter than what a cluster takes to compress.
const SLEEP: u32 = 50;

/// Ticks, some milliseconds of them, after which who [rests](Patience::rest) sleeps for longer, and for how many microseconds.
const LONG: u64 = 10_000_000;
const LONG_SLEEP: u32 = 2000;

/// The idle register, if the machine has one.
static REGISTER: AtomicPtr<u32> = AtomicPtr::new(null_mut());

/// The time-stamp counter of the processor.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and machines leave it to ring 3.
    unsafe { _rdtsc() }
}

/// From now on who waits for long writes to `register` for how many microseconds it shall be put to sleep.
///
/// # Safety
/// `register` is mapped, and is the machine's idle register.
pub unsafe fn set_idle_register(register: NonNull<u32>) {
    REGISTER.store(register.as_ptr(), Ordering::Relaxed);
}

/// One wait for one thing: ask for the thing, [`wait`](Self::wait), ask again.
#[derive(Debug, Default)]
pub struct Patience {
    /// When it began.
    since: Option<u64>,
}

impl Patience {
    /// A wait that begins with the first call of [`wait`](Self::wait).
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for a moment: spins at first, then sleeps, where the machine can.
    pub fn wait(&mut self) {
        self.sleep(SLEEP);
    }

    /// As [`wait`](Self::wait), for what may not come for long: sleeps for longer when it has waited for some milliseconds.
    pub fn rest(&mut self) {
        let is_long = self.since.is_some_and(|since| ticks().wrapping_sub(since) > LONG);
        self.sleep(if is_long { LONG_SLEEP } else { SLEEP });
    }

    fn sleep(&mut self, microseconds: u32) {
        let now = ticks();
        let since = *self.since.get_or_insert(now);
        let register = REGISTER.load(Ordering::Relaxed);
        if register.is_null() || now.wrapping_sub(since) < SPIN {
            spin_loop();
        } else {
            // SAFETY: promised to `set_idle_register`.
            unsafe { register.write_volatile(microseconds) };
        }
    }
}
