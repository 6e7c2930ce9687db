//! `check` against the real `qemu-img`: command lines, texts, exit codes; and where instar differs on purpose.

mod common;

use std::fs;

use common::{Bench, corpus};

/// A bench with images that are in order, and with two that are not.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "raw", "base.raw", "1M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "plain.qcow2", "10M"]);
    assert!(bench.qemu_io("plain.qcow2", &["write 0 1M", "write 3M 64k", "write -c 4M 128k"]));
    bench.make(&["snapshot", "-c", "one", "plain.qcow2"]);
    assert!(bench.qemu_io("plain.qcow2", &["write 64k 64k"]));
    let file = fs::File::options().write(true).open(bench.path("plain.qcow2")).unwrap();
    file.set_len(31 << 16).unwrap();
    for copy in ["whole.qcow2", "whole-too.qcow2"] {
        fs::copy(bench.path("plain.qcow2"), bench.path(copy)).unwrap();
    }
    let bytes = fs::read(bench.path("plain.qcow2")).unwrap();
    let shared = number(&bytes, number(&bytes, number(&bytes, 40)));
    let block = refcount_block(&bench, "plain.qcow2");
    // A cluster that nothing uses, and one that two use and is said to be used once.
    let leak = (block + 2 * 30, &[0, 1][..]);
    patched(&bench, "plain.qcow2", "leaky.qcow2", &[leak]);
    patched(&bench, "plain.qcow2", "corrupt.qcow2", &[(block + 2 * (shared >> 16), &[0, 1]), leak]);
    bench
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00)
        .unwrap()
}

/// File offset of the first refcount block.
fn refcount_block(bench: &Bench, name: &str) -> usize {
    let bytes = fs::read(bench.path(name)).unwrap();
    number(&bytes, number(&bytes, 48))
}

/// Writes a copy of an image in which some bytes are others.
fn patched(bench: &Bench, from: &str, to: &str, changes: &[(usize, &[u8])]) {
    let mut bytes = fs::read(bench.path(from)).unwrap();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    fs::write(bench.path(to), bytes).unwrap();
}

fn snapshots(bench: &Bench, name: &str) -> usize {
    let said = bench.reference(&["snapshot", "-l", "-U", name]);
    said.stdout.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count()
}

#[test]
fn command_lines_are_read_as_qemu_img_reads_them() {
    let bench = bench();
    let lines = [
        "",
        "base.raw plain.qcow2",
        "plain.qcow2",
        "-q plain.qcow2",
        "--quiet plain.qcow2",
        "-q leaky.qcow2",
        "-q --output json corrupt.qcow2",
        "--output=json plain.qcow2",
        "--output=json leaky.qcow2",
        "--output xml plain.qcow2",
        "--output json --output human corrupt.qcow2",
        "leaky.qcow2",
        "base.raw",
        "-f raw plain.qcow2",
        "-f raw --output=json base.raw",
        "-f qcow2 base.raw",
        "-f nosuch plain.qcow2",
        "nosuch.qcow2",
        "--image-opts -f qcow2 plain.qcow2",
        "--image-opts driver=qcow2,file.filename=plain.qcow2",
        "--image-opts driver=qcow2,file.filename=corrupt.qcow2 --output=json",
        "-r bogus plain.qcow2",
        "--repair",
        "-r",
        "-r leaks whole.qcow2",
        "-rall whole-too.qcow2",
        "-U plain.qcow2",
        "-U -r all plain.qcow2",
        "-T none plain.qcow2",
        "-T bogus plain.qcow2",
        "--cache none plain.qcow2",
        "--object secret,id=x plain.qcow2",
        "--object secret,id=x,data=y plain.qcow2",
        "--foo plain.qcow2",
        "--force plain.qcow2",
        "--o json plain.qcow2",
        "-x plain.qcow2",
        "-- plain.qcow2",
    ];
    let words = |line: &'static str| line.split(' ').filter(|word| !word.is_empty());
    let rows: Vec<Vec<&str>> =
        lines.iter().map(|line| ["check"].into_iter().chain(words(line)).collect()).collect();
    bench.assert_same(&rows);
}

#[test]
fn the_corpus_is_checked_as_qemu_img_checks_it() {
    let bench = Bench::new();
    let names = corpus(bench.directory(), "*.qcow2");
    assert!(names.len() >= 50, "only {} images", names.len());
    let rows: Vec<Vec<&str>> = names
        .iter()
        .flat_map(|name| {
            ["human", "json"].map(|output| vec!["check", "--output", output, "-f", "qcow2", name])
        })
        .collect();
    bench.assert_same(&rows);
}

#[test]
fn what_is_repaired_is_told_before_the_image_is_checked_once_more() {
    let bench = bench();
    for (name, how, text) in [
        (
            "leaky.qcow2",
            "leaks",
            "The following inconsistencies were found and repaired:\n\n    1 leaked clusters\n    0 corruptions\n\nDouble checking the fixed image now...\nNo errors were found on the image.\n",
        ),
        (
            "corrupt.qcow2",
            "all",
            "The following inconsistencies were found and repaired:\n\n    1 leaked clusters\n    1 corruptions\n\nDouble checking the fixed image now...\nNo errors were found on the image.\n",
        ),
    ] {
        fs::copy(bench.path(name), bench.path("before")).unwrap();
        let said = bench.instar(&["check", "-r", how, name]);
        assert_eq!(said.code, Some(0), "{said}");
        assert!(said.stdout.starts_with(text), "{said}");
        assert!(said.stderr.contains("Repairing cluster 30 refcount=1 reference=0\n"), "{said}");
        bench.make(&["check", "-q", name]);
        bench.make(&["compare", "-q", "before", name]);
        assert_eq!(snapshots(&bench, name), 1);
    }
}

#[test]
fn a_check_needs_neither_a_key_nor_another_file() {
    let bench = bench();
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "data.qcow2", "1M"]);
    fs::remove_file(bench.path("base.raw")).unwrap();
    fs::remove_file(bench.path("data.raw")).unwrap();
    let encrypted = "encrypt.format=aes,encrypt.key-secret=s";
    bench.make(&[
        "create",
        "-q",
        "--object",
        "secret,id=s,data=s",
        "-f",
        "qcow2",
        "-o",
        encrypted,
        "key.qcow2",
        "1M",
    ]);
    for name in ["over.qcow2", "data.qcow2", "key.qcow2"] {
        assert_eq!(bench.reference(&["check", name]).code, Some(1));
        for how in [&["check", name][..], &["check", "-r", "all", name]] {
            let said = bench.instar(how);
            assert!(said.code == Some(0) && said.stderr.is_empty(), "{name}: {said}");
        }
    }
}

#[test]
fn snapshots_survive_the_repair_of_an_image_with_bitmaps() {
    let bench = bench();
    bench.make(&["bitmap", "--add", "leaky.qcow2", "bitmap"]);
    fs::copy(bench.path("leaky.qcow2"), bench.path("theirs.qcow2")).unwrap();
    let said = bench.instar(&["check", "-r", "all", "leaky.qcow2"]);
    assert_eq!((said.code, snapshots(&bench, "leaky.qcow2")), (Some(0), 1), "{said}");
    // What `qemu-img` does, should it not do so any more there is nothing to tell of.
    bench.reference(&["check", "-r", "all", "theirs.qcow2"]);
    assert_eq!(snapshots(&bench, "theirs.qcow2"), 0);
}

#[test]
fn bitmaps_that_the_data_went_on_without_are_leaks_and_nothing_more() {
    let bench = bench();
    bench.make(&["bitmap", "--add", "plain.qcow2", "bitmap"]);
    patched(&bench, "plain.qcow2", "stale.qcow2", &[(88, &[0; 8])]);
    let (ours, theirs) =
        (bench.drop_in(&["check", "stale.qcow2"]), bench.reference(&["check", "stale.qcow2"]));
    assert_eq!((ours.code, &ours.stdout), (Some(3), &theirs.stdout));
    assert!(theirs.stderr.contains("all bitmaps are now considered inconsistent"));
    assert!(ours.stderr.lines().all(|line| line.starts_with("Leaked cluster ")), "{ours}");
}

#[test]
fn a_broken_table_of_a_bitmap_ends_the_check_and_not_the_opening() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "qcow2", "bitmap.qcow2", "10M"]);
    bench.make(&["bitmap", "--add", "bitmap.qcow2", "bitmap"]);
    let bytes = fs::read(bench.path("bitmap.qcow2")).unwrap();
    // Section "Bitmaps extension" of the qcow2 specification: the directory's offset; its first entry begins with that of the table.
    let kind = bytes.windows(4).position(|kind| kind == [0x23, 0x85, 0x28, 0x75]).unwrap();
    let table = number(&bytes, number(&bytes, kind + 24));
    patched(&bench, "bitmap.qcow2", "broken.qcow2", &[(table, &2_u64.to_be_bytes())]);
    assert_eq!(bench.reference(&["check", "broken.qcow2"]).code, Some(1));
    let said = bench.instar(&["check", "broken.qcow2"]);
    let text = "instar: Check failed: Invalid argument (corrupt: bitmap table)\n";
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(1), "", text));
}

#[test]
fn no_repair_makes_a_file_grow_by_an_image_s_word() {
    let bench = bench();
    let bytes = fs::read(bench.path("plain.qcow2")).unwrap();
    let table = number(&bytes, 48);
    // A second refcount block, 256 GiB behind the first byte.
    patched(&bench, "plain.qcow2", "far.qcow2", &[(table + 8, &(1_u64 << 38).to_be_bytes())]);
    fs::copy(bench.path("far.qcow2"), bench.path("before")).unwrap();
    let said = bench.instar(&["check", "-r", "all", "far.qcow2"]);
    assert!(
        said.stderr
            .starts_with("Repairing refcount block 1 is outside image\nRebuilding refcount structure\n")
    );
    assert!(said.code == Some(0) && fs::metadata(bench.path("far.qcow2")).unwrap().len() < 4 << 20, "{said}");
    bench.make(&["check", "-q", "far.qcow2"]);
    bench.make(&["compare", "-q", "plain.qcow2", "far.qcow2"]);
}

#[test]
fn rebuilt_refcounts_lie_behind_the_end_of_the_file() {
    let bench = bench();
    let bytes = fs::read(bench.path("plain.qcow2")).unwrap();
    patched(&bench, "plain.qcow2", "lost.qcow2", &[(number(&bytes, 48), &[0; 8])]);
    let lost = fs::read(bench.path("lost.qcow2")).unwrap();
    let said = bench.instar(&["check", "-r", "all", "lost.qcow2"]);
    assert_eq!(said.code, Some(0), "{said}");
    let repaired = fs::read(bench.path("lost.qcow2")).unwrap();
    // But for the header, which says where they are, and marks in tables nothing has changed.
    let table = number(&repaired, 48);
    assert!(table >= lost.len() && number(&repaired, table) >= lost.len());
    bench.make(&["check", "-q", "lost.qcow2"]);
    bench.make(&["compare", "-q", "plain.qcow2", "lost.qcow2"]);
}

#[test]
fn a_cluster_with_more_references_than_can_be_counted_is_not_marked_as_one_with_a_single_one() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", "narrow.qcow2", "1M"]);
    assert!(bench.qemu_io("narrow.qcow2", &["write 0 128k"]));
    let bytes = fs::read(bench.path("narrow.qcow2")).unwrap();
    let l2 = number(&bytes, number(&bytes, 40));
    let shared = &(number(&bytes, l2) as u64).to_be_bytes();
    patched(&bench, "narrow.qcow2", "shared.qcow2", &[(l2, shared), (l2 + 8, shared)]);
    let said = bench.instar(&["check", "-r", "all", "shared.qcow2"]);
    assert!(said.code == Some(2) && said.stderr.contains("ERROR OFLAG_COPIED data cluster"), "{said}");
    let after = fs::read(bench.path("shared.qcow2")).unwrap();
    assert_eq!(&after[l2..l2 + 16], [*shared, *shared].concat());
}

#[test]
fn an_image_that_is_repaired_cannot_be_shared() {
    let said = bench().instar(&["check", "-U", "-r", "all", "plain.qcow2"]);
    let text = "instar: Could not open 'plain.qcow2': force-share=on can only be used with read-only images (usage)\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), text));
}
