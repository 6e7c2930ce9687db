//! Asks the reference all questions of the grid and stores what it says: see images/baselines/README.md.
//!
//! Usage: `cargo test --test record` with `QEMU_IMG` in the environment, or with `-- IMAGE...` to store images.

#[path = "../common/mod.rs"]
mod common;
#[path = "../grid/mod.rs"]
mod grid;

use std::{env, path::Path, process::Command};

use common::{Bench, Said, differences, profile, qemu_img};
use grid::{questions, sources, stored};

fn main() {
    let images: Vec<_> = env::args_os().skip(1).collect();
    if !images.is_empty() {
        return images.iter().for_each(|image| sources::store(Path::new(image)));
    }
    let version = profile();
    let said = Said::by(Command::new(qemu_img()).arg("--version"));
    let name = said.stdout.lines().next().unwrap();
    let bench = Bench::new();
    sources::make(bench.directory());
    let questions = questions(version);
    let answers = differences(&questions, |question| {
        let answer = question.ask(true, |arguments| bench.reference(arguments)).encode();
        Some(answer.unwrap_or_else(|answer| panic!("{version}: {}\n{answer}", question.name())))
    });
    let answers: Vec<_> = questions.into_iter().zip(answers).collect();
    stored::store(version, name, &answers);
    println!("{name}: {} questions", answers.len());
}
