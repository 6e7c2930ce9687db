//! The command line of `convert` against the real `qemu-img`: what is refused in which words and in which order, and what
//! `-p` prints.

mod common;

use std::fs;

use common::{Bench, Said, assert_none, differences, line, major, profile};

/// Command lines that fail, one a line; `out` is a file that is not there.
const REFUSED: &str = "
a
nx out
d.raw out out2
-f foo d.raw out
-f qcow2 d.raw out
-O foo d.raw out
-O foo nx out
-O bochs d.raw out
-O qcow2 -o foo=bar d.raw out
-O qcow2 -o foo nx out
-o , d.raw out
-O foo -o help d.raw out
-l snapshot.foo=1 d.qcow2 out
-l snapshot.id=9 d.qcow2 out
-l nosuch d.qcow2 out
-l s1 d.raw out
-l s1 d.qcow2 d.qcow2 out
-S x d.raw out
-S 100 d.raw out
-S 17M d.raw out
-S 1k -C d.raw out
-C -c d.raw out
-c -C -S 4k d.raw out
-c -C --target-image-opts d.raw out
-m 0 d.raw out
-m 17 d.raw out
-m x d.raw out
-m 2.5 d.raw out
-m 99999999999999999999 d.raw out
-r x d.raw out
-r -1 d.raw out
-t foo d.raw out
-T foo d.raw out
-T foo nx out
-t foo nx out
-T foo
-p nx out
-p -T foo nx out
-p -m 0 d.raw out
-q -p nx out
--target-image-opts d.raw out
--target-image-opts --target-is-zero d.raw out
--target-image-opts -n d.raw driver=raw,file.filename=nx
--target-is-zero d.raw out
--target-is-zero -o help
-n d.raw nx
-n -o cluster_size=3 d.raw nx
-n -O qcow2 -o help d.raw nx
-n -o x=1 --target-is-zero d.raw nx
--image-opts -f raw d.raw out
--image-opts driver=raw,file.filename=nx out
--bitmaps d.raw out
--bitmaps d.qcow2 out
--bitmaps -O qcow2 d.raw out
--bitmaps -O qcow2 d.qcow2 d.qcow2 out
--bitmaps -O foo d.raw out
--bitmaps -O qcow2 -o foo=1 d.raw out
--bitmaps -t foo d.raw out
-B base.raw d.raw out
-B base.raw -O vdi d.raw out
-B base.raw -O qcow2 -o foo=1 d.raw out
-B base.raw -O qcow2 d.raw d.raw out
-O vdi -o backing_file=x d.raw out
-c d.raw out
-c d.raw /nx/out
-c -O vdi d.raw out
-c -O vdi -o foo=1 d.raw out
-c -O raw -o preallocation=full d.raw out
-c -O qcow2 -o preallocation=full d.raw out
-c -O qcow2 -o encryption=on d.raw out
-c -O qcow2 -o encrypt.format=luks d.raw out
-c -O qcow2 -o preallocation=full,encryption=on d.raw out
-c -O qcow2 --bitmaps -o preallocation=full d.raw out
-t foo -O qcow2 -o foo=1 d.raw out
-t foo -c -O qcow2 -o preallocation=full d.raw out
-O qcow2 nx /nx/out
d.raw /nx/out
d.raw .
d.raw foo:out
foo:x out
-s 1 d.raw out
-Z d.raw out
--foo d.raw out
--object foo d.raw out
--object secret,id=a d.raw out
--salvage -c d.raw out
-X
-f
-o
";

/// Those that later releases refuse.
const SINCE_7_2: &str = "
--skip-broken-bitmaps d.raw out
--skip-broken-bitmaps --target-image-opts d.raw out
-c -C --skip-broken-bitmaps d.raw out
-B base.raw -O qcow2 d.raw out
-B base.raw -c -O qcow2 -o preallocation=full d.raw out
-B base.raw -F raw -O vdi d.raw out
-B base.raw -F raw -O qcow2 d.raw d.raw out
-F raw -O raw d.raw out
-O qcow2 -o backing_file=base.raw d.raw out
-O vmdk -o backing_file=base.raw d.raw out
-O qcow -o backing_file=base.raw d.raw out
d.raw d.raw
-n -O foo d.raw e.raw
-n -c d.raw f.raw
";

/// Long names, which 10.0 and 11.1 do not share; and letters.
const NAMES: &str = "
--quiet
--progress
--source-format=raw
--source-image-opts
--image-opts
--source-snapshot=x
--snapshot=x
--source-cache=x
--target-format=raw
--output-format=raw
--target-options=a
--target-format-options=a
--options=a
--compress
--target-cache=x
--output-cache=x
--backing=x
--backing-format=x
--no-create
--sparse-size=x
--sparse=x
--force-share
--rate=x
--rate-limit=x
--parallel=x
--copy-range-offloading
--copy-range
--salvage
--oob-writes
-b x
-B x
-F x
--format=x
--cache=x
";

fn bench() -> Bench {
    let bench = Bench::new();
    let mut disk = vec![0; 1 << 20];
    disk[70_000] = b'x';
    fs::write(bench.path("d.raw"), &disk).unwrap();
    for name in ["e.raw", "f.raw"] {
        fs::write(bench.path(name), vec![0; 1 << 20]).unwrap();
    }
    bench.make(&["convert", "-O", "qcow2", "d.raw", "d.qcow2"]);
    bench.make(&["snapshot", "-c", "s1", "d.qcow2"]);
    bench
}

/// The rows of a list, each with a file of its own for `out`.
fn rows(list: &str) -> Vec<Vec<String>> {
    let row = |(index, line): (usize, &str)| {
        let own = |word: &str| match word {
            "out" => format!("out{index}"),
            word => word.to_owned(),
        };
        std::iter::once("convert".to_owned()).chain(line.split_whitespace().map(own)).collect()
    };
    list.trim_start_matches('\n').lines().enumerate().map(row).collect()
}

#[test]
fn command_lines_are_refused_in_the_same_words_and_order() {
    let bench = bench();
    let mut refused = rows(REFUSED);
    if major() >= 7 {
        refused.extend(rows(SINCE_7_2));
    }
    refused.push(vec!["convert".into()]);
    bench.assert_same(&refused);
}

#[test]
fn every_release_has_its_own_names_of_options() {
    let bench = bench();
    bench.assert_same(&rows(NAMES));
}

#[test]
fn progress_is_told_at_the_same_moments() {
    let bench = Bench::new();
    let mut random = common::Random(17);
    let mut disk = vec![0; 40 << 20];
    for _ in 0..12 {
        let start = random.below(39 << 20) as usize;
        disk[start..start + random.below(900_000) as usize].fill_with(|| random.next() as u8 | 1);
    }
    fs::write(bench.path("d.raw"), &disk).unwrap();
    bench.make(&["convert", "-O", "qcow2", "d.raw", "d.qcow2"]);
    let rows: Vec<Vec<&str>> = vec![
        vec!["-p", "d.qcow2"],
        vec!["-p", "-S", "0", "d.qcow2"],
        vec!["-p", "d.raw"],
        vec!["-p", "-O", "vdi", "d.qcow2"],
        vec!["-p", "d.raw", "d.qcow2"],
        vec!["-p", "-q", "d.qcow2"],
        vec!["d.qcow2"],
    ];
    let numbered: Vec<(usize, &Vec<&str>)> = rows.iter().enumerate().collect();
    let found = differences(&numbered, |(index, row)| {
        let names = [format!("ours{index}"), format!("theirs{index}")];
        let arguments = |name| [&["convert"], row.as_slice(), &[name]].concat();
        let mut ours = bench.command(bench.path("qemu-img"));
        let ours = Said::by(ours.env("INSTAR_QEMU_VERSION", profile()).args(arguments(names[0].as_str())));
        let theirs = bench.reference(&arguments(names[1].as_str()));
        let same = ours == theirs;
        (!same).then(|| format!("{}\ninstar: {ours}\nqemu-img: {theirs}", line(row)))
    });
    assert_none(&found, rows.len());
}

#[test]
fn presets_round_the_disk_up_and_choose_the_format() {
    let bench = bench();
    fs::write(bench.path("odd.raw"), vec![1; 1_000_000]).unwrap();
    let said = bench.instar(&["convert", "--preset", "gcp", "odd.raw", "gcp.raw"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(fs::metadata(bench.path("gcp.raw")).unwrap().len(), 1 << 30);
    let said = bench.instar(&["convert", "--preset", "azure", "odd.raw", "azure.vhd"]);
    assert_eq!(said.code, Some(0), "{said}");
    // The footer is the last sector of a fixed image.
    assert_eq!(fs::metadata(bench.path("azure.vhd")).unwrap().len(), (1 << 20) + 512);
    bench.make(&["compare", "-f", "raw", "-F", "vpc", "odd.raw", "azure.vhd"]);
    for row in [&["--preset", "foo"][..], &["--preset", "azure", "-O", "raw"], &["--preset", "azure", "-n"]] {
        let said = bench.instar(&[&["convert"], row, &["odd.raw", "x"]].concat());
        assert_eq!(said.code, Some(1), "{said}");
        assert!(said.stderr.contains("preset"), "{said}");
    }
}

#[test]
fn options_are_listed_in_instar_s_words() {
    let bench = bench();
    let said = bench.instar(&["convert", "-O", "vdi", "-o", "help", "d.raw", "out"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.stdout.starts_with("Supported options:\n  "), "{said}");
    assert!(said.stdout.contains("static=<bool (on/off)>"), "{said}");
    let said = bench.instar(&["convert", "-O", "vdi", "-o", "help"]);
    assert!(said.stdout.starts_with("Supported vdi options:\n  "), "{said}");
}

#[test]
fn an_output_is_bounded() {
    let bench = bench();
    let said = bench.instar(&["convert", "--max-output", "512k", "d.raw", "out"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said}");
    assert!(said.stderr.contains("(limit"), "{said}");
    assert!(!bench.path("out").exists());
    let said = bench.instar(&["convert", "--max-output", "1M", "d.raw", "out"]);
    assert_eq!(said.code, Some(0), "{said}");
    // There is no such option to qemu-img.
    let said = bench.drop_in(&["convert", "--max-output", "1M", "d.raw", "out"]);
    assert_eq!(said.code, Some(1), "{said}");
}
