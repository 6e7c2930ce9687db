//! A bound on how fast a command writes.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    time::{ClockId, ClockNanosleepFlags, clock_nanosleep},
};

/// What may be written ahead of time: what the rate allows in a tenth of a second, as in `qemu-img`.
const AHEAD: Duration = Duration::from_millis(100);

/// The longest sleep: who [ends](Throttle::end) the command waits no longer.
const NAP: Duration = Duration::from_millis(20);

/// Bytes a second, for all files of a command together: a bucket that leaks at this rate, is filled by what is written, and makes
/// everybody wait while there is more in it than the rate allows in a tenth of a second.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes a second, not 0.
    rate: u64,
    /// When the bucket will be empty.
    empty: Mutex<Instant>,
    ended: AtomicBool,
}

impl Throttle {
    /// A bound of `rate` bytes a second; none if that is 0.
    pub fn new(rate: u64) -> Option<Self> {
        let empty = Mutex::new(Instant::now());
        (rate > 0).then_some(Self { rate, empty, ended: AtomicBool::new(false) })
    }

    /// Waits until `bytes` more may be written, which count from then on; or until a signal comes to this thread, whose handler
    /// wants it to go on. An error after the [end](Self::end).
    pub fn wait(&self, bytes: u64) -> io::Result<()> {
        loop {
            if self.ended.load(Ordering::Acquire) {
                return Err(Errno::ECANCELED.into());
            }
            let now = Instant::now();
            let left = self.left(now);
            let nap = left.min(NAP).into();
            if left.is_zero()
                || clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &nap)
                    == Err(Errno::EINTR)
            {
                self.fill(bytes, now);
                return Ok(());
            }
        }
    }

    /// Whoever waits does no longer, and nothing is written any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// How long to wait from `now` on before the next write.
    fn left(&self, now: Instant) -> Duration {
        self.empty().saturating_duration_since(now).saturating_sub(AHEAD)
    }

    /// `bytes` are written.
    fn fill(&self, bytes: u64, now: Instant) {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (*empty).max(now);
        *empty = from.checked_add(time).unwrap_or(from);
    }

    fn empty(&self) -> Instant {
        *self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_has_written_too_much_waits_for_as_long_as_that_takes() {
        assert!(Throttle::new(0).is_none());
        let throttle = Throttle::new(1000).unwrap();
        let start = throttle.empty();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(throttle.left(start), Duration::ZERO);
        throttle.fill(100, start);
        assert_eq!(throttle.left(start), Duration::ZERO);
        throttle.fill(1000, start);
        assert_eq!(throttle.left(start), Duration::from_secs(1));
        assert_eq!(throttle.left(after(600)), Duration::from_millis(400));
        assert_eq!(throttle.left(after(1000)), Duration::ZERO);
        // What was not written in time is not made up for.
        throttle.fill(500, after(5000));
        assert_eq!(throttle.left(after(5000)), Duration::from_millis(400));
        throttle.fill(u64::MAX, after(5000));
        assert!(throttle.left(after(5000)) > Duration::from_secs(1 << 32));
    }

    #[test]
    fn nobody_waits_beyond_the_end() {
        let throttle = Throttle::new(1).unwrap();
        throttle.wait(1 << 30).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| throttle.wait(1));
            thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            throttle.end();
            assert!(waiting.join().unwrap().is_err());
        });
        assert!(throttle.wait(1).is_err());
    }
}
