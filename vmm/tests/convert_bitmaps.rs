//! `convert --bitmaps`: the new image is, byte for byte, the one that `qemu-img convert --bitmaps` makes.

mod common;

use std::fs;

use common::{Bench, major};

/// File offset of the header extension with the bitmaps, and what it says of them: their directory's offset.
fn directory(image: &[u8]) -> usize {
    let word = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    let mut at = word(100) as usize;
    while word(at) != 0x2385_2875 {
        at += 8 + word(at + 4).next_multiple_of(8) as usize;
    }
    word(at + 8 + 20) as usize
}

/// An image with two bitmaps, of which the first is broken if that is wanted.
fn source(bench: &Bench, name: &str, broken: bool) {
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", name, "6M"]);
    assert!(bench.qemu_io(name, &["write -P 1 0 300k", "write -P 2 3M 70k"]));
    bench.make(&["bitmap", "--add", "-g", "4096", name, "first"]);
    bench.make(&["bitmap", "--add", "--disable", name, "second"]);
    assert!(bench.qemu_io(name, &["write -P 3 64k 20k", "write -P 4 5M 1M"]));
    if broken {
        let mut image = fs::read(bench.path(name)).unwrap();
        let flags = directory(&image) + 15;
        // In use.
        image[flags] |= 1;
        fs::write(bench.path(name), image).unwrap();
    }
}

#[test]
fn bitmaps_are_copied_as_the_reference_copies_them() {
    let bench = Bench::new();
    source(&bench, "fine", false);
    source(&bench, "broken", true);
    let mut rows: Vec<(&str, Vec<&str>)> = vec![
        ("fine", vec!["--bitmaps"]),
        ("fine", vec!["--bitmaps", "-S", "0"]),
        ("fine", vec!["--bitmaps", "-o", "cluster_size=512"]),
        ("fine", vec!["--bitmaps", "-o", "compat=0.10"]),
        ("broken", vec!["--bitmaps"]),
    ];
    if major() >= 7 {
        rows.push(("fine", vec!["--bitmaps", "--skip-broken-bitmaps"]));
        rows.push(("broken", vec!["--bitmaps", "--skip-broken-bitmaps"]));
    }
    for (source, options) in rows {
        let line = |target| [&["convert", "-O", "qcow2"], options.as_slice(), &[source, target]].concat();
        let (own, theirs) = (bench.drop_in(&line("x")), bench.reference(&line("y")));
        // 5.2 does not end the line of its hint.
        let said = [&own.stderr, &theirs.stderr].map(|text| text.trim_end());
        assert_eq!((own.code, said[0]), (theirs.code, said[1]), "{source} {options:?}");
        if own.code == Some(0) {
            let (own, theirs) = (fs::read(bench.path("x")).unwrap(), fs::read(bench.path("y")).unwrap());
            assert!(own == theirs, "{source} {options:?}: {} and {} bytes", own.len(), theirs.len());
            fs::remove_file(bench.path("x")).unwrap();
        }
        assert!(!bench.path("x").exists());
        let _ = fs::remove_file(bench.path("y"));
    }
}

#[test]
fn bitmaps_go_into_compressed_and_encrypted_images() {
    let bench = Bench::new();
    source(&bench, "fine", false);
    let secret = ["--object", "secret,id=s,data=a"];
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    for options in [&["-c"][..], &["-o", luks], &["-o", "data_file=d"]] {
        let line = [&["convert", "--bitmaps", "-O", "qcow2"], &secret[..], options, &["fine", "x"]].concat();
        let said = bench.instar(&line);
        assert_eq!(said.code, Some(0), "{options:?}: {said}");
        let info = bench.reference(&["info", "--output", "json", "x"]);
        let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
        let bitmaps = &info["format-specific"]["data"]["bitmaps"];
        assert_eq!(bitmaps.as_array().map(Vec::len), Some(2), "{options:?}: {info}");
        let opened = match options.contains(&luks) {
            true => "driver=qcow2,encrypt.key-secret=s,file.filename=x",
            false => "driver=qcow2,file.filename=x",
        };
        let check = [&["check", "-q"], &secret[..], &["--image-opts", opened]].concat();
        let checked = bench.reference(&check);
        assert_eq!(checked.code, Some(0), "{options:?}: {checked}");
        fs::remove_file(bench.path("x")).unwrap();
    }
}

#[test]
fn an_existing_image_gets_no_bitmaps() {
    let bench = Bench::new();
    source(&bench, "fine", false);
    bench.make(&["create", "-q", "-f", "qcow2", "x", "6M"]);
    let before = fs::read(bench.path("x")).unwrap();
    let said = bench.instar(&["convert", "-n", "--bitmaps", "-O", "qcow2", "fine", "x"]);
    assert!(said.code == Some(1) && said.stderr.contains("(unsupported)"), "{said}");
    assert!(fs::read(bench.path("x")).unwrap() == before);
}
