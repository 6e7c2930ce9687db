//! How far a command has come, in the steps in which `qemu-img -p` tells it.

use protocol::Progress;

/// Adds up what is done and tells it when it has changed enough. Numbers are as inexact as `qemu-img`'s: sums of single
/// precision, so that both tell the same percentages at the same moments.
pub struct Meter {
    /// Percent done.
    current: f32,
    /// Percent told last.
    told: f32,
    /// Percent that may be done without telling.
    step: f32,
}

impl Meter {
    /// Nothing done; changes are told when they are more than `step` percent.
    pub fn new(step: f32) -> Self {
        Self { current: 0.0, told: 0.0, step }
    }

    /// `part` of `whole` was done. Answers what there is to tell.
    pub fn add(&mut self, part: u64, whole: u64) -> Option<Progress> {
        let percent = if whole == 0 { 0.0 } else { part as f32 / whole as f32 * 100.0 };
        self.set(self.current + percent / 100.0 * 100.0)
    }

    /// `percent` are done in all. Answers what there is to tell.
    pub fn set(&mut self, percent: f32) -> Option<Progress> {
        self.current = percent.min(100.0);
        let told = self.told - self.step..=self.told + self.step;
        if told.contains(&self.current) && self.current != 0.0 && self.current != 100.0 {
            return None;
        }
        self.told = self.current;
        Some(Progress { hundredths: hundredths(self.current) })
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
        let mut meter = Meter::new(step);
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
    fn halves_go_to_the_even_neighbour() {
        for (percent, expected) in [(0.125, 12), (0.375, 38), (12.5, 1250), (99.996, 10_000), (33.333, 3333)]
        {
            assert_eq!(hundredths(percent), expected, "{percent}");
        }
    }
}
