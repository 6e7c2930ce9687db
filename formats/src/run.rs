//! Runs of table entries: neighbours of one kind become one extent.

use crate::{Extent, ExtentKind};

/// What an entry says of its part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing: the image below decides.
    Unallocated,
    /// That it is zero.
    Zero,
    /// Where it begins in the file.
    Data(u64),
    /// Where the compressed stream is in the file, and the most it can be long.
    Compressed { offset: u64, length: u64 },
    /// Nothing that makes sense.
    Invalid,
}

impl Place {
    /// The same place `distance` bytes on, if a run can go on there.
    fn advanced(self, distance: u64) -> Option<Self> {
        match self {
            Self::Unallocated | Self::Zero => Some(self),
            Self::Data(offset) => offset.checked_add(distance).map(Self::Data),
            Self::Compressed { .. } | Self::Invalid => None,
        }
    }

    /// The extent of `length` bytes at the virtual offset `start`, `within` bytes into this place; none if the place
    /// is invalid.
    pub(crate) fn extent(self, start: u64, within: u64, length: u64) -> Option<Extent> {
        let kind = match self {
            Self::Unallocated => ExtentKind::Unallocated { offset: None },
            Self::Zero => ExtentKind::Zero { offset: None },
            Self::Data(offset) => ExtentKind::Data { offset: offset.checked_add(within)? },
            Self::Compressed { offset, length } => ExtentKind::Compressed { offset, length },
            Self::Invalid => return None,
        };
        Some(Extent::own(start, length, kind))
    }
}

/// The first of `places` and the bytes that it goes on for, each place being `unit` bytes. There is at least one.
pub(crate) fn run(mut places: impl Iterator<Item = Place>, unit: u64) -> (Place, u64) {
    let first = places.next().unwrap_or(Place::Unallocated);
    let mut length = unit;
    for place in places {
        if first.advanced(length) != Some(place) {
            break;
        }
        match length.checked_add(unit) {
            Some(longer) => length = longer,
            None => break,
        }
    }
    (first, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Place::{Compressed, Data, Invalid, Unallocated, Zero};

    #[test]
    fn neighbours_of_one_kind_are_one_run() {
        let run = |places: &[Place]| run(places.iter().copied(), 16);
        assert_eq!(run(&[Zero, Zero, Unallocated]), (Zero, 32));
        assert_eq!(run(&[Data(0), Data(16), Data(32), Data(64)]), (Data(0), 48));
        assert_eq!(run(&[Data(u64::MAX), Data(15)]), (Data(u64::MAX), 16));
        let stream = Compressed { offset: 1, length: 2 };
        assert_eq!(run(&[stream, stream]), (stream, 16));
        assert_eq!(run(&[Invalid, Invalid]), (Invalid, 16));
        assert_eq!(Invalid.extent(0, 0, 1), None);
        assert_eq!(Data(u64::MAX).extent(0, 1, 1), None);
    }
}
