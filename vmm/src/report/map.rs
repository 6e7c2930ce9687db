//! The answer of `map`, extent by extent.

use std::{
    ffi::OsStr,
    io::{self, Write},
};

use protocol::{MapKind, MapRun, QemuVersion};

use super::escape_name;

/// How extents are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `--output human`: a table of what lies in files as it is.
    Human,
    /// `--output json`: an array, as this release writes it.
    Json(QemuVersion),
}

/// What is said of all extents of a kind.
#[derive(Debug)]
pub struct Words {
    shown: bool,
    has_offset: bool,
    /// In JSON what stands between length and offset, for people what stands behind the offset.
    text: String,
}

impl Words {
    /// What is said of `kind`, which lies in the file `name`, if it lies in one.
    pub fn new(shape: Shape, kind: &MapKind, name: Option<&OsStr>) -> Self {
        let has_offset = name.is_some();
        let (shown, text) = match shape {
            Shape::Human => (kind.data && !kind.zero, name.map(escape_name).unwrap_or_default()),
            Shape::Json(profile) => (true, properties(kind, profile)),
        };
        Self { shown, has_offset, text }
    }
}

fn properties(kind: &MapKind, profile: QemuVersion) -> String {
    let mut text = format!("\"depth\": {}", kind.depth);
    if profile >= QemuVersion::V7_2 {
        text.push_str(&format!(", \"present\": {}", kind.present));
    }
    text.push_str(&format!(", \"zero\": {}, \"data\": {}", kind.zero, kind.data));
    if profile >= QemuVersion::V10_0 {
        text.push_str(&format!(", \"compressed\": {}", kind.compressed));
    }
    text
}

/// A listing on its way to `out`.
pub struct Listing<W> {
    out: W,
    shape: Shape,
    begun: bool,
    /// Whether there was an extent.
    filled: bool,
}

impl<W: Write> Listing<W> {
    /// Nothing written yet.
    pub fn new(out: W, shape: Shape) -> Self {
        Self { out, shape, begun: false, filled: false }
    }

    /// Writes what stands in front of the first extent.
    pub fn begin(&mut self) -> io::Result<()> {
        self.begun = true;
        self.out.write_all(match self.shape {
            Shape::Human => b"Offset          Length          Mapped to       File\n",
            Shape::Json(_) => b"[",
        })
    }

    /// Writes an extent that begins at byte `start` of the disk.
    pub fn extent(&mut self, start: u64, run: MapRun, words: &Words) -> io::Result<()> {
        if !words.shown {
            return Ok(());
        }
        let Words { has_offset, text, .. } = words;
        let MapRun { length, offset, .. } = run;
        match self.shape {
            Shape::Human => {
                self.column(start)?;
                self.column(length)?;
                self.column(offset)?;
                self.out.write_all(text.as_bytes())?;
                self.out.write_all(b"\n")
            }
            Shape::Json(_) => {
                let separator = if self.filled { ",\n" } else { "" };
                self.filled = true;
                write!(self.out, "{separator}{{ \"start\": {start}, \"length\": {length}, {text}")?;
                if *has_offset {
                    write!(self.out, ", \"offset\": {offset}")?;
                }
                self.out.write_all(b"}")
            }
        }
    }

    /// C's `%#-16x`.
    fn column(&mut self, number: u64) -> io::Result<()> {
        match number {
            0 => self.out.write_all(b"0               "),
            number => write!(self.out, "{number:<#16x}"),
        }
    }

    /// Writes what stands behind the last extent of the part of the disk that begins at `start`. An array is never
    /// empty: a part without any bytes is an extent of none.
    pub fn end(&mut self, start: u64) -> io::Result<()> {
        if !self.filled && self.shape != Shape::Human {
            let kind =
                MapKind { depth: 0, present: false, zero: false, data: false, compressed: false, file: None };
            let words = Words::new(self.shape, &kind, None);
            self.extent(start, MapRun { kind: 0, length: 0, offset: 0 }, &words)?;
        }
        self.close()
    }

    /// Ends a listing that is not whole: an array is an array even so.
    pub fn close(&mut self) -> io::Result<()> {
        if self.begun && self.shape != Shape::Human {
            self.out.write_all(b"]\n")?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: MapKind =
        MapKind { depth: 1, present: true, zero: false, data: true, compressed: false, file: None };

    fn listing(shape: Shape, write: impl FnOnce(&mut Listing<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        let mut listing = Listing::new(&mut out, shape);
        write(&mut listing);
        String::from_utf8(out).unwrap()
    }

    fn two(listing: &mut Listing<&mut Vec<u8>>) {
        let name = OsStr::new("a\n");
        listing.begin().unwrap();
        let run = MapRun { kind: 0, length: 4096, offset: 0 };
        listing.extent(0, run, &Words::new(listing.shape, &DATA, Some(name))).unwrap();
        let zero = MapKind { zero: true, data: false, ..DATA };
        listing.extent(4096, run, &Words::new(listing.shape, &zero, None)).unwrap();
    }

    #[test]
    fn every_release_has_its_keys() {
        let lines = |profile| {
            listing(Shape::Json(profile), |listing| {
                two(listing);
                listing.end(0).unwrap();
            })
        };
        assert_eq!(
            lines(QemuVersion::V5_2),
            "[{ \"start\": 0, \"length\": 4096, \"depth\": 1, \"zero\": false, \"data\": true, \"offset\": 0},\n{ \"start\": 4096, \"length\": 4096, \"depth\": 1, \"zero\": true, \"data\": false}]\n"
        );
        let first = |present, compressed| {
            format!(
                "[{{ \"start\": 0, \"length\": 4096, \"depth\": 1{present}, \"zero\": false, \"data\": true{compressed}, \"offset\": 0}},\n"
            )
        };
        for profile in [QemuVersion::V7_2, QemuVersion::V8_0] {
            assert!(lines(profile).starts_with(&first(", \"present\": true", "")));
        }
        for profile in [QemuVersion::V10_0, QemuVersion::V11_1] {
            assert!(lines(profile).starts_with(&first(", \"present\": true", ", \"compressed\": false")));
        }
    }

    #[test]
    fn people_see_what_lies_in_files() {
        let lines = listing(Shape::Human, |listing| {
            two(listing);
            listing.end(0).unwrap();
        });
        assert_eq!(
            lines,
            "Offset          Length          Mapped to       File\n0               0x1000          0               a\\n\n"
        );
    }

    #[test]
    fn an_array_is_closed_whatever_happens() {
        let json = Shape::Json(QemuVersion::V5_2);
        let nothing = "[{ \"start\": 7, \"length\": 0, \"depth\": 0, \"zero\": false, \"data\": false}]\n";
        let text = listing(json, |listing| {
            listing.begin().unwrap();
            listing.end(7).unwrap();
        });
        assert_eq!(text, nothing);
        assert_eq!(listing(json, |listing| listing.close().unwrap()), "");
        let text = listing(json, |listing| {
            listing.begin().unwrap();
            listing.close().unwrap();
        });
        assert_eq!(text, "[]\n");
        let text = listing(json, |listing| {
            two(listing);
            listing.close().unwrap();
        });
        assert!(text.ends_with("\"data\": false}]\n"), "{text}");
    }
}
