//! `info` against the real `qemu-img`, under the limits that callers set, and where instar differs on purpose.

mod common;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, time::Instant};

use common::{Bench, Said, assert_none, corpus, differences, profile, settle};

/// A bench with images that name others: overlays, a data file, extents, a parent.
fn bench_with_references() -> Bench {
    let bench = Bench::new();
    for line in [
        "create -q -f raw base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw over.qcow2",
        "create -q -f qcow2 -b over.qcow2 -F qcow2 top.qcow2",
        "create -q -f qcow2 -o data_file=data.raw,data_file_raw=on data.qcow2 1M",
        "create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 5G",
        "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M",
    ] {
        bench.make(&line.split(' ').collect::<Vec<_>>());
    }
    bench
}

#[test]
fn the_corpus_is_described_within_the_limits_that_callers_set() {
    let bench = Bench::new();
    let names = corpus(bench.directory(), "*");
    assert!(names.len() >= 200, "only {} images", names.len());
    settle(bench.directory());
    let rows: Vec<[&str; 2]> =
        names.iter().flat_map(|name| ["human", "json"].map(|output| [output, name.as_str()])).collect();
    let found = differences(&rows, |&[output, name]| {
        let row = ["info", "--output", output, name];
        let theirs = bench.reference(&row);
        let mut limited = bench.command("prlimit");
        limited.args(["--as=1073741824", "--cpu=2"]).arg(bench.path("qemu-img")).args(row);
        let ours = Said::by(limited.env("INSTAR_QEMU_VERSION", profile()));
        (ours != theirs).then(|| format!("{row:?}\ninstar: {ours}\nqemu-img: {theirs}"))
    });
    assert_none(&found, rows.len());
}

#[test]
fn command_lines_are_read_as_qemu_img_reads_them() {
    let bench = bench_with_references();
    let lines = [
        "",
        "base.raw over.qcow2",
        "--output=json",
        "--output xml base.raw",
        "--output json --output human base.raw",
        "-f nosuch base.raw",
        "-f qcow2 base.raw",
        "-f raw over.qcow2",
        "--format raw over.qcow2",
        "nosuch.raw",
        "--image-opts -f raw base.raw",
        "--image-opts driver=qcow2,file.filename=over.qcow2",
        "--image-opts driver=raw,file.filename=base.raw --output=json",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"over.qcow2\"}}",
        "file:over.qcow2",
        "./over.qcow2",
        "-U base.raw",
        "--force-share --force base.raw",
        "--object secret,id=x base.raw",
        "--object secret,id=x,data=y base.raw",
        "--back base.raw",
        "-b base.raw",
        "-t none base.raw",
        "-t bogus base.raw",
        "--cache unsafe base.raw",
        "--cache",
        "--limits base.raw",
        "--limits --output=json over.qcow2",
        "--foo base.raw",
        "--foo=3 base.raw",
        "--f raw base.raw",
        "--o json base.raw",
        "--force-share=1 base.raw",
        "-x base.raw",
        "--output",
        "-f",
        "-- base.raw",
    ];
    let words = |line: &'static str| line.split(' ').filter(|word| !word.is_empty());
    let rows: Vec<Vec<&str>> =
        lines.iter().map(|line| ["info"].into_iter().chain(words(line)).collect()).collect();
    bench.assert_same(&rows);
}

#[test]
fn a_chain_is_described_where_the_user_allows_it() {
    let bench = bench_with_references();
    for output in ["--output=human", "--output=json"] {
        let theirs = bench.reference(&["info", "--backing-chain", output, "top.qcow2"]);
        let ours =
            bench.drop_in(&["info", "--backing-chain", "--allow-references", ".", output, "top.qcow2"]);
        assert_eq!(ours, theirs);
    }
    let said = bench.instar(&["info", "--backing-chain", "top.qcow2"]);
    let text = "instar: Could not open 'top.qcow2': backing file 'over.qcow2' is a reference to another file and was not followed (see --allow-references) (reference-denied: backing_file_offset)\n";
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(1), "", text));
}

#[test]
fn the_file_that_a_chain_lacks_is_told_with_the_image_that_names_it() {
    let bench = bench_with_references();
    fs::remove_file(bench.path("base.raw")).unwrap();
    let said = bench.instar(&["info", "--backing-chain", "--allow-references", ".", "over.qcow2"]);
    let text = "instar: Could not open 'over.qcow2': Could not open 'base.raw': No such file or directory (io: backing_file_offset)\n";
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(1), "", text));
}

#[test]
fn extents_in_files_of_their_own_are_named_and_not_opened() {
    let bench = bench_with_references();
    for entry in fs::read_dir(bench.directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("split-") || name.starts_with("flat-") || name == "data.raw" {
            fs::remove_file(bench.path(&name)).unwrap();
        }
    }
    let said = bench.instar(&["info", "split.vmdk"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let extents = "    extents:\n        [0]:\n            virtual size: 2147483648\n            filename: split-s001.vmdk\n            format: SPARSE\n";
    assert!(said.stdout.contains(extents), "{said}");
    assert!(!said.stdout.contains("cluster"), "{said}");
    let said = bench.instar(&["info", "--output=json", "flat.vmdk"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(
        said.stdout.contains("\"filename\": \"flat-flat.vmdk\",\n                    \"format\": \"FLAT\"\n"),
        "{said}"
    );
    let said = bench.instar(&["info", "data.qcow2"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("    data file: data.raw\n    data file raw: true\n"), "{said}");
}

#[test]
fn names_that_could_forge_a_line_are_escaped_for_people() {
    let bench = Bench::new();
    let odd = OsStr::from_bytes(b"a\x1b[31m\n\xff.raw");
    let words = ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b"].map(OsStr::new);
    let rest = ["over.qcow2", "1M"].map(OsStr::new);
    let arguments: Vec<&OsStr> = words.into_iter().chain([odd]).chain(rest).collect();
    assert_eq!(bench.reference(&arguments).code, Some(0));
    fs::write(bench.directory().join(odd), [0; 512]).unwrap();

    let said = bench.instar(&["info", "over.qcow2"]);
    assert!(
        said.stdout.contains("\nbacking file: a\\x1b[31m\\n\\xff.raw\nbacking file format: raw\n"),
        "{said}"
    );
    let row = ["info", "-f", "raw"].map(OsStr::new);
    let said = bench.drop_in(&[row[0], row[1], row[2], odd]);
    assert!(said.stdout.starts_with("image: a\\x1b[31m\\n\\xff.raw\nfile format: raw\n"), "{said}");

    let json = OsStr::new("--output=json");
    for name in [OsStr::new("over.qcow2"), odd] {
        let row = [OsStr::new("info"), json, name];
        assert_eq!(bench.drop_in(&row), bench.reference(&row));
    }
}

#[test]
fn what_a_description_says_of_an_image_is_its_name() {
    let bench = bench_with_references();
    let operand = "driver=raw,offset=512,file.filename=base.raw";
    let said = bench.instar(&["info", "--image-opts", operand]);
    assert!(
        said.stdout.starts_with(&format!(
            "image: {operand}\nfile format: raw\nvirtual size: 1 MiB (1048064 bytes)\n"
        )),
        "{said}"
    );
    let operand = "driver=file,filename=base.raw";
    let said = bench.instar(&["info", "--image-opts", operand]);
    assert!(said.stdout.starts_with("image: base.raw\nfile format: raw\n"), "{said}");
    let operand = "driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw";
    let said = bench.instar(&["info", "--image-opts", "--backing-chain", operand]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("\n\nimage: base.raw\n"), "{said}");
}

/// A qcow2 image with `count` snapshots, their table made by hand.
fn with_snapshots(bench: &Bench, name: &str, count: u32, length: usize) {
    bench.make(&["create", "-q", "-f", "qcow2", name, "1M"]);
    let mut bytes = fs::read(bench.path(name)).unwrap();
    bytes.resize(bytes.len().next_multiple_of(0x1_0000), 0);
    let start = bytes.len() as u64;
    for number in 0..count {
        // Section "Snapshots" of the qcow2 specification: an entry without an L1 table, with 24 bytes of extra data.
        let id = number.to_string();
        let mut entry = vec![0; 40];
        entry[12..14].copy_from_slice(&(id.len() as u16).to_be_bytes());
        entry[14..16].copy_from_slice(&(length as u16).to_be_bytes());
        entry[16..20].copy_from_slice(&(number << 16).to_be_bytes());
        entry[24..32].copy_from_slice(&(u64::from(number) << 40).to_be_bytes());
        entry[36..40].copy_from_slice(&24_u32.to_be_bytes());
        entry.extend((u64::from(number) << 20).to_be_bytes());
        entry.extend((1_u64 << 20).to_be_bytes());
        // One in three was not counted.
        entry.extend(if number % 3 == 0 { [0xff; 8] } else { u64::from(number).to_be_bytes() });
        entry.extend(id.bytes());
        entry.extend(std::iter::repeat_n(b'n', length));
        entry.resize(entry.len().next_multiple_of(8), 0);
        bytes.extend(entry);
    }
    bytes[60..64].copy_from_slice(&count.to_be_bytes());
    bytes[64..72].copy_from_slice(&start.to_be_bytes());
    fs::write(bench.path(name), bytes).unwrap();
}

#[test]
fn many_snapshots_are_listed() {
    let bench = Bench::new();
    with_snapshots(&bench, "many.qcow2", 3000, 300);
    settle(bench.directory());
    let rows = ["human", "json"].map(|output| vec!["info", "--output", output, "many.qcow2"]);
    bench.assert_same(&rows);
}

#[test]
fn lists_are_bounded() {
    let bench = Bench::new();
    with_snapshots(&bench, "most.qcow2", 65536, 300);
    let started = Instant::now();
    let said = bench.instar(&["info", "most.qcow2"]);
    let text =
        "instar: Could not open 'most.qcow2': The image has too many to be shown (limit: snapshot table)\n";
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(1), "", text));
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn a_bitmap_whose_name_is_taken_is_listed() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "qcow2", "two.qcow2", "1M"]);
    for name in ["b1", "b2"] {
        bench.make(&["bitmap", "--add", "two.qcow2", name]);
    }
    // Section "Bitmap directory" of the qcow2 specification: the second entry, whose name is 24 bytes from its start.
    let mut bytes = fs::read(bench.path("two.qcow2")).unwrap();
    let name = bytes.windows(2).rposition(|bytes| bytes == b"b2").unwrap();
    bytes[name + 1] = b'1';
    bytes[name - 24 + 15] |= 1;
    fs::write(bench.path("two.qcow2"), bytes).unwrap();
    settle(bench.directory());
    let rows = ["human", "json"].map(|output| vec!["info", "--output", output, "two.qcow2"]);
    bench.assert_same(&rows);
}

#[test]
fn the_content_of_bitmaps_is_not_read_for_info() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "qcow2", "bitmap.qcow2", "1M"]);
    bench.make(&["bitmap", "--add", "bitmap.qcow2", "a bitmap"]);
    let mut bytes = fs::read(bench.path("bitmap.qcow2")).unwrap();
    let entry = bytes.windows(8).rposition(|bytes| bytes == b"a bitmap").unwrap() - 24;
    let table = u64::from_be_bytes(bytes[entry..entry + 8].try_into().unwrap()) as usize;
    // Bits that section "Bitmap table" of the qcow2 specification reserves.
    bytes[table + 7] |= 2;
    fs::write(bench.path("bitmap.qcow2"), bytes).unwrap();
    assert_eq!(bench.reference(&["info", "bitmap.qcow2"]).code, Some(1));
    let said = bench.instar(&["info", "bitmap.qcow2"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("            name: a bitmap\n"), "{said}");
}

#[test]
fn a_differencing_vhd_names_its_parent() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "vpc", "child.vpc", "1M"]);
    let mut bytes = fs::read(bench.path("child.vpc")).unwrap();
    // "Parent Unicode Name" of the dynamic disk header, and "Disk Type" and "Checksum" of both footers.
    let name: Vec<u8> = "parent.vhd".encode_utf16().flat_map(u16::to_be_bytes).collect();
    bytes[512 + 64..][..name.len()].copy_from_slice(&name);
    let end = bytes.len() - 512;
    for footer in [0, end] {
        let footer = &mut bytes[footer..footer + 512];
        footer[60..64].copy_from_slice(&4_u32.to_be_bytes());
        footer[64..68].fill(0);
        let sum: u32 = footer.iter().map(|&byte| u32::from(byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    }
    fs::write(bench.path("child.vpc"), bytes).unwrap();
    let theirs = bench.reference(&["info", "child.vpc"]);
    assert!(theirs.code == Some(0) && !theirs.stdout.contains("backing"), "{theirs}");
    let said = bench.instar(&["info", "child.vpc"]);
    assert!(said.stdout.contains("\nbacking file: parent.vhd\nbacking file format: vpc\n"), "{said}");
}

#[test]
fn limits_are_those_of_the_page_cache() {
    let bench = bench_with_references();
    for mode in ["writeback", "none"] {
        let said = bench.instar(&["info", "--limits", "-t", mode, "-f", "raw", "base.raw"]);
        let limits = "Block limits:\n    request alignment: 1\n    min mem alignment: 1\n    opt mem alignment: 4096\n    max iov: 1024\n";
        assert!(said.stdout.contains(limits), "{said}");
    }
}

#[test]
fn an_unknown_letter_of_a_bundle_is_told_alone() {
    let bench = bench_with_references();
    let mut command = bench.command(bench.path("qemu-img"));
    let said = Said::by(command.args(["info", "--qemu-version", "7.2", "-Ux", "base.raw"]));
    let text = "qemu-img: unrecognized option '-x'\nTry 'qemu-img --help' for more information\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), text));
}
