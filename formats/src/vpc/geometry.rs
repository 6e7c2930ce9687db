//! "Disk Geometry": cylinders, heads and sectors per track. Appendix "CHS Calculation".

use super::footer::GEOMETRY_MAX;

/// A geometry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) cylinders: u16,
    pub(super) heads: u8,
    /// Per track.
    pub(super) sectors: u8,
}

impl Geometry {
    /// The largest one. It stands for "look at the size instead".
    pub(super) const MAX: Self = Self { cylinders: 65535, heads: 16, sectors: 255 };

    /// The smallest one for a disk of so many sectors: with the fewest sectors that are not below them; the largest for
    /// what none expresses, and none at all for no sectors.
    pub(super) fn holding(sectors: u64) -> Self {
        if sectors == 0 {
            return Self::default();
        }
        // A geometry leaves out less than a cylinder: 255 sectors for each of 16 heads.
        let candidates = (sectors.min(GEOMETRY_MAX)..=GEOMETRY_MAX).map(Self::of);
        candidates.into_iter().find(|found| found.total() >= sectors).unwrap_or(Self::MAX)
    }

    /// Its sectors.
    pub(super) fn total(self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors)
    }

    /// The one that the specification gives a disk of so many sectors: of at most those, usually fewer.
    fn of(total: u64) -> Self {
        let total = total.min(GEOMETRY_MAX);
        let (sectors, heads) = if total >= 65535 * 16 * 63 {
            (255, 16)
        } else {
            let tracks = total / 17;
            let heads = tracks.div_ceil(1024).max(4);
            match u8::try_from(heads) {
                Ok(heads @ ..=16) if tracks < u64::from(heads) * 1024 => (17, heads),
                _ if total / 31 < 16 * 1024 => (31, 16),
                _ => (63, 16),
            }
        };
        let cylinders = total / u64::from(sectors) / u64::from(heads);
        Self { cylinders: u16::try_from(cylinders).unwrap_or(u16::MAX), heads, sectors }
    }
}
