//! `check` against the real `qemu-img` over images of the other formats that have a check, whole and with bytes of their
//! metadata changed: exit codes, counters and every line agree.

mod common;
mod patients;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Bench, Random, Said, assert_none, differences, profile};
use images::build::vhdx::{BAT, Builder, Change, FULL, log_entry, put_log};
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

#[test]
fn a_vhd_is_checked_under_instars_own_name() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "vpc", "disk.vhd", "4M"]);
    let said = bench.instar(&["check", "disk.vhd"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert_eq!(said.stdout, "No errors were found on the image.\nImage end offset: 2560\n");
    let mut bytes = fs::read(bench.path("disk.vhd")).unwrap();
    bytes[512 + 60] ^= 1;
    fs::write(bench.path("disk.vhd"), bytes).unwrap();
    let said = bench.instar(&["check", "disk.vhd"]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (Some(2), "ERROR checksum of the dynamic disk header is wrong\n")
    );
    let said = bench.instar(&["check", "-r", "all", "disk.vhd"]);
    assert_eq!(said.code, Some(63));
}

/// A VHDX image whose log has something to say of its file.
fn dirty_vhdx() -> Vec<u8> {
    let mut bytes = Builder { bat: vec![(0, (4 << 20) | FULL)], ..Builder::default() }.build();
    let length = bytes.len() as u64;
    let zeros = Change::Zero { at: BAT as u64 + 4096, length: 8192 };
    put_log(&mut bytes, 0, &log_entry(7, 0, &[zeros], length, length));
    bytes
}

#[test]
fn a_dirty_log_is_told_and_replayed_by_a_repair() {
    let bench = Bench::new();
    fs::write(bench.path("dirty.vhdx"), dirty_vhdx()).unwrap();
    fs::write(bench.path("theirs.vhdx"), dirty_vhdx()).unwrap();
    let said = bench.drop_in(&["check", "dirty.vhdx"]);
    let told = "qemu-img: VHDX log contains changes that need to be replayed\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(2), told));
    let theirs = bench.reference(&["check", "-r", "all", "theirs.vhdx"]);
    assert_eq!(bench.drop_in(&["check", "-r", "all", "dirty.vhdx"]), theirs);
    assert_eq!(bench.reference(&["check", "dirty.vhdx"]).code, Some(0));
    assert_eq!(bench.drop_in(&["check", "dirty.vhdx"]).code, Some(0));
}

#[test]
fn clusters_outside_of_a_parallels_image_are_told() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "parallels", "disk.parallels", "4M"]);
    assert!(bench.qemu_io("disk.parallels", &["write 0 2M"]));
    let mut bytes = fs::read(bench.path("disk.parallels")).unwrap();
    bytes[68] = 9;
    fs::write(bench.path("disk.parallels"), bytes).unwrap();
    let said = bench.instar(&["check", "--qemu-version", "10.0", "disk.parallels"]);
    let told = "ERROR cluster 1 is outside image\nERROR space leaked at the end of the image 1048576\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(2), told));
    let said = bench.instar(&["check", "-r", "all", "disk.parallels"]);
    assert_eq!(said.code, Some(0));
    assert_eq!(bench.reference(&["check", "disk.parallels"]).code, Some(0));
}
