//! `check` against the real `qemu-img` over images of the other formats that have a check, whole and with bytes of their
//! metadata changed: exit codes, counters and every line agree.

mod common;
mod patients;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Bench, Random, Said, assert_none, differences, profile};
use patients::{Patient, patients};

/// Images with changed bytes.
const BROKEN: u64 = 600;

/// Longest time that an image may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// instar under the name of `qemu-img`, with leave to open the files that images name.
fn drop_in(bench: &Bench, row: &[&str]) -> Said {
    let mut command = bench.command(bench.path("qemu-img"));
    command.env("INSTAR_QEMU_VERSION", profile()).env("INSTAR_ALLOW_REFERENCES", bench.directory());
    Said::by(command.args(row))
}

/// Whether both do not open the image: in whose words is for other tests.
fn refuse_both(ours: &Said, theirs: &Said) -> bool {
    let refused = |said: &Said| said.code == Some(1) && said.stderr.contains("Could not open");
    refused(ours) && refused(theirs)
}

/// What `qemu-img` does with an image and instar does not: docs/quirks.md has a row for each.
fn is_quirk(ours: &Said, theirs: &Said) -> bool {
    let crashed = theirs.code.is_none() && theirs.stderr.contains("Assertion");
    crashed && (ours.code == Some(2) || ours.stderr.ends_with("Check failed: Device or resource busy\n"))
}

fn compare(bench: &Bench, row: &[&str], what: &str) -> Option<String> {
    let theirs = bench.reference(row);
    let started = Instant::now();
    let ours = drop_in(bench, row);
    let took = started.elapsed();
    let same = ours == theirs || refuse_both(&ours, &theirs) || is_quirk(&ours, &theirs);
    let in_time = took < PATIENCE;
    (!(same && in_time)).then(|| format!("{what} {row:?} {took:?}\ninstar: {ours}\nqemu-img: {theirs}"))
}

#[test]
fn whole_images_are_found_to_be_so() {
    let bench = Bench::new();
    let patients = patients(&bench);
    let found = differences(&patients, |Patient { format, options, file, .. }| {
        let name = file.replace("-s001", "");
        for output in ["--output=human", "--output=json"] {
            for row in [&["check", output, &name][..], &["check", "-f", format, output, &name]] {
                if let Some(difference) = compare(&bench, row, options) {
                    return Some(difference);
                }
            }
        }
        None
    });
    assert_none(&found, patients.len());
}

#[test]
fn broken_images_are_found_to_be_what_qemu_img_finds_them_to_be() {
    let bench = Bench::new();
    let patients = patients(&bench);
    let numbers: Vec<u64> = (0..BROKEN).collect();
    let found = differences(&numbers, |&number| {
        let patient = &patients[(number % patients.len() as u64) as usize];
        let bytes = patient.broken(&mut Random(0xb0c5 + 0x9e37_79b9 * number));
        let name = format!("broken-{number}.{}", patient.format);
        let file =
            if patient.file.contains("-s001") { format!("broken-{number}-s001.vmdk") } else { name.clone() };
        if file != name {
            let text = fs::read_to_string(bench.path(&patient.file.replace("-s001", ""))).unwrap();
            fs::write(bench.path(&name), text.replace(&patient.file, &file)).unwrap();
        }
        fs::write(bench.path(&file), bytes).unwrap();
        let output = if number.is_multiple_of(4) { "--output=json" } else { "--output=human" };
        let found = compare(&bench, &["check", "-f", patient.format, output, &name], patient.options);
        for gone in [&name, &file] {
            fs::remove_file(bench.path(gone)).unwrap_or_default();
        }
        found
    });
    assert_none(&found, numbers.len());
}

#[test]
fn formats_without_a_check_have_none() {
    let bench = Bench::new();
    for format in ["raw", "luks", "qcow", "vpc"] {
        let object = ["--object", "secret,id=s,data=s"];
        let options: &[&str] = if format == "luks" { &["-o", "key-secret=s,iter-time=10"] } else { &[] };
        let create = [&["create", "-q", "-f", format][..], &object, options, &[format, "4M"]].concat();
        bench.make(&create);
    }
    let mut rows = vec![];
    for format in ["raw", "qcow", "vpc"] {
        for more in [&[][..], &["-r", "all"], &["-r", "leaks"], &["--output=json"]] {
            rows.push([&["check", "-f", format][..], more, &[format]].concat());
        }
    }
    // One after the other: those that repair want the image for themselves.
    for row in rows {
        assert_eq!(bench.drop_in(&row), bench.reference(&row), "{row:?}");
    }
    let said = bench.drop_in(&["check", "-f", "luks", "luks"]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (Some(63), "qemu-img: This image format does not support checks\n")
    );
}

#[test]
fn formats_that_are_not_repaired_say_so() {
    let bench = Bench::new();
    for format in ["vmdk", "vdi"] {
        bench.make(&["create", "-q", "-f", format, format, "4M"]);
        for how in ["leaks", "all"] {
            let row = ["check", "-f", format, "-r", how, format];
            assert_eq!(bench.drop_in(&row), bench.reference(&row), "{row:?}");
        }
    }
}
