//! The hostile corpus (`images::hostile`) through the real machine: every reading command over every image. Each ends
//! soon, as the image's row says, in an answer or in one typed line on stderr. `inspect`, which answers where others
//! refuse, is held to their verdicts in `inspect.rs`.

mod common;

use std::{
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use common::{Bench, Said, assert_none, differences};
use images::hostile::{Class, Row, Stage, rows};

/// The most processor time that a command may take for any image, its guest's included: a bound on work, which a loaded
/// machine does not change.
const CPU_TIME_MAX: Duration = Duration::from_secs(2);

/// The limits that callers set for `qemu-img info`: `prlimit` becomes the program it starts.
const LIMITS: [&str; 2] = ["--as=1073741824", "--cpu=2"];

/// A command that reads images.
struct Reading {
    /// What stands before `-f FORMAT FILE`.
    arguments: &'static [&'static str],
    /// Options of instar's that bound what it prints.
    limits: &'static [&'static str],
    /// What of an image it looks at.
    looks_at: &'static [Stage],
    /// Its exit code for an image that it refuses.
    refusal: i32,
}

/// Every reading command.
const COMMANDS: [Reading; 4] = [
    Reading { arguments: &["info"], limits: &[], looks_at: &[Stage::Open], refusal: 1 },
    Reading {
        arguments: &["measure", "-O", "qcow2"],
        limits: &[],
        looks_at: &[Stage::Open, Stage::Contents, Stage::Mapping],
        refusal: 1,
    },
    Reading {
        arguments: &["map", "--output", "json"],
        limits: &["--max-extents", "1200000"],
        looks_at: &[Stage::Open, Stage::Contents, Stage::Mapping],
        refusal: 1,
    },
    Reading {
        arguments: &["measure", "-O", "raw"],
        limits: &[],
        looks_at: &[Stage::Open, Stage::Contents],
        refusal: 1,
    },
];

impl Reading {
    fn line<'a>(&self, more: &[&'a str], row: &'a Row, file: &'a str) -> Vec<&'a str> {
        let mut line = [self.arguments, more].concat();
        if let Some(format) = row.format {
            line.extend(["-f", format]);
        }
        line.push(file);
        line
    }
}

/// What came of a command, and the processor time that it took.
#[allow(clippy::zombie_processes, reason = "it is waited for by its id")]
fn timed(command: &mut Command) -> (Said, Duration) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let read = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to locals of the right types; `child` is not waited for otherwise.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, pid);
    // SAFETY: a rusage is numbers, for which zero is a value.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let code = ExitStatus::from_raw(status).code();
    let said = Said { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
    (said, time(usage.ru_utime) + time(usage.ru_stime))
}

/// The kind of a failure, if it is told in one line that names the file, or what in it could not be read.
fn typed<'a>(said: &'a Said, file: &str) -> Option<&'a str> {
    let line = said.stderr.strip_suffix('\n').filter(|line| !line.contains('\n'))?;
    let (opens, mapped) = (line.starts_with(&format!("instar: Could not open '{file}': ")), &said.stdout);
    let broken_off = ["instar: Could not read file metadata: ", "instar: There are more than "];
    let blames = match () {
        // What was found before is told, as a list that is whole.
        () if broken_off.iter().any(|start| line.starts_with(start)) => {
            mapped.starts_with('[') && mapped.ends_with("]\n")
        }
        () => mapped.is_empty() && (opens || line.starts_with("instar: Unable to get block status: ")),
    };
    let (_, kind) = line.rsplit_once(" (").filter(|_| blames)?;
    kind.split([':', ')']).next()
}

/// What is wrong with what came of a command.
fn complaint(reading: &Reading, class: Class, said: &Said, file: &str) -> Option<&'static str> {
    if said.stderr.contains("panicked") || said.stderr.contains(|c: char| c.is_control() && c != '\n') {
        return Some("panics, or passes on what an image would write to a terminal");
    }
    match class {
        Class::Ok | Class::Flag(_) => {
            let fine = said.code == Some(0) && said.stderr.is_empty() && !said.stdout.is_empty();
            (!fine).then_some("does not read it")
        }
        Class::Refuse(kinds) => match typed(said, file) {
            _ if said.code != Some(reading.refusal) => Some("does not refuse it"),
            Some(kind) if kinds.iter().any(|expected| expected.name() == kind) => None,
            // What is wrong with tables may not be found before there are too many extents.
            Some("limit") if !reading.limits.is_empty() => None,
            Some(_) => Some("refuses it for another reason"),
            None => Some("has no typed error"),
        },
    }
}

/// Runs a command over a row and says what is wrong with what comes of it.
fn run(bench: &Bench, reading: &Reading, row: &Row, more: &[&str], class: Class) -> Option<String> {
    let file = row.path();
    let line = reading.line(&[reading.limits, more].concat(), row, &file);
    let mut command = bench.command("prlimit");
    command.args(LIMITS).arg(env!("CARGO_BIN_EXE_instar"));
    let (said, spent) = timed(command.args(&line));
    let wrong = match complaint(reading, class, &said, &file) {
        None if spent > CPU_TIME_MAX => "takes too long",
        found => found?,
    };
    Some(format!(
        "{}: {}: instar {} {wrong}: {class}\n{said}, {spent:.2?}",
        row.id,
        row.trick,
        line.join(" ")
    ))
}

/// The answer is `qemu-img`'s.
fn disagreement(bench: &Bench, reading: &Reading, row: &Row) -> Option<String> {
    let file = row.path();
    let line = reading.line(&[], row, &file);
    let (ours, theirs) = (bench.drop_in(&line), bench.reference(&line));
    let same = (ours.code, &ours.stdout) == (theirs.code, &theirs.stdout);
    (!same).then(|| format!("{}: {}\ninstar: {ours}\nqemu-img: {theirs}", row.id, row.trick))
}

/// The corpus in a directory, and each row with each command.
fn each(look: impl Fn(&Bench, &Reading, &Row) -> Option<String> + Sync) {
    let (bench, rows) = (Bench::new(), rows());
    let found = differences(&rows, |row| {
        row.write(bench.directory()).unwrap_or_else(|error| panic!("{}: {error}", row.id));
        let found: Vec<_> = COMMANDS.iter().filter_map(|reading| look(&bench, reading, row)).collect();
        std::fs::remove_dir_all(bench.path(row.id)).unwrap();
        (!found.is_empty()).then(|| found.join("\n"))
    });
    assert_none(&found, rows.len());
    println!("{} images, {} commands", rows.len(), COMMANDS.len());
}

#[test]
fn every_image_is_read_or_refused_as_its_row_says() {
    each(|bench, reading, row| run(bench, reading, row, &[], row.class_for(reading.looks_at)));
}

/// Files beneath the row's own directory may be opened.
#[test]
fn with_references_allowed() {
    each(|bench, reading, row| {
        // A command that does not look for what is wrong behind a reference reads it.
        let class = row.with_references.filter(|_| reading.looks_at.contains(&Stage::Mapping))?;
        let directory = bench.path(row.id);
        run(bench, reading, row, &["--allow-references", directory.to_str().unwrap()], class)
    });
}

#[test]
fn what_qemu_img_reads_as_well_is_answered_as_it_does() {
    each(|bench, reading, row| row.agrees.then(|| disagreement(bench, reading, row)).flatten());
}

/// What is wrong with what came of `check`, whose exit code tells how it ended, and which tells of everything that it finds.
fn check_complaint(said: &Said, file: &str) -> Option<&'static str> {
    if said.stderr.contains("panicked") || said.stderr.contains(|c: char| c.is_control() && c != '\n') {
        return Some("panics, or passes on what an image would write to a terminal");
    }
    let last = said.stderr.lines().last().unwrap_or_default();
    match said.code {
        Some(0) => said.stdout.is_empty().then_some("says nothing"),
        // Of a QED image only counts are told.
        Some(2 | 3) => (said.stderr.is_empty() && !said.stdout.contains(" were found on the image."))
            .then_some("does not say what is wrong"),
        Some(63) => (!last.starts_with("instar: This image format does not support checks"))
            .then_some("has no reason"),
        Some(1) => {
            let opening = format!("instar: Could not open '{file}': ");
            let typed = [&opening, "instar: Check failed", "instar: The command did not finish within"];
            (!typed.iter().any(|text| last.starts_with(text))).then_some("has no typed error")
        }
        _ => Some("ends in no way that there is"),
    }
}

#[test]
fn every_image_is_checked_or_ends_at_the_deadline() {
    let (bench, rows) = (Bench::new(), rows());
    let found = differences(&rows, |row| {
        row.write(bench.directory()).unwrap_or_else(|error| panic!("{}: {error}", row.id));
        let file = row.path();
        // Where a table is used a million times, there are as many findings as entries in all of them.
        let reading =
            Reading { arguments: &["check", "--timeout", "3"], limits: &[], looks_at: &[], refusal: 1 };
        let line = reading.line(&[], row, &file);
        let (said, spent) = timed(bench.command(env!("CARGO_BIN_EXE_instar")).args(&line));
        std::fs::remove_dir_all(bench.path(row.id)).unwrap();
        let wrong = check_complaint(&said, &file)?;
        let said = Said { stderr: said.stderr.chars().take(500).collect(), ..said };
        Some(format!("{}: {}: instar {} {wrong}\n{said}, {spent:.2?}", row.id, row.trick, line.join(" ")))
    });
    assert_none(&found, rows.len());
}
