//! `measure FILE` and `map`, of whole disks and of parts, against the real `qemu-img` over random images of every writable
//! format, with overlays, chains, snapshots and bitmaps. The seeds are fixed: a difference found once is found again.

mod common;

use common::{
    Bench, assert_none, differences,
    random_images::{Made, Maker, difference_in, directory, make_all, random},
};

/// Images of one run, the ones below others not counted.
const IMAGES: u64 = 560;

/// How many of them are mapped.
const MAPPED: u64 = 240;

/// Measurements and mappings of each image.
const MEASUREMENTS: u64 = 3;
const MAPPINGS: u64 = 4;

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

/// A command line that measures an image.
fn measurement(maker: &mut Maker, made: &Made) -> Vec<String> {
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

/// A command line that maps an image, or a part of its disk.
fn mapping(maker: &mut Maker, made: &Made, index: u64) -> Vec<String> {
    let mut row = vec!["map".into()];
    row.push(format!("--output={}", if index == 1 { "human" } else { "json" }));
    if index > 1 {
        row.extend(part(maker));
    }
    if !made.probed || maker.chance(2) {
        row.extend(["-f".into(), made.format.into()]);
    }
    row.push(made.name.clone());
    row
}

/// A part of a disk.
fn part(maker: &mut Maker) -> Vec<String> {
    let unit = maker.one_of(&[1, 512, 65536]);
    let mut part = vec![];
    if !maker.chance(4) {
        part.extend(["-s".into(), (maker.random.below((14 << 20) / unit) * unit).to_string()]);
    }
    if !maker.chance(4) {
        part.extend(["-l".into(), (maker.random.below((6 << 20) / unit) * unit).to_string()]);
    }
    part
}

#[test]
fn random_images_are_measured_and_mapped_as_by_qemu_img() {
    let bench = Bench::new();
    let numbers: Vec<u64> = (0..IMAGES).collect();
    let made = make_all(&bench, &numbers);
    let (images, mapped) =
        (made.iter().flatten().count(), made.iter().take(MAPPED as usize).flatten().count());
    assert!(images >= 500 && mapped >= 200, "only {images} images, of which {mapped} are mapped");
    let found = differences(&numbers, |&number| {
        let made = made[number as usize].as_ref()?;
        let directory = directory(&bench, number);
        let maker = |number| Maker { directory: &directory, random: random(number) };
        let (mut measures, mut maps) = (maker(number + IMAGES), maker(number + MAPPED));
        let mappings = if number < MAPPED { MAPPINGS } else { 0 };
        let rows = (0..MEASUREMENTS).map(|_| measurement(&mut measures, made));
        let rows = rows.chain((0..mappings).map(|index| mapping(&mut maps, made, index)));
        let found: Vec<String> = rows.filter_map(|row| difference_in(&bench, &directory, &row)).collect();
        (!found.is_empty()).then(|| found.join("\n"))
    });
    let rows = images * MEASUREMENTS as usize + mapped * MAPPINGS as usize;
    assert_none(&found, rows);
    println!("{images} images, {rows} rows");
}
