//! `check` against the real `qemu-img` over qcow2 images in whose metadata bytes were changed: exit codes, counters and
//! every line agree, and none takes long.

mod broken;
mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Bench, Random, assert_none, differences};

/// Images.
const BROKEN: u64 = 640;

/// Longest time that a broken image may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn broken_images_are_found_to_be_what_qemu_img_finds_them_to_be() {
    let bench = Bench::new();
    let victims = broken::victims(&bench);
    let numbers: Vec<u64> = (0..BROKEN).collect();
    let found = differences(&numbers, |&number| {
        let victim = &victims[(number % victims.len() as u64) as usize];
        let name = format!("broken-{number}");
        fs::write(bench.path(&name), victim.broken(&mut Random(0xc4ec + 0x9e37_79b9 * number))).unwrap();
        let output = if number % 3 == 0 { "--output=json" } else { "--output=human" };
        let row = ["check", "-f", "qcow2", output, &name];
        let theirs = bench.reference(&row);
        let started = Instant::now();
        let ours = bench.drop_in(&row);
        let took = started.elapsed();
        fs::remove_file(bench.path(&name)).unwrap();
        // docs/quirks.md: a check needs no data file.
        let needless = theirs.stderr.contains("data-file") && ours.code != Some(1);
        let same = (ours == theirs || needless) && took < PATIENCE;
        (!same).then(|| format!("{number}: {} {took:?}\ninstar: {ours}\nqemu-img: {theirs}", victim.options))
    });
    assert_none(&found, numbers.len());
}
