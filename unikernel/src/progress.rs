//! How far a command has come, in the steps in which `qemu-img -p` tells it.

use protocol::{Pace, Progress};

/// Percent between two times that are told with [`Pace::Fine`].
const FINE: f32 = 0.1;

/// Adds up what is done and tells it when it has changed enough. Numbers are as inexact as `qemu-img`'s: sums of single
/// precision, so that both tell the same percentages at the same moments.
pub struct Meter {
    /// Bytes done.
    done: u64,
    /// Percent done.
    current: f32,
    /// Percent told last.
    told: f32,
    /// Percent that may be done without telling.
    step: f32,
}

impl Meter {
    /// Nothing done; `qemu-img` tells of changes that are more than `step` percent.
    pub fn new(step: f32, pace: Pace) -> Self {
        let step = match pace {
            Pace::QemuImg => step,
            Pace::Fine => FINE,
        };
        Self { done: 0, current: 0.0, told: 0.0, step }
    }

    /// `part` of `total` bytes were done. Percentages are added up. Answers what there is to tell.
    pub fn add(&mut self, part: u64, total: u64) -> Option<Progress> {
        self.done += part;
        let percent = if total == 0 { 0.0 } else { part as f32 / total as f32 * 100.0 };
        self.set(self.current + percent / 100.0 * 100.0, total)
    }

    /// `part` of `total` bytes were done. The percentage is that of all that is done. Answers what there is to tell.
    pub fn sum(&mut self, part: u64, total: u64) -> Option<Progress> {
        self.done += part;
        let percent = 100.0 * self.done as f64 / total as f64;
        self.set(percent as f32, total)
    }

    fn set(&mut self, percent: f32, total: u64) -> Option<Progress> {
        self.current = percent.min(100.0);
        let told = self.told - self.step..=self.told + self.step;
        if told.contains(&self.current) && self.current != 0.0 && self.current != 100.0 {
            return None;
        }
        self.told = self.current;
        Some(Progress { hundredths: hundredths(self.current), done: self.done, total })
    }
}

/// Hundredths of a percent from 0 to 10000, a half to the even one, as `%.2f` prints it.
fn hundredths(percent: f32) -> u16 {
    // Exact: 24 digits times 7.
    let exact = f64::from(percent) * 100.0;
    let whole = exact as u16;
    let rest = exact - f64::from(whole);
    whole + u16::from(rest > 0.5 || rest == 0.5 && whole % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(parts: &[u64], whole: u64, step: f32) -> alloc::vec::Vec<u16> {
        let mut meter = Meter::new(step, Pace::QemuImg);
        parts.iter().filter_map(|&part| meter.add(part, whole)).map(|told| told.hundredths).collect()
    }

    #[test]
    fn the_start_the_end_and_steps_are_told() {
        assert_eq!(told(&[0, 1, 1, 1, 97], 100, 2.0), [0, 300, 10_000]);
        assert_eq!(told(&[0, 1, 2], 3, 2.0), [0, 3333, 10_000]);
        assert_eq!(told(&[0, 5], 5, 1.0), [0, 10_000]);
        assert_eq!(told(&[0, 1], 0, 1.0), [0, 0]);
    }

    #[test]
    fn a_fine_pace_tells_bytes_more_often() {
        let mut meter = Meter::new(2.0, Pace::Fine);
        let told: alloc::vec::Vec<_> = [1, 1, 3, 995].map(|part| meter.sum(part, 1000)).into();
        let progress = |hundredths, done| Some(Progress { hundredths, done, total: 1000 });
        assert_eq!(told, [None, progress(20, 2), progress(50, 5), progress(10_000, 1000)]);
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (percent, expected) in [(0.125, 12), (0.375, 38), (12.5, 1250), (99.996, 10_000), (33.333, 3333)]
        {
            assert_eq!(hundredths(percent), expected, "{percent}");
        }
    }
}
