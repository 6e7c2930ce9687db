//! The processors beside the first one: they run jobs of [`crate::workers`], on stacks of their own, and touch neither the
//! heap nor the console.

use core::{
    arch::asm,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use drivers::{Patience, set_idle_register};
use protocol::handover::MAX_WORKERS;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many processors there are beside the first one.
pub fn workers() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Remembers what the machine says of them.
pub(super) fn set_workers(count: u64) {
    COUNT.store(usize::try_from(count).unwrap_or(MAX_WORKERS).min(MAX_WORKERS), Ordering::Relaxed);
}

/// The first thing that a processor beside the first one does.
///
/// # Safety
/// `idle` is the address of the machine's idle register.
pub unsafe fn start_worker(idle: usize) {
    // SAFETY: promised by the caller.
    unsafe { set_idle_register(NonNull::new(idle as *mut u32).expect("a register")) };
}

/// Waits for the machine to end.
pub(super) fn wait_for_ever() -> ! {
    let mut patience = Patience::new();
    loop {
        patience.wait();
    }
}

/// Whether this is the first processor, which owns the heap and the console: who else runs does so on another stack.
pub(super) fn is_first() -> bool {
    unsafe extern "C" {
        /// Both ends of the first processor's stack (linker script).
        static __writable_start: u8;
        static __stack_top: u8;
    }
    let stack: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    (&raw const __writable_start as usize..=&raw const __stack_top as usize).contains(&stack)
}
