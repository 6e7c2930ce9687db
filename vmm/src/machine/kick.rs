//! Getting a vCPU out of the guest: a signal to its thread, whose handler sets `immediate_exit`, sent by a timer when
//! the deadline has passed or by another thread that has news.

use std::{
    cell::Cell,
    io,
    mem::zeroed,
    ptr::null_mut,
    sync::Once,
    time::{Duration, Instant},
};

use super::MachineError;

/// The shortest time a timer is armed for: it takes zero as "disarm".
const SHORTEST: Duration = Duration::from_nanos(1);

/// After the deadline the signal is repeated this often, should one have come between two runs of the vCPU.
const REPEAT: Duration = Duration::from_millis(20);

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

extern "C" fn handle_kick(_: libc::c_int) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: `Target` keeps the pointer valid while it is set, in the thread that runs this handler.
        unsafe { flag.write_volatile(1) };
    }
}

fn install_handler() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler is async-signal-safe; all-zero is a valid sigaction with an empty mask and no flags.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = handle_kick as *const () as usize;
            libc::sigaction(libc::SIGRTMIN(), &action, null_mut());
        }
    });
}

/// While it lives, a kick of this thread sets the flag it was made with.
pub struct Target(());

impl Target {
    /// Makes the calling thread one that can be kicked.
    ///
    /// # Safety
    /// `immediate_exit` stays valid until the value is dropped, in this thread.
    pub unsafe fn new(immediate_exit: *mut u8) -> Self {
        install_handler();
        IMMEDIATE_EXIT.set(immediate_exit);
        Self(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}

/// Kicks the thread it was made in.
#[derive(Clone, Copy)]
pub struct Kicker {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl Kicker {
    /// A kicker of the calling thread.
    pub fn of_this_thread() -> Self {
        install_handler();
        // SAFETY: both calls only ask for a number.
        unsafe { Self { process: libc::getpid(), thread: libc::gettid() } }
    }

    /// Ends the current or next run of the thread's vCPU.
    pub fn kick(&self) {
        // SAFETY: the signal has a handler, and goes to a thread of this process or nowhere.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, libc::SIGRTMIN()) };
    }
}

/// The moment at which the run of the calling thread's vCPU ends, whatever the guest does.
pub struct Deadline {
    timer: libc::timer_t,
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Arms a timer for the calling thread. A `timeout` of zero has passed at once.
    pub fn arm(timeout: Duration) -> Result<Self, MachineError> {
        install_handler();
        let failed = || MachineError::Deadline(io::Error::last_os_error());
        let mut timer = null_mut();
        // SAFETY: all-zero is a valid sigevent; the timer id is written to a local.
        let created = unsafe {
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGRTMIN();
            event.sigev_notify_thread_id = libc::gettid();
            libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer)
        };
        if created != 0 {
            return Err(failed());
        }
        let deadline = Self { timer, at: Instant::now() + timeout, timeout };
        let times =
            libc::itimerspec { it_value: timespec(timeout.max(SHORTEST)), it_interval: timespec(REPEAT) };
        // SAFETY: the timer is ours, the times are a local.
        if unsafe { libc::timer_settime(timer, 0, &times, null_mut()) } != 0 {
            return Err(failed());
        }
        Ok(deadline)
    }

    /// Whether the time is over.
    pub fn passed(&self) -> bool {
        Instant::now() >= self.at
    }

    /// The time that was given.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_timeout_of_zero_kicks_as_any_other_does() {
        let mut flag = 0_u8;
        let flag = &raw mut flag;
        // SAFETY: the flag lives as long as this function, which is in this thread.
        let target = unsafe { Target::new(flag) };
        let deadline = Deadline::arm(Duration::ZERO).unwrap();
        assert!(deadline.passed());
        let patience = Instant::now() + Duration::from_secs(60);
        // SAFETY: as above; the handler writes in this thread.
        while unsafe { flag.read_volatile() } == 0 {
            assert!(Instant::now() < patience, "the timer is disarmed");
            thread::sleep(Duration::from_millis(1));
        }
        drop((deadline, target));
    }
}
