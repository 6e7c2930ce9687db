//! `map` against the real `qemu-img`, how it ends where something is wrong, and where instar differs on purpose.

mod common;

use std::{
    fs::{self, File},
    io::Read,
    os::{fd::OwnedFd, unix::fs::FileExt},
    process::Stdio,
    time::{Duration, Instant},
};

use common::{Bench, Said, assert_none, corpus, differences, settle};

const NO_OFFSET: &str = "File contains external, encrypted or compressed clusters.";

/// A bench with images of all kinds of extents, some of which name others.
fn bench() -> Bench {
    let bench = Bench::new();
    for line in [
        "create -q -f raw base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw over.qcow2 2M",
        "create -q -f qcow2 -b over.qcow2 -F qcow2 top.qcow2 3M",
        "create -q -f qcow2 -o data_file=data.raw data.qcow2 1M",
        "create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 5G",
        "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M",
        "create -q -f qcow2 mixed.qcow2 4M",
        "create -q -f vhdx silent.vhdx 4M",
        "create -q -f raw empty.raw 0",
        "create -q -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 1M",
        "create -q -f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 disk.luks 1M",
    ] {
        bench.make(&line.split(' ').collect::<Vec<_>>());
    }
    let write = |name: &str, commands: &[&str]| {
        let program = std::env::var_os("QEMU_IO").unwrap_or_else(|| "qemu-io".into());
        let mut io = bench.command(program);
        let said = Said::by(io.args(commands.iter().flat_map(|command| ["-c", command])).arg(name));
        assert_eq!(said.code, Some(0), "{name}: {said}");
    };
    write("base.raw", &["write 100k 200k"]);
    write("over.qcow2", &["write 64k 64k", "write -z 512k 128k"]);
    write("top.qcow2", &["write 2M 64k"]);
    write("data.qcow2", &["write 128k 64k"]);
    write("split.vmdk", &["write 2047M 2M"]);
    write("flat.vmdk", &["write 128k 64k"]);
    write(
        "mixed.qcow2",
        &["write 0 64k", "write -c 128k 64k", "write -z 1M 64k", "write 2M 1M", "write -z 2M 64k"],
    );
    settle(bench.directory());
    bench
}

/// What both say of the rows, everything beneath the bench's directory being allowed.
fn assert_same(bench: &Bench, rows: &[Vec<&str>]) {
    let found = differences(rows, |row| {
        let ours = Said::by(
            bench
                .command(bench.path("qemu-img"))
                .env("INSTAR_ALLOW_REFERENCES", ".")
                .env("INSTAR_QEMU_VERSION", common::profile())
                .args(row),
        );
        let theirs = bench.reference(row);
        (ours != theirs).then(|| format!("{}\ninstar: {ours}\nqemu-img: {theirs}", common::line(row)))
    });
    assert_none(&found, rows.len());
}

#[test]
fn the_corpus_is_mapped() {
    let bench = Bench::new();
    let names = corpus(bench.directory(), "*");
    assert!(names.len() >= 200, "only {} images", names.len());
    settle(bench.directory());
    let rows: Vec<Vec<&str>> = names
        .iter()
        .flat_map(|name| ["human", "json"].map(|output| vec!["map", "--output", output, name.as_str()]))
        .collect();
    assert_same(&bench, &rows);
}

#[test]
fn command_lines_are_read_as_qemu_img_reads_them() {
    let bench = bench();
    let lines = [
        "",
        "base.raw over.qcow2",
        "--output=json -s 100 -l 1000 base.raw",
        "--output=json --start-offset=1.5k --max-length=2M mixed.qcow2",
        "--output=json -s 3M -l 1M mixed.qcow2",
        "--output=json -s 4M mixed.qcow2",
        "--output=json -s 7E mixed.qcow2",
        "--output=json -s 7E -l 7E mixed.qcow2",
        "--output=json -s 100 -l 9223372036854775807 mixed.qcow2",
        "--output=json -s 9223372036854775807 mixed.qcow2",
        "--output=json -l 0 mixed.qcow2",
        "-l 0 mixed.qcow2",
        "-l 64k mixed.qcow2",
        "-s 1 -l 1 mixed.qcow2",
        "-s -1 mixed.qcow2",
        "-s 8E mixed.qcow2",
        "-s x mixed.qcow2",
        "-s",
        "-l -5 mixed.qcow2",
        "-l 3x mixed.qcow2",
        "--max=5 --start=1 --out=json mixed.qcow2",
        "-s x -l y nosuch",
        "--output xml nosuch",
        "--output json --output human base.raw",
        "-f nosuch base.raw",
        "-f qcow2 base.raw",
        "-f raw over.qcow2",
        "--format raw over.qcow2",
        "nosuch.raw",
        "--image-opts -f raw base.raw",
        "--image-opts driver=qcow2,file.filename=over.qcow2",
        "--image-opts --output=json driver=raw,offset=512,size=1024,file.filename=base.raw",
        "--image-opts --output=json driver=qcow2,file.filename=over.qcow2,backing.driver=raw,backing.file.filename=empty.raw",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"over.qcow2\"}}",
        "file:over.qcow2",
        "./over.qcow2",
        "-U base.raw",
        "--force-share --force base.raw",
        "--object secret,id=x base.raw",
        "--object secret,id=s,data=abc --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2",
        "--object secret,id=s,data=abc --output=json --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2",
        "--object secret,id=s,data=abc --output=json --image-opts driver=luks,key-secret=s,file.filename=disk.luks",
        "--object secret,id=s,data=abc --image-opts driver=luks,key-secret=s,file.filename=disk.luks",
        "luks.qcow2",
        "disk.luks",
        "--foo base.raw",
        "--foo=3 base.raw",
        "--f raw base.raw",
        "--force-share=1 base.raw",
        "-x base.raw",
        "--output",
        "-- base.raw",
    ];
    let words = |line: &'static str| line.split(' ').filter(|word| !word.is_empty());
    let rows: Vec<Vec<&str>> =
        lines.iter().map(|line| ["map"].into_iter().chain(words(line)).collect()).collect();
    assert_same(&bench, &rows);
}

#[test]
fn images_of_several_files_are_mapped_where_the_user_allows_it() {
    let bench = bench();
    let two = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
               RW 512 FLAT \"base.raw\" 0\nRW 512 FLAT \"base.raw\" 512\nRW 512 FLAT \"base.raw\" 0\nRW 128 ZERO\n";
    fs::write(bench.path("twice.vmdk"), two).unwrap();
    let names = ["over.qcow2", "top.qcow2", "data.qcow2", "split.vmdk", "flat.vmdk"];
    let rows: Vec<Vec<&str>> = names
        .iter()
        .flat_map(|name| ["human", "json"].map(|output| vec!["map", "--output", output, *name]))
        .collect();
    assert_same(&bench, &rows);
    for name in names {
        for output in ["human", "json"] {
            let denied = bench.instar(&["map", "--output", output, name]);
            assert_eq!((denied.code, denied.stdout.as_str()), (Some(1), ""), "{name}");
            assert!(denied.stderr.contains(" was not followed (see --allow-references)"), "{name}: {denied}");
        }
    }
    // What is named twice is one file, as in QEMU; extents of zeros are part of the disk.
    let row = ["map", "--output=json", "-l", "512k", "twice.vmdk"];
    let ours = bench.drop_in(&[&row[..], &["--allow-references", "."]].concat());
    assert_eq!(ours, bench.reference(&row));
}

#[test]
fn clusters_past_the_end_of_a_parallels_image_are_data() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "parallels", "-o", "cluster_size=64k", "disk.parallels", "1M"]);
    let file = File::options().write(true).open(bench.path("disk.parallels")).unwrap();
    // The first entry of the BAT, in clusters.
    file.write_all_at(&[1, 0, 0, 0], 64).unwrap();
    for profile in ["10.0", "11.1"] {
        let said = bench.instar(&["map", "--qemu-version", profile, "disk.parallels"]);
        assert_eq!(
            said.stdout.lines().nth(1),
            Some("0               0x10000         0x10000         disk.parallels")
        );
    }
}

#[test]
fn people_see_nothing_behind_what_has_no_offset() {
    let bench = bench();
    let said = bench.instar(&["map", "mixed.qcow2"]);
    assert_eq!((said.code, said.stderr), (Some(1), format!("instar: {NO_OFFSET} (unsupported)\n")));
    assert_eq!(said.stdout.lines().count(), 2, "{}", said.stdout);
    let said = bench.instar(&["map", "silent.vhdx"]);
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
}

/// A qcow2 image with a fault at the disk's third MiB.
fn broken(bench: &Bench) {
    let file = File::options().read(true).write(true).open(bench.path("mixed.qcow2")).unwrap();
    let at = |offset| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset).unwrap();
        u64::from_be_bytes(bytes) & 0x00ff_ffff_ffff_fe00
    };
    let table = at(at(40));
    // Section "Cluster mapping" of the qcow2 specification: an offset within a cluster.
    file.write_all_at(&0x8000_0000_0005_0200_u64.to_be_bytes(), table + 8 * 48).unwrap();
}

#[test]
fn an_array_is_closed_when_the_tables_end_in_a_fault() {
    let bench = bench();
    broken(&bench);
    let theirs = bench.reference(&["map", "--output=json", "mixed.qcow2"]);
    let ours = bench.drop_in(&["map", "--output=json", "mixed.qcow2"]);
    let open = theirs.stdout.strip_suffix(",\n").unwrap();
    assert_eq!((ours.code, ours.stdout), (theirs.code, format!("{open}]\n")));
    assert_eq!(ours.stderr, "qemu-img: Could not read file metadata: Input/output error\n");
    assert!(theirs.stderr.ends_with(&ours.stderr), "{theirs}");
    // At the very start there is nothing to tell.
    let ours = bench.instar(&["map", "--output=json", "-s", "3M", "mixed.qcow2"]);
    assert_eq!((ours.code, ours.stdout.as_str()), (Some(1), "[]\n"));
    let text = "instar: Could not read file metadata: Input/output error (corrupt: L2 table)\n";
    assert_eq!(ours.stderr, text);
}

#[test]
fn more_extents_than_were_asked_for_are_a_limit() {
    let bench = bench();
    let row = ["map", "--output=json", "--max-extents", "2", "base.raw"];
    let said = bench.instar(&row);
    let text = "instar: There are more than 2 extents (see --max-extents) (limit)\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), text));
    assert!(said.stdout.lines().count() == 2 && said.stdout.ends_with("}]\n"), "{said}");
    let said = bench.instar(&["map", "--output=json", "--max-extents", "4", "base.raw"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

#[test]
fn names_that_could_forge_a_line_are_escaped_in_maps() {
    let bench = Bench::new();
    fs::write(bench.path("a\x1b[31m\nb.raw"), [1; 512]).unwrap();
    let said = bench.instar(&["map", "-f", "raw", "a\x1b[31m\nb.raw"]);
    assert_eq!(
        said.stdout.lines().nth(1),
        Some("0               0x200           0               a\\x1b[31m\\nb.raw")
    );
}

/// A raw image of many extents, more than a pipe holds.
fn comb(bench: &Bench) {
    let file = File::create(bench.path("comb.raw")).unwrap();
    for tooth in 0..20_000 {
        file.write_all_at(&[1], tooth << 13).unwrap();
    }
    file.sync_all().unwrap();
}

#[test]
fn a_reader_who_goes_away_ends_it() {
    let bench = Bench::new();
    comb(&bench);
    let mut instar = bench.command(env!("CARGO_BIN_EXE_instar"));
    let mut child = instar
        .args(["map", "--output=json", "-f", "raw", "comb.raw"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"[{ \"start\": 0, \"");
    let output = child.wait_with_output().unwrap();
    let text = "instar: Could not write to standard output: Broken pipe (io)\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), text));
}

#[test]
fn a_reader_who_never_reads_does_not_outlast_the_deadline() {
    let bench = Bench::new();
    comb(&bench);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut instar = bench.command(env!("CARGO_BIN_EXE_instar"));
    let started = Instant::now();
    let said = Said::by(
        instar
            .args(["map", "--output=json", "--timeout", "1", "-f", "raw", "comb.raw"])
            .stdout(Stdio::from(OwnedFd::from(writer))),
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    drop(reader);
    let text = "instar: The command did not finish within 1 seconds (see --timeout) (timeout)\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), text));
}
