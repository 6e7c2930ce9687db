//! The images of the questions about files, as text: `images/baselines/sources/NAME.txt`.
//!
//! The first line is the file's length. Each line behind it is an offset, a length, and bytes that are repeated to that length,
//! all in hexadecimal; later lines go over earlier ones. What no line writes is a hole, so that a file has the same holes
//! and takes the same space wherever it is made.

use std::{
    fmt::Write,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Whence, lseek};

use super::stored;
use crate::common::settle;

/// What a run of repeated bytes saves, at least.
const REPEATED: usize = 24;

/// Most bytes of a line that repeats nothing.
const LINE: usize = 48;

fn directory() -> PathBuf {
    stored::directory().join("sources")
}

/// Names of the images, in order.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).expect("there are sources");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".txt")?.to_owned())).collect();
    names.sort();
    names
}

/// Makes all images in the directory `place`.
pub fn make(place: &Path) {
    for name in names() {
        let text = fs::read_to_string(directory().join(format!("{name}.txt"))).unwrap();
        write(&text, &place.join(&name)).unwrap_or_else(|| panic!("{name} is not the text of an image"));
    }
    settle(place);
}

fn write(text: &str, path: &Path) -> Option<()> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let (length, lines) = text.split_once('\n')?;
    let file = File::create(path).ok()?;
    file.set_len(number(length)?).ok()?;
    for line in lines.lines() {
        let mut words = line.split(' ');
        let (offset, length, bytes) = (number(words.next()?)?, number(words.next()?)?, words.next()?);
        let digits =
            (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(bytes.get(at..at + 2)?, 16).ok());
        let bytes = digits.collect::<Option<Vec<u8>>>()?;
        let repeated: Vec<u8> = bytes.into_iter().cycle().take(length as usize).collect();
        file.write_all_at(&repeated, offset).ok()?;
    }
    Some(())
}

/// Stores an image.
pub fn store(path: &Path) {
    let name = path.file_name().unwrap().to_str().unwrap();
    fs::write(directory().join(format!("{name}.txt")), text(path)).unwrap();
}

fn text(path: &Path) -> String {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut text = format!("{length:x}\n");
    let mut end = 0;
    while let Ok(start) = lseek(&file, end, Whence::SeekData) {
        end = lseek(&file, start, Whence::SeekHole).unwrap();
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start as u64).unwrap();
        write_stretch(&mut text, start as u64, &bytes);
    }
    text
}

/// The lines of a stretch of the file without holes.
fn write_stretch(text: &mut String, start: u64, bytes: &[u8]) {
    let line = |text: &mut String, at: usize, length: usize, bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:x} {length:x} {digits}", start + at as u64).unwrap();
    };
    let repeats = |at: usize, period: usize| {
        let (first, again) = (&bytes[at..], bytes.get(at + period..).unwrap_or_default());
        period + first.iter().zip(again).take_while(|(first, again)| first == again).count()
    };
    if repeats(0, 1) < bytes.len() {
        line(text, 0, bytes.len(), &[0]);
    }
    let (mut at, mut plain) = (0, 0);
    while plain < bytes.len() {
        let run = [1, 2, 4, 8]
            .into_iter()
            .find(|&period| at < bytes.len() && repeats(at, period) >= period + REPEATED);
        if run.is_some() || at == bytes.len() || at - plain == LINE {
            if at > plain {
                line(text, plain, at - plain, &bytes[plain..at]);
            }
            plain = at;
        }
        if let Some(period) = run {
            let length = repeats(at, period);
            if bytes[at] != 0 || period > 1 || length == bytes.len() {
                line(text, at, length, &bytes[at..at + period]);
            }
            at += length;
            plain = at;
        } else if at < bytes.len() {
            at += 1;
        }
    }
}
