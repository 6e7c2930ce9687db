//! `measure FILE` against the real `qemu-img` over random images of every writable format, with overlays, chains,
//! snapshots and bitmaps. The seed is fixed: a difference found once is found again.

mod common;

use common::{
    Bench, assert_none, differences,
    random_images::{Made, Maker, difference_in, directory, make_all, random},
};

/// Images of one run, the ones below others not counted.
const IMAGES: u64 = 560;

/// Measurements of each image.
const ROWS: usize = 3;

/// Targets and options.
const TARGETS: [(&str, &str); 10] = [
    ("qcow2", ""),
    ("qcow2", "cluster_size=512"),
    ("qcow2", "cluster_size=4k"),
    ("qcow2", "cluster_size=2M"),
    ("qcow2", "compat=0.10"),
    ("qcow2", "refcount_bits=1,cluster_size=1k"),
    ("qcow2", "extended_l2=on,cluster_size=32k"),
    ("qcow2", "preallocation=falloc"),
    ("qcow2", "backing_file=x"),
    ("raw", ""),
];

/// A command line about an image.
fn row(maker: &mut Maker, made: &Made) -> Vec<String> {
    let (target, options) = maker.one_of(&TARGETS);
    let mut row = vec!["measure", "--output", maker.one_of(&["human", "json"]), "-O", target];
    if !options.is_empty() {
        row.extend(["-o", options]);
    }
    if !made.probed || maker.chance(2) {
        row.extend(["-f", made.format]);
    }
    let mut row: Vec<String> = row.into_iter().map(Into::into).collect();
    if !made.snapshots.is_empty() && maker.chance(2) {
        let index = maker.random.below(made.snapshots.len() as u64) as usize;
        let form = maker.one_of(&["", "snapshot.name=", "snapshot.id="]);
        row.extend(["-l".into(), format!("{form}{}", made.snapshots[index])]);
    }
    row.push(made.name.clone());
    row
}

#[test]
fn random_images_are_measured_as_qemu_img_measures_them() {
    let bench = Bench::new();
    let numbers: Vec<u64> = (0..IMAGES).collect();
    let made = make_all(&bench, &numbers);
    let images = made.iter().flatten().count();
    assert!(images >= 500, "only {images} images");
    let found = differences(&numbers, |&number| {
        let made = made[number as usize].as_ref()?;
        let directory = directory(&bench, number);
        let mut maker = Maker { directory: &directory, random: random(number + IMAGES) };
        let rows: Vec<Vec<String>> = (0..ROWS).map(|_| row(&mut maker, made)).collect();
        let found: Vec<String> =
            rows.iter().filter_map(|row| difference_in(&bench, &directory, row)).collect();
        (!found.is_empty()).then(|| found.join("\n"))
    });
    assert_none(&found, images * ROWS);
    println!("{images} images, {} rows", images * ROWS);
}
