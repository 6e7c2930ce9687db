//! The answers of several releases of `qemu-img`, as stored in `images/baselines`: instar gives them, each in the profile of
//! its release.

mod common;
mod grid;

use common::{Bench, Said, assert_none, differences};
use grid::{sources, stored};

/// Asks instar what `version` was asked.
fn replay(version: &str) {
    let bench = Bench::new();
    sources::make(bench.directory());
    let rows = stored::load(version);
    assert!(rows.len() >= 3500, "only {} rows", rows.len());
    let found = differences(&rows, |(question, stored)| {
        let instar = |arguments: &[&str]| {
            let (name, rest) = arguments.split_first().expect("a command's name");
            let mut command = bench.command(bench.path("qemu-img"));
            Said::by(command.args([name, "--qemu-version", version]).args(rest))
        };
        let answer =
            question.ask(question.is_turn_of(version), instar).encode().unwrap_or_else(|answer| answer);
        (answer != *stored)
            .then(|| format!("{version}: {}\ninstar:   {answer}\nqemu-img: {stored}", question.name()))
    });
    assert_none(&found, rows.len());
    let json = rows.iter().filter(|(question, _)| question.is_turn_of(version)).count();
    println!("{version}: {} rows, {json} of them as JSON, too", rows.len());
}

#[test]
fn qemu_img_5_2_is_followed() {
    replay("5.2");
}

#[test]
fn qemu_img_7_2_is_followed() {
    replay("7.2");
}

#[test]
fn qemu_img_10_0_is_followed() {
    replay("10.0");
}

#[test]
fn qemu_img_11_1_is_followed() {
    replay("11.1");
}
