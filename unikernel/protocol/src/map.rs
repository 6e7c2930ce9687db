//! The `map` operation.
//!
//! A disk can have more extents than fit into anybody's memory, so they go from guest to host in [parts](MapPart) as
//! they are found, a few characters each.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{ImageSource, QemuVersion, Secret};

/// Which part of a disk to map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapRequest {
    /// Whose wording error messages follow, and whose rules which neighbours are one extent.
    pub profile: QemuVersion,
    /// Where the image is.
    pub source: Box<ImageSource>,
    /// Keys of encrypted images.
    pub secrets: Vec<Secret>,
    /// First byte of the disk, below 2^63. It may be past the end.
    pub start: u64,
    /// End of the part, if it ends before the disk does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// What was found before the terminal record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum MapPart {
    /// The image is open. The first part.
    Disk {
        /// Length of the disk in bytes, below 2^63.
        length: u64,
    },
    /// Extents, the first of which begins where the last one before it has ended.
    Extents {
        /// The kinds of extents in this part.
        kinds: Vec<MapKind>,
        /// The extents, as [`MapWriter`] writes them.
        runs: String,
    },
}

/// What extents have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapKind {
    /// Images above the one that decides.
    pub depth: u32,
    /// Whether an image of the chain has it.
    pub present: bool,
    /// Whether it reads as zeros.
    pub zero: bool,
    /// Whether there is data for it, or room where data would be.
    pub data: bool,
    /// Whether the data is compressed.
    pub compressed: bool,
    /// Serial of the disk that it lies on as it is; without one its extents have no offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The answer once all extents were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapAnswer {
    /// How many there were.
    pub extents: u64,
}

/// An extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRun {
    /// Which of the kinds of its part it has.
    pub kind: usize,
    /// Its length in bytes.
    pub length: u64,
    /// Where it lies in its file, in bytes; the kind says whether that means something.
    pub offset: u64,
}

/// The characters of a number, five bits each from the lowest on, plus 32 where more follow: Base64 VLQ, as source maps
/// have it.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What each byte is worth as a digit; 255 for those that are none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut digit = 0_u8;
    while digit < 64 {
        values[DIGITS[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// The flag of a digit behind which there are more.
const MORE: u8 = 32;

/// Writes the extents of one part.
///
/// Of each its kind and its length are written, and where the kind has a file, how far its offset is from where the last
/// one that had an offset ended, doubled, and one less than that with its sign turned where it is negative.
#[derive(Debug, Default)]
pub struct MapWriter {
    runs: String,
    expected: u64,
}

impl MapWriter {
    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds an extent; `has_offset` is whether its kind has a file.
    pub fn push(&mut self, run: MapRun, has_offset: bool) {
        self.number(run.kind as u64);
        self.number(run.length);
        if has_offset {
            let distance = run.offset.wrapping_sub(self.expected).cast_signed();
            self.number((distance << 1 ^ distance >> 63).cast_unsigned());
            self.expected = run.offset.wrapping_add(run.length);
        }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.runs
    }

    fn number(&mut self, mut number: u64) {
        loop {
            let digit = (number & 31) as u8;
            number >>= 5;
            let more = if number == 0 { 0 } else { MORE };
            self.runs.push(char::from(DIGITS[usize::from(digit | more)]));
            if number == 0 {
                return;
            }
        }
    }
}

/// Reads the extents of a part: each once, or the failure to.
#[derive(Debug)]
pub struct MapReader<'a> {
    kinds: &'a [MapKind],
    rest: core::slice::Iter<'a, u8>,
    expected: u64,
}

/// A part is not as [`MapWriter`] writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError;

impl<'a> MapReader<'a> {
    /// A reader of `runs`, whose kinds are some of `kinds`.
    pub fn new(kinds: &'a [MapKind], runs: &'a str) -> Self {
        Self { kinds, rest: runs.as_bytes().iter(), expected: 0 }
    }

    fn run(&mut self) -> Result<MapRun, MapError> {
        let kind = usize::try_from(self.number()?).map_err(|_| MapError)?;
        let length = self.number()?;
        let has_offset = self.kinds.get(kind).ok_or(MapError)?.file.is_some();
        let offset = if has_offset {
            let distance = self.number()?;
            let distance = distance >> 1 ^ (distance & 1).wrapping_neg();
            self.expected.wrapping_add(distance)
        } else {
            0
        };
        if has_offset {
            self.expected = offset.wrapping_add(length);
        }
        Ok(MapRun { kind, length, offset })
    }

    fn number(&mut self) -> Result<u64, MapError> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(5) {
            let &byte = self.rest.next().ok_or(MapError)?;
            let digit = VALUES[usize::from(byte)];
            if digit == 255 {
                return Err(MapError);
            }
            let bits = u64::from(digit & (MORE - 1));
            number |= bits << shift;
            if digit & MORE == 0 {
                // One way to write a number, and none over 64 bits.
                let whole = bits << shift >> shift == bits;
                return if whole && (bits != 0 || shift == 0) { Ok(number) } else { Err(MapError) };
            }
        }
        Err(MapError)
    }
}

impl Iterator for MapReader<'_> {
    type Item = Result<MapRun, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.as_slice().is_empty() {
            return None;
        }
        let run = self.run();
        if run.is_err() {
            self.rest = [].iter();
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn kinds() -> Vec<MapKind> {
        let kind = |file: Option<&str>| MapKind {
            depth: 0,
            present: true,
            zero: false,
            data: true,
            compressed: false,
            file: file.map(Into::into),
        };
        vec![kind(Some("source")), kind(None)]
    }

    fn read(runs: &str) -> Result<Vec<MapRun>, MapError> {
        MapReader::new(&kinds(), runs).collect()
    }

    #[test]
    fn extents_survive_the_wire() {
        let run = |kind, length, offset| MapRun { kind, length, offset };
        let runs = [
            run(0, 65536, 327_680),
            run(1, 65536, 0),
            run(0, 1, 393_216),
            run(0, u64::MAX, 0),
            run(0, 5, i64::MAX as u64),
            run(0, 0, u64::MAX),
            run(1, u64::MAX, 0),
            run(0, 7, 1 << 63),
        ];
        let mut writer = MapWriter::default();
        assert!(writer.is_empty());
        for run in runs {
            writer.push(run, run.kind == 0);
        }
        assert_eq!(read(&writer.finish()), Ok(runs.to_vec()));
    }

    #[test]
    fn the_usual_extent_of_a_fragmented_image_takes_a_few_characters() {
        let mut writer = MapWriter::default();
        for cluster in 0..1000_u64 {
            writer.push(MapRun { kind: 0, length: 65536, offset: (cluster ^ 1) << 16 }, true);
        }
        assert!(writer.runs.starts_with("AgggCgggE"), "{}", writer.runs);
        assert!(writer.len() <= 10_000, "{}", writer.len());
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        assert_eq!(read(""), Ok(vec![]));
        let one = MapRun { kind: 1, length: 16, offset: 0 };
        assert_eq!(read("BQ"), Ok(vec![one]));
        for text in [
            "B",
            "CQ",
            "AQ",
            "B*",
            "BQ B",
            "Bé",
            "Bg",
            "BgA",
            "B//////////////",
            "B//////////////A",
            "Bggggggggggggggg",
        ] {
            assert_eq!(read(text), Err(MapError), "{text}");
        }
    }
}
