//! `convert -B` against the real `qemu-img`: the same clusters are in the new image and the same left to the one below it.

mod common;

use std::fs;

use common::{Bench, Said, assert_none, differences, profile};
use serde_json::Value;

/// Targets: format, the options it is made with.
const TARGETS: &[(&str, &[&str])] = &[
    ("qcow2", &[]),
    ("qcow2", &["-c"]),
    ("qcow2", &["-S", "0"]),
    ("qcow2", &["-o", "compat=0.10"]),
    ("qcow2", &["-o", "cluster_size=4k"]),
    ("qcow2", &["-o", "cluster_size=2M"]),
    ("qcow2", &["-o", "extended_l2=on,cluster_size=128k"]),
    ("qcow", &[]),
    ("qed", &[]),
];

/// Sources, and what the new image lies upon. `alone` has nothing below it, `long` is longer than what is.
const ROWS: &[(&str, &str)] = &[
    ("top", "mid"),
    ("top", "base"),
    ("mid", "base"),
    ("alone", "base"),
    ("long", "mid"),
    ("long", "base"),
    ("top", "long-base"),
];

/// Makes chains of images: `base`, `mid`, `top` and `long`, and `alone`; and `vmdk-base`.
fn bench() -> Bench {
    let bench = Bench::new();
    let overlay = |name: &str, below: &str, size: &str| {
        bench.make(&["create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", name, size]);
    };
    let write = |name: &str, commands: &[&str]| assert!(bench.qemu_io(name, commands));
    bench.make(&["create", "-q", "-f", "qcow2", "base", "3M"]);
    write("base", &["write -P 1 0 700k", "write -P 9 2500k 300k"]);
    overlay("mid", "base", "3M");
    write("mid", &["write -P 2 100k 300k", "write -z 512k 64k"]);
    overlay("top", "mid", "3M");
    write(
        "top",
        &["write -P 3 200k 10k", "write -z 256k 128k", "write -P 4 2600k 10k", "write -P 0 640k 20k"],
    );
    overlay("long", "mid", "5M");
    write("long", &["write -P 5 1M 64k", "write -P 6 3060k 100k", "write -z 4M 64k"]);
    bench.make(&["create", "-q", "-f", "qcow2", "alone", "3M"]);
    write("alone", &["write -P 7 128k 70k", "write -P 8 2M 1k"]);
    bench.make(&["create", "-q", "-f", "qcow2", "long-base", "6M"]);
    write("long-base", &["write -P 10 0 6M"]);
    bench.make(&["create", "-q", "-f", "vmdk", "vmdk-base", "3M"]);
    bench
}

/// instar under the name of `qemu-img`, which may follow what images name.
fn ours(bench: &Bench, row: &[&str]) -> Said {
    let mut command = bench.command(bench.path("qemu-img"));
    command.env("INSTAR_ALLOW_REFERENCES", bench.directory()).env("INSTAR_QEMU_VERSION", profile());
    Said::by(command.args(row))
}

/// Which parts of the disk are in the image itself (depth 0), as runs of (start, end, depth). Where its file has holes inside
/// of clusters does not count.
fn allocation(bench: &Bench, image: &str) -> Vec<(u64, u64, u64)> {
    let said = bench.reference(&["map", "--output", "json", image]);
    assert_eq!(said.code, Some(0), "{said}");
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for entry in serde_json::from_str::<Vec<Value>>(&said.stdout).unwrap() {
        let number = |name: &str| entry[name].as_u64().unwrap();
        let (start, end, depth) = (number("start"), number("start") + number("length"), number("depth"));
        match runs.last_mut() {
            Some(last) if (last.1, last.2) == (start, depth) => last.1 = end,
            _ => runs.push((start, end, depth)),
        }
    }
    runs
}

/// What differs when instar and `qemu-img` write the images `names` of `format`, each by its line: in what they say, in the disks,
/// or in what of these is in the images themselves. Both are to succeed.
fn difference(bench: &Bench, format: &str, names: &[String; 2], lines: &[Vec<&str>; 2]) -> Option<String> {
    let [own, reference] = lines;
    let said = [ours(bench, own), bench.reference(reference)];
    if said[0] != said[1] || said[0].code != Some(0) {
        return Some(format!("{own:?}: {}, {}", said[0], said[1]));
    }
    let compared = bench.reference(&["compare", "-f", format, "-F", format, &names[0], &names[1]]);
    let allocated = names.each_ref().map(|name| allocation(bench, name));
    (compared.code != Some(0) || allocated[0] != allocated[1])
        .then(|| format!("{own:?}: {compared}\n{:?}\n{:?}", allocated[0], allocated[1]))
}

#[test]
fn what_lies_below_is_left_there() {
    let bench = bench();
    let rows: Vec<(usize, usize)> =
        (0..TARGETS.len()).flat_map(|target| (0..ROWS.len()).map(move |row| (target, row))).collect();
    let found = differences(&rows, |&(target, row)| {
        let ((format, options), (source, below)) = (TARGETS[target], ROWS[row]);
        let names = ["ours", "theirs"].map(|who| format!("{target}-{row}.{who}"));
        let list = format!("backing_file={below},backing_fmt=qcow2");
        let line = |name| match format {
            // It stores no format; 5.2 cannot be told and warns.
            "qcow" => {
                let told: &[&str] = if common::major() >= 7 { &["-F", "qcow2"] } else { &[] };
                [&["convert", "-O", format, "-B", below], told, options, &[source, name]].concat()
            }
            _ => [&["convert", "-O", format, "-o", &list], options, &[source, name]].concat(),
        };
        difference(&bench, format, &names, &names.each_ref().map(|name| line(name.as_str())))
    });
    assert_none(&found, rows.len());
    // The chain is the same one where the image below is that of the source.
    for target in 0..TARGETS.len() {
        bench.make(&["compare", "top", &format!("{target}-0.ours")]);
    }
}

/// Overlays that are there: format, the options they are made with.
const OVERLAYS: &[(&str, &[&str])] = &[
    ("qcow2", &[]),
    ("qcow2", &["-o", "cluster_size=4k"]),
    ("qcow2", &["-o", "extended_l2=on,cluster_size=128k"]),
    ("qed", &[]),
];

#[test]
fn an_overlay_that_is_there_holds_what_it_held_or_the_source() {
    let bench = bench();
    let sources = ["top", "mid", "alone"];
    let rows: Vec<(usize, &str, bool)> = (0..OVERLAYS.len())
        .flat_map(|overlay| sources.map(|source| [(overlay, source, false), (overlay, source, true)]))
        .flatten()
        .collect();
    let found = differences(&rows, |&(overlay, source, below)| {
        let (format, options) = OVERLAYS[overlay];
        let names = ["ours", "theirs"].map(|who| format!("{overlay}-{source}-{below}.{who}"));
        for name in &names {
            let create = ["create", "-q", "-f", format, "-b", "base", "-F", "qcow2"];
            bench.make(&[&create, options, &[name.as_str(), "3M"]].concat());
            let commands = ["write -P 20 100k 200k", "write -P 21 1500k 100k", "write -z 2600k 64k"];
            assert!(bench.qemu_io(name, &commands));
        }
        let letters: &[&str] = if below { &["-B", "base", "-F", "qcow2"] } else { &[] };
        let line = |name| [&["convert", "-n", "-O", format], letters, &[source, name]].concat();
        difference(&bench, format, &names, &names.each_ref().map(|name| line(name.as_str())))
    });
    assert_none(&found, rows.len());
}

#[test]
fn an_option_is_as_good_as_a_letter() {
    let bench = bench();
    let row = ["convert", "-O", "qcow2", "-B", "mid", "-F", "qcow2", "top", "ours"];
    if common::major() >= 7 {
        assert_eq!(ours(&bench, &row).code, Some(0));
        bench.make(&["compare", "top", "ours"]);
        // The letter counts.
        let both =
            ["convert", "-O", "qcow2", "-B", "mid", "-F", "qcow2", "-o", "backing_file=nx", "top", "both"];
        assert_eq!(ours(&bench, &both).code, Some(0));
        assert_eq!(allocation(&bench, "both"), allocation(&bench, "ours"));
    }
}

#[test]
fn a_vmdk_knows_the_content_id_below() {
    let bench = bench();
    for (name, said) in [
        ("ours", ours as fn(&Bench, &[&str]) -> Said),
        ("theirs", |bench: &Bench, row: &[&str]| bench.reference(row)),
    ] {
        let list = "backing_file=vmdk-base,backing_fmt=vmdk";
        let said = said(&bench, &["convert", "-O", "vmdk", "-o", list, "top", name]);
        assert_eq!(said, Said { code: Some(0), ..Said::default() });
    }
    bench.make(&["compare", "ours", "theirs"]);
    let [own, reference] = ["ours", "theirs"].map(|name| {
        let file = String::from_utf8_lossy(&fs::read(bench.path(name)).unwrap()).into_owned();
        let lines = file.lines().filter(|line| line.starts_with("parent"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!((own.len(), &own), (2, &reference));
    assert_eq!(allocation(&bench, "ours"), allocation(&bench, "theirs"));
}

#[test]
fn what_cannot_be_below_is_refused_in_the_same_words() {
    let bench = bench();
    fs::write(bench.path("text"), [b'x'; 1024]).unwrap();
    let lists = [
        ("qcow2", "backing_file=nx,backing_fmt=qcow2"),
        ("qcow2", "backing_file=base,backing_fmt=foo"),
        ("qcow2", "backing_file=base,backing_fmt=vmdk"),
        ("qcow2", "backing_file=text,backing_fmt=qcow2"),
        ("vmdk", "backing_file=nx,backing_fmt=vmdk"),
        ("vmdk", "backing_file=base,backing_fmt=qcow2"),
        ("vdi", "backing_file=base,backing_fmt=qcow2"),
    ];
    let rows: Vec<Vec<&str>> = lists
        .iter()
        .map(|(format, list)| vec!["convert", "-O", format, "-o", list, "alone", "out"])
        .collect();
    for row in &rows {
        let said = [bench.drop_in(row), bench.reference(row)];
        assert_eq!(said[0], said[1], "{row:?}");
        let _ = fs::remove_file(bench.path("out"));
    }
    // qemu-img ends in a signal.
    let said = bench.instar(&["convert", "-O", "qcow2", "-B", "", "-F", "qcow2", "alone", "out"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("Expected backing file name, got empty string"), "{said}");
    // What the image below names is not followed unasked.
    let said = bench.drop_in(&[
        "convert",
        "-O",
        "qcow2",
        "-o",
        "backing_file=mid,backing_fmt=qcow2",
        "alone",
        "out",
    ]);
    assert_eq!(said.code, Some(1));
    assert!(!bench.path("out").exists());
}
