//! `check -r` against the real `qemu-img` over qcow2 images in whose metadata bytes were changed, and where instar repairs
//! otherwise on purpose.

mod broken;
mod common;

use std::fs;

use broken::Victim;
use common::{Bench, Random, Said, assert_none, differences};

/// Images.
const BROKEN: u64 = 320;

/// What `qemu-img` does to an image and instar does not: docs/quirks.md has a row for each.
const OTHERWISE: [&str; 6] = [
    "unknown compression type: 1",
    "data-file",
    "is outside image",
    "ERROR: overflow cluster",
    "Marking image as corrupt",
    "qcow2_free_clusters failed",
];

/// What is said of a repaired image, but for the place where the image ends: new refcounts are put elsewhere.
fn without_end(said: &Said) -> String {
    let is_end =
        |line: &&str| !line.starts_with("Image end offset") && !line.contains("\"image-end-offset\"");
    said.stdout.lines().filter(is_end).collect::<Vec<_>>().join("\n")
}

/// Repairs the image `name` with both, and says how they differ.
fn difference(bench: &Bench, victim: &Victim, name: &str, how: &str, output: &str) -> Option<String> {
    let (mine, before) = (format!("{name}-instar"), format!("{name}-before"));
    for copy in [&mine, &before] {
        fs::copy(bench.path(name), bench.path(copy)).unwrap();
    }
    let row = |image: &str| ["check", "-f", "qcow2", "-r", how, output, image].map(str::to_owned);
    let theirs = bench.reference(&row(name));
    // Both are to tell of a file of the same name.
    fs::rename(bench.path(&mine), bench.path(name)).unwrap();
    let ours = bench.drop_in(&row(name));
    let after = bench.reference(&["check", "-f", "qcow2", name]);
    let verdict = match after.code {
        // Somebody may have read what was not to be read before, so that only what could be is held to it.
        Some(0) => {
            let content = bench.reference(&["compare", "-f", "qcow2", "-F", "qcow2", &before, name]);
            (content.code == Some(1)).then(|| format!("content changed: {content}"))
        }
        _ => None,
    };
    let otherwise = OTHERWISE.iter().any(|line| theirs.stderr.contains(line));
    let rebuilt = theirs.stderr.contains("Rebuilding refcount structure");
    let text = |said: &Said| if rebuilt { without_end(said) } else { said.stdout.clone() };
    let same =
        ours.code == theirs.code && text(&ours) == text(&theirs) && (rebuilt || ours.stderr == theirs.stderr);
    for gone in [name, &before] {
        fs::remove_file(bench.path(gone)).unwrap();
    }
    let found = match verdict {
        Some(verdict) => Some(verdict),
        None if same || otherwise => None,
        None => Some("said otherwise".into()),
    };
    found.map(|found| {
        format!(
            "{name} {how} {}: {found}\ninstar: {ours}\nqemu-img: {theirs}\nafter: {after}",
            victim.options
        )
    })
}

#[test]
fn broken_images_are_repaired_as_qemu_img_repairs_them() {
    let bench = Bench::new();
    let victims: Vec<Victim> =
        broken::victims(&bench).into_iter().filter(|victim| !victim.has_both).collect();
    let numbers: Vec<u64> = (0..BROKEN).collect();
    let found = differences(&numbers, |&number| {
        let victim = &victims[(number % victims.len() as u64) as usize];
        let name = format!("broken-{number}");
        fs::write(bench.path(&name), victim.broken(&mut Random(0x4e9a + 0x9e37_79b9 * number))).unwrap();
        let how = if number % 4 == 0 { "leaks" } else { "all" };
        let output = if number % 3 == 0 { "--output=json" } else { "--output=human" };
        difference(&bench, victim, &name, how, output)
    });
    assert_none(&found, numbers.len());
}
