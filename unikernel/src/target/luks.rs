//! LUKS headers of new images: how much work their password is worth on this processor.

use alloc::{format, string::String};

use formats::luks::{Encryption, NewHeader};
use protocol::{ErrorKind, ErrorRecord};

use super::{NewImage, random::Random};
use crate::{options::LuksWords, source::record};

/// Milliseconds that unlocking an image takes (`iter-time`), if nothing is said.
const ITER_TIME: u64 = 2000;
/// The digest of the master key takes this part of that.
const DIGEST_PART: u64 = 8;
/// Iterations of the first trial.
const FIRST_TRIAL: u32 = 1 << 10;
/// Milliseconds that a trial takes before it counts.
const TRIAL_TIME: u64 = 4;
/// Trials that count. The fastest is believed: another guest may have had the processor during the others.
const TRIALS: u32 = 4;

/// A header for what the words say. Takes [`ITER_TIME`], or what was asked for instead.
pub fn header(
    words: &LuksWords<'_>,
    password: &str,
    new: &NewImage<'_>,
    random: &mut Random,
) -> Result<NewHeader, ErrorRecord> {
    words.together(new.profile)?;
    let plain = Encryption::new(password.as_bytes(), 0);
    let mut how = Encryption {
        cipher: words.cipher,
        mode: words.mode,
        iv_generator: words.generator.unwrap_or(plain.iv_generator),
        iv_hash: words.generator_hash,
        hash: words.hash,
        ..plain
    };
    if new.chance.ticks > 0 {
        // What is negative is a very long time.
        let time = words.iter_time.map_or(ITER_TIME, i64::cast_unsigned);
        how.digest_iterations =
            iterations(speed(new.chance.ticks, |count| how.digest_cost(count))?, time, DIGEST_PART)?;
        how.slot_iterations = iterations(speed(new.chance.ticks, |count| how.slot_cost(count))?, time, 1)?;
    }
    NewHeader::new(&how, &mut |bytes| random.fill(bytes)).map_err(record)
}

/// Iterations in a second, of work that is done `count` times.
fn speed(ticks: u64, mut work: impl FnMut(u32) -> Result<(), formats::Error>) -> Result<u64, ErrorRecord> {
    let mut time = |count| {
        let start = drivers::ticks();
        work(count).map_err(record)?;
        Ok(drivers::ticks().wrapping_sub(start).max(1))
    };
    let (mut count, mut taken) = (FIRST_TRIAL, time(FIRST_TRIAL)?);
    while taken / ticks < TRIAL_TIME && count < 1 << 30 {
        count *= 2;
        taken = time(count)?;
    }
    for _ in 1..TRIALS {
        taken = taken.min(time(count)?);
    }
    let in_a_second = u128::from(count) * u128::from(ticks) * 1000 / u128::from(taken);
    Ok(u64::try_from(in_a_second).unwrap_or(u64::MAX))
}

/// Iterations that take a part of `time` milliseconds.
fn iterations(in_a_second: u64, time: u64, part: u64) -> Result<u32, ErrorRecord> {
    let error = |message: String| ErrorRecord::new(ErrorKind::Limit, message);
    let too_large = || error(format!("PBKDF iterations {in_a_second} too large to scale"));
    let count = in_a_second.checked_mul(time).ok_or_else(too_large)? / 1000 / part;
    u32::try_from(count).map_err(|_| error(format!("PBKDF iterations {count} larger than {}", u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_those_of_the_time() {
        assert_eq!(iterations(8_000_000, 2000, 1), Ok(16_000_000));
        assert_eq!(iterations(8_000_000, 2000, DIGEST_PART), Ok(2_000_000));
        assert_eq!(iterations(8_000_000, 0, 1), Ok(0));
        let message = |time| iterations(8_000_000, time, 1).unwrap_err().message;
        assert_eq!(message(u64::MAX), "PBKDF iterations 8000000 too large to scale");
        assert_eq!(message(1_000_000), "PBKDF iterations 8000000000 larger than 4294967295");
    }

    #[test]
    fn speed_is_what_the_counter_says() {
        let spin = |count: u32| {
            let start = drivers::ticks();
            while drivers::ticks().wrapping_sub(start) < u64::from(count) * 100 {
                core::hint::spin_loop();
            }
            Ok(())
        };
        // A hundred ticks each, a million ticks in a millisecond.
        let found = speed(1_000_000, spin).unwrap();
        assert!((8_000_000..=10_000_000).contains(&found), "{found}");
    }
}
