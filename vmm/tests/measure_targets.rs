//! Targets that `qemu-img` cannot measure: what instar says beforehand is what `qemu-img convert` writes, to the byte.

mod common;

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use common::{Bench, Random, Said, assert_none, differences, major, profile, qemu_img};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Secrets that options refer to.
const SECRET: &str = "secret,id=s,data=0123456789abcdef";

/// Formats, and lists of their options: every option with every word it takes, or numbers over its range.
const TARGETS: &[(&str, &[&str])] = &[
    (
        "vmdk",
        &[
            "",
            "subformat=monolithicSparse,adapter_type=ide",
            "adapter_type=lsilogic,hwversion=10",
            "compat6=on,zeroed_grain=on,preallocation=full",
            "subformat=streamOptimized",
            "subformat=streamOptimized,zeroed_grain=on,adapter_type=buslogic",
            "subformat=monolithicFlat",
            "subformat=monolithicFlat,adapter_type=legacyESX",
            "subformat=monolithicFlat,compat6,nocow=on",
            "subformat=monolithicFlat,hwversion=undefined,zeroed_grain=off,preallocation=falloc",
            "subformat=twoGbMaxExtentSparse",
            "subformat=twoGbMaxExtentSparse,hwversion=20,adapter_type=buslogic,zeroed_grain=on",
            "subformat=twoGbMaxExtentFlat",
            "subformat=twoGbMaxExtentFlat,adapter_type=lsilogic,extent_size_hint=1M",
        ],
    ),
    (
        "vpc",
        &[
            "",
            "subformat=dynamic,preallocation=falloc",
            "force_size=on",
            "subformat=fixed",
            "subformat=fixed,force_size=on,preallocation=full",
            "subformat=fixed,force_size=off",
        ],
    ),
    (
        "vhdx",
        &[
            "",
            "subformat=dynamic,block_size=0,log_size=1M",
            "block_size=1M,log_size=1",
            "block_size=1536k,log_size=1536k",
            "block_size=32M,log_size=20M,preallocation=falloc",
            "block_size=256M",
            "block_size=1G,block_state_zero=off",
            "block_state_zero=off",
            "subformat=fixed",
            "subformat=fixed,block_state_zero=off",
            "subformat=fixed,block_size=1M,block_state_zero=on",
            "subformat=fixed,block_size=2M,block_state_zero=off,log_size=2M",
        ],
    ),
    ("vdi", &["", "static=on", "static=off,preallocation=full", "static=on,preallocation=falloc"]),
    (
        "qcow",
        &[
            "",
            "encryption=on,encrypt.key-secret=s",
            "encrypt.format=aes,encrypt.key-secret=s,preallocation=full",
        ],
    ),
    (
        "qed",
        &[
            "",
            "cluster_size=4k",
            "cluster_size=4k,table_size=2",
            "table_size=16",
            "cluster_size=1M,table_size=2,preallocation=falloc",
            "cluster_size=128k,table_size=8",
        ],
    ),
    (
        "parallels",
        &["", "cluster_size=1", "cluster_size=4k,preallocation=full", "cluster_size=3M", "cluster_size=64k"],
    ),
];

/// Disks that are written from end to end.
const DENSE: &[u64] = &[512, 65_024, 65_536, 66_048, MIB - 512, MIB, MIB + 512, 2 * MIB, 4 * MIB + 512];

/// Disks without data: sectors, blocks, tables, 2 GiB, sizes of VHDX blocks.
const EMPTY: &[u64] = &[
    512,
    MIB + 512,
    GIB,
    GIB + 512,
    2 * GIB - 512,
    2 * GIB,
    2 * GIB + 512,
    33 * GIB,
    100 * GIB + 512,
    1024 * GIB,
];

/// Disks whose size VHD rounds up: around what cylinders express with each number of sectors a track, and the longest.
const GEOMETRIES: &[u64] = &[
    MIB,
    1023 * 4 * 17 * 512,
    1024 * 4 * 17 * 512,
    1024 * 16 * 17 * 512,
    1024 * 16 * 31 * 512 - 512,
    1024 * 16 * 31 * 512,
    1024 * 16 * 63 * 512,
    65535 * 16 * 63 * 512 - 512,
    65535 * 16 * 63 * 512,
    65535 * 16 * 255 * 512 - 512,
    65535 * 16 * 255 * 512,
    65535 * 16 * 255 * 512 + 512,
    2040 * GIB,
];

/// What a cell's disk holds.
#[derive(Debug)]
enum Source {
    /// So many bytes of nothing.
    Empty(u64),
    /// What the file holds.
    File(String),
}

/// A target, its options, and what it gets.
#[derive(Debug)]
struct Cell {
    target: &'static str,
    list: &'static str,
    source: Source,
}

/// Whether the reference can make images of the format.
fn is_known(target: &str) -> bool {
    target != "parallels" || major() >= 6
}

fn lists() -> impl Iterator<Item = (&'static str, &'static str)> {
    let known = TARGETS.iter().filter(|(target, _)| is_known(target));
    known.flat_map(|&(target, lists)| lists.iter().map(move |&list| (target, list)))
}

/// Arguments of both programs for a target.
fn target(target: &str, list: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--object", SECRET, "-O", target].map(Into::into).into();
    if !list.is_empty() {
        arguments.extend(["-o".into(), list.into()]);
    }
    arguments
}

/// Runs `qemu-img convert` to the file `name` in a directory of its own; answers what it said, and the bytes of all
/// files that it made.
fn convert(bench: &Bench, cell: &Cell, name: &str) -> (Said, u64) {
    let directory = tempfile::tempdir_in(bench.directory()).unwrap();
    let mut command = bench.command(qemu_img());
    command.arg("convert");
    match &cell.source {
        Source::Empty(size) => {
            command.args(["--image-opts", &format!("driver=null-co,size={size},read-zeroes=on")])
        }
        Source::File(file) => command.args(["-f", "raw", file]),
    };
    let said = Said::by(command.args(target(cell.target, cell.list)).arg(directory.path().join(name)));
    (said, length(directory.path()))
}

/// Bytes of all files in a directory. A descriptor counts as if all digits of its content id were written.
fn length(directory: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let length = fs::metadata(&path).unwrap().len();
        let mut head = vec![0; length.min(100).try_into().unwrap()];
        File::open(&path).unwrap().read_exact_at(&mut head, 0).unwrap();
        let id = String::from_utf8_lossy(&head);
        let id =
            id.strip_prefix("# Disk DescriptorFile\nversion=1\nCID=").and_then(|text| text.split_once('\n'));
        bytes += length;
        // Once rewritten it is padded.
        if let Some((id, _)) = id.filter(|_| length % 512 != 0) {
            bytes += 8 - id.len() as u64;
        }
    }
    bytes
}

/// What instar says of a cell: required and fully allocated.
fn measure(bench: &Bench, cell: &Cell) -> Result<(u64, u64), Said> {
    let mut command = bench.command(env!("CARGO_BIN_EXE_instar"));
    command.args(["measure", "--output", "json", "--qemu-version", profile()]);
    match &cell.source {
        Source::Empty(size) => command.args(["--size", &size.to_string()]),
        Source::File(file) => command.args(["-f", "raw", file]),
    };
    let said = Said::by(command.args(target(cell.target, cell.list)));
    if said.code != Some(0) {
        return Err(said);
    }
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    Ok((json["required"].as_u64().unwrap(), json["fully-allocated"].as_u64().unwrap()))
}

/// Compares what is said with what is written.
fn assert_exact(bench: &Bench, cells: &[Cell]) {
    let found = differences(cells, |cell| {
        let (said, written) = convert(bench, cell, "disk.vmdk");
        let answer = measure(bench, cell);
        let same = match &answer {
            Ok((required, _)) => said.code == Some(0) && *required == written,
            Err(ours) => refused_alike(cell, ours, &said),
        };
        (!same).then(|| format!("{cell:?}\ninstar: {answer:?}\nqemu-img: {written}, {said}"))
    });
    assert_none(&found, cells.len());
}

/// Whether both programs refuse a cell for the same reason.
fn refused_alike(cell: &Cell, ours: &Said, theirs: &Said) -> bool {
    // In front: the program, the file or that it does not open, what was being done.
    let line = theirs.stderr.lines().next().unwrap_or_default();
    let doing = format!("error while converting {}: ", cell.target);
    let reason = ["qemu-img: ", "disk.vmdk': ", "disk.vmdk: ", &doing]
        .iter()
        .fold(line, |rest, &prefix| rest.split_once(prefix).map_or(rest, |(_, rest)| rest));
    let refused = theirs.code == Some(1) && ours.code == Some(1);
    refused && !reason.is_empty() && ours.stderr.starts_with(&format!("instar: {reason} ("))
}

/// Writes bytes that do not compress, and none of them zero, from `start` to `end`.
fn fill(file: &File, start: u64, end: u64) {
    let mut random = Random(start + 1);
    let bytes: Vec<u8> = (start..end).map(|_| random.below(255) as u8 + 1).collect();
    file.write_all_at(&bytes, start).unwrap();
}

/// Makes a file of so many bytes with data in those ranges, and nowhere else.
fn sparse(bench: &Bench, name: &str, length: u64, data: &[(u64, u64)]) {
    let file = File::create(bench.path(name)).unwrap();
    file.set_len(length).unwrap();
    for &(start, end) in data {
        fill(&file, start, end);
    }
    file.sync_all().unwrap();
}

fn dense(bench: &Bench, size: u64) -> String {
    let name = format!("dense-{size}");
    if !bench.path(&name).exists() {
        sparse(bench, &name, size, &[(0, size)]);
    }
    name
}

#[test]
fn full_disks() {
    let bench = Bench::new();
    let mut cells = Vec::new();
    for (target, list) in lists() {
        for &size in DENSE {
            cells.push(Cell { target, list, source: Source::File(dense(&bench, size)) });
        }
    }
    assert!(cells.len() >= 400, "{}", cells.len());
    assert_exact(&bench, &cells);
}

#[test]
fn empty_disks() {
    let bench = Bench::new();
    let mut cells = Vec::new();
    for (target, list) in lists() {
        let geometries = if target == "vpc" { GEOMETRIES } else { &[] };
        // Hundreds of files, and no other rule than with fewer; images that are not made, for a reason of their own.
        let few = |&size: &u64| {
            let short = list.contains("twoGb") || target == "vhdx" && list.contains("fixed,block");
            size < 50 * GIB || !short
        };
        for size in EMPTY.iter().copied().filter(few).chain(geometries.iter().copied()) {
            cells.push(Cell { target, list, source: Source::Empty(size) });
        }
    }
    for source in [Source::Empty(0), Source::Empty(32768 * GIB + 512), Source::Empty(65536 * GIB)] {
        cells.push(Cell { target: "vhdx", list: "", source });
    }
    let split = "subformat=twoGbMaxExtentSparse";
    cells.push(Cell { target: "vmdk", list: split, source: Source::Empty(2003 * GIB) });
    let mut random = Random(1);
    for _ in 0..60 {
        let size = (random.next() >> (22 + random.below(24))).next_multiple_of(512).clamp(512, 2040 * GIB);
        cells.push(Cell { target: "vpc", list: "", source: Source::Empty(size) });
    }
    assert!(cells.len() >= 500, "{}", cells.len());
    assert_exact(&bench, &cells);
}

#[test]
fn disks_with_scattered_data() {
    let bench = Bench::new();
    let length = 3 * GIB + 65_536;
    let grains = [
        (65_536, 131_072),
        (MIB, MIB + 196_608),
        (2 * GIB - 65_536, 2 * GIB + 65_536),
        (2 * GIB + 5 * MIB, 2 * GIB + 6 * MIB),
        (length - 65_536, length),
    ];
    sparse(&bench, "grains", length, &grains);
    let pages = [
        (0, 4096),
        (61_440, 69_632),
        (MIB + 4096, MIB + 8192),
        (MIB + 16_384, MIB + 20_480),
        (3 * MIB - 4096, 3 * MIB + 4096),
        (2 * GIB - 4096, 2 * GIB + 4096),
    ];
    sparse(&bench, "pages", length, &pages);
    sparse(&bench, "start", 100 * MIB, &[(0, 65_536)]);
    let mut cells = Vec::new();
    for (target, list) in lists() {
        for file in ["grains", "start", "pages"] {
            // The rest of a grain compresses.
            if !(list.contains("streamOptimized") && file == "pages") {
                cells.push(Cell { target, list, source: Source::File(file.into()) });
            }
        }
    }
    assert!(cells.len() >= 130, "{}", cells.len());
    assert_exact(&bench, &cells);
}

/// `fully-allocated` is what `convert` writes when it fills the disk that the image has, which may be longer than what was
/// asked for.
#[test]
fn fully_allocated_is_the_length_of_a_full_image() {
    let bench = Bench::new();
    let mut rows = Vec::new();
    for (target, list) in lists() {
        for size in [512, MIB + 512, 5 * MIB] {
            let said = measure(&bench, &Cell { target, list, source: Source::Empty(size) }).unwrap().1;
            let name = format!("created-{}", rows.len());
            let list_or_none = if list.is_empty() { "nocow=off" } else { list };
            bench.make(&[
                "create",
                "-q",
                "--object",
                SECRET,
                "-f",
                target,
                "-o",
                list_or_none,
                &name,
                &size.to_string(),
            ]);
            let info = bench.reference(&["info", "-f", target, "--output", "json", &name]);
            let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
            let disk = info["virtual-size"].as_u64().unwrap();
            rows.push((said, Cell { target, list, source: Source::File(dense(&bench, disk)) }));
        }
    }
    let found = differences(&rows, |(said, cell)| {
        let written = convert(&bench, cell, "disk.vmdk").1;
        (*said != written).then(|| format!("{cell:?}\ninstar: {said}\nqemu-img: {written}"))
    });
    assert_none(&found, rows.len());
}

/// Over a backing file all of the source counts as written.
#[test]
fn images_over_a_backing_file() {
    let bench = Bench::new();
    for target in ["vmdk", "qcow", "qed"] {
        for size in [MIB, 3 * MIB + 512] {
            let (base, out) = (format!("base-{target}-{size}"), format!("out-{target}-{size}"));
            let source = dense(&bench, size);
            bench.make(&["create", "-q", "-f", target, &base, &size.to_string()]);
            let list = format!("backing_file={base},backing_fmt={target}");
            bench.make(&["convert", "-f", "raw", "-O", target, "-o", &list, &source, &out]);
            let said = bench.instar(&["measure", "-O", target, "-o", &list, "-f", "raw", &source]);
            let written = fs::metadata(bench.path(&out)).unwrap().len();
            assert!(said.stdout.starts_with(&format!("required size: {written}\n")), "{target}: {said}");
        }
    }
}

/// The names of extents stand in a descriptor: each byte more takes one byte more for each extent.
#[test]
fn a_descriptor_is_counted_for_a_target_named_disk() {
    let bench = Bench::new();
    for (list, extents) in [("subformat=twoGbMaxExtentSparse", 3), ("subformat=monolithicFlat", 1)] {
        let cell = Cell { target: "vmdk", list, source: Source::Empty(5 * GIB) };
        let required = measure(&bench, &cell).unwrap().0;
        for (name, more) in [("disk.vmdk", 0), ("disk", -5), ("a-longer-name.vmdk", 9)] {
            let written = convert(&bench, &cell, name).1;
            assert_eq!(written, required.checked_add_signed(more * extents).unwrap(), "{list} {name}");
        }
    }
}

/// What a stream takes depends on how well it compresses: never more than is said.
#[test]
fn a_stream_of_data_that_compresses_is_shorter() {
    let bench = Bench::new();
    fs::write(bench.path("text"), "all work and no play ".repeat(100_000)).unwrap();
    let cell =
        Cell { target: "vmdk", list: "subformat=streamOptimized", source: Source::File("text".into()) };
    let (required, _) = measure(&bench, &cell).unwrap();
    let (_, written) = convert(&bench, &cell, "disk.vmdk");
    assert!(written < required / 4, "{written} {required}");
}

/// What cannot be made is refused, in the words of `convert`.
#[test]
fn what_cannot_be_made_is_refused_in_the_same_words() {
    let rows: &[(&str, &str, u64)] = &[
        ("vmdk", "", 0),
        ("vmdk", "subformat=streamOptimized", 0),
        ("vmdk", "adapter_type=foo", MIB),
        ("vmdk", "adapter_type=IDE,subformat=foo", MIB),
        ("vmdk", "subformat=foo", MIB),
        ("vmdk", "compat6,hwversion=5", MIB),
        ("vmdk", "compat6,hwversion=5,zeroed_grain,subformat=monolithicFlat", MIB),
        ("vmdk", "zeroed_grain,subformat=monolithicFlat,preallocation=foo", MIB),
        ("vmdk", "zeroed_grain,subformat=twoGbMaxExtentFlat", MIB),
        ("vmdk", "preallocation=foo", MIB),
        ("vmdk", "preallocation=metadata", MIB),
        ("vmdk", "extent_size_hint=4G,preallocation=metadata", MIB),
        ("vmdk", "extent_size_hint=4G,preallocation=foo", MIB),
        ("vpc", "", 2040 * GIB + 512),
        ("vpc", "force_size", 2040 * GIB + 512),
        ("vpc", "subformat=fixed", 1 << 60),
        ("vpc", "subformat=fixed", 0),
        ("vpc", "subformat=foo", MIB),
        ("vpc", "subformat=foo", 4096 * GIB),
        ("vpc", "subformat=foo,preallocation=foo", MIB),
        ("vhdx", "", 65536 * GIB + 512),
        ("vhdx", "log_size=0", 65536 * GIB + 512),
        ("vhdx", "log_size=0,block_size=3M", MIB),
        ("vhdx", "log_size=4G", MIB),
        ("vhdx", "log_size=4293918721", MIB),
        ("vhdx", "log_size=18446744073709551615", MIB),
        ("vhdx", "block_size=3M", MIB),
        ("vhdx", "block_size=256M", 0),
        ("vhdx", "subformat=foo,log_size=0", MIB),
        ("vdi", "", 0x1_ffff_f800_0200),
        ("vdi", "static", 1 << 60),
        ("vdi", "preallocation=metadata", MIB),
        ("qcow", "", 0),
        ("qcow", "encrypt.format=foo", 0),
        ("qcow", "encrypt.format=luks", MIB),
        ("qcow", "encrypt.format=luks", 0),
        ("qcow", "encrypt.key-secret=s", MIB),
        ("qcow", "encrypt.format=aes,encrypt.key-secret=t", MIB),
        ("qcow", "encrypt.format=foo,encryption=on,preallocation=foo", MIB),
        ("qcow", "encrypt.format=foo,preallocation=foo", MIB),
        ("qed", "", 65536 * GIB + 512),
        ("qed", "cluster_size=64M", MIB),
        ("qed", "cluster_size=4k", 1 << 40),
        ("qed", "cluster_size=2k,table_size=3", MIB),
        ("qed", "table_size=3", MIB),
        ("qed", "table_size=4k,cluster_size=1", MIB),
        ("qed", "table_size=1", MIB),
        ("parallels", "cluster_size=0", MIB),
        ("parallels", "cluster_size=18446744073709551615", MIB),
        ("parallels", "cluster_size=2147483137", MIB),
        ("parallels", "cluster_size=8E", MIB),
        ("parallels", "cluster_size=512", 2048 * GIB),
        ("parallels", "cluster_size=512", 256 * GIB),
    ];
    let bench = Bench::new();
    // Before 7.2 an L1 table of one cluster is just an invalid argument.
    let has_words = |row: &&(&str, &str, u64)| row.1 != "table_size=1" || major() >= 6;
    let rows: Vec<_> = rows.iter().filter(|row| is_known(row.0)).filter(has_words).collect();
    let found = differences(&rows, |&&(target, list, size)| {
        let cell = Cell { target, list, source: Source::Empty(size) };
        let theirs = convert(&bench, &cell, "disk.vmdk").0;
        let ours = measure(&bench, &cell);
        let same = ours.as_ref().is_err_and(|ours| refused_alike(&cell, ours, &theirs));
        (!same).then(|| format!("{cell:?}\ninstar: {ours:?}\nqemu-img: {theirs}"))
    });
    assert_none(&found, rows.len());
}

/// Disks for which `qemu-img` makes images that do not hold them.
#[test]
fn images_that_could_not_hold_their_disks_are_refused() {
    let bench = Bench::new();
    let said = bench.instar(&["measure", "-O", "vmdk", "--size", "256T"]);
    assert_eq!(said.stderr, "instar: The image size is too large for file format 'vmdk' (unsupported)\n");
    let said = bench.instar(&["measure", "-O", "qcow", "--size", "512T"]);
    assert_eq!(said.stderr, "instar: Image too large (unsupported)\n");
    let said = bench.instar(&["measure", "-O", "qed", "-o", "cluster_size=4294971392", "--size", "1M"]);
    assert_eq!(
        said.stderr,
        "instar: QED cluster size must be within range [4096, 67108864] and power of 2 (usage)\n"
    );
    let said = bench.instar(&[
        "measure",
        "-O",
        "vhdx",
        "-o",
        "subformat=fixed,block_state_zero=off",
        "--size",
        "5008M",
    ]);
    assert_eq!(said.code, Some(0), "{said}");
    let said = bench.instar(&[
        "measure",
        "-O",
        "vhdx",
        "-o",
        "subformat=fixed,block_state_zero=off",
        "--size",
        "5001M",
    ]);
    assert_eq!(
        said.stderr,
        "instar: The last block of a fixed image that is longer than 4 GiB must be whole (unsupported)\n"
    );
    // A descriptor alone: convert ends on an assertion.
    let said = bench.instar(&["measure", "-O", "vmdk", "-o", "subformat=monolithicFlat", "--size", "0"]);
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn no_size_depends_on_a_secret_but_a_named_one_must_exist() {
    let bench = Bench::new();
    let said = bench.instar(&["measure", "-O", "qcow", "-o", "encrypt.format=aes", "--size", "1M"]);
    assert_eq!(said.stdout, "required size: 560\nfully allocated size: 1056768\n");
    let list = "encrypt.format=aes,encrypt.key-secret=t";
    let said = bench.instar(&["measure", "-O", "qcow", "-o", list, "--size", "1M"]);
    assert_eq!(said.stderr, "instar: No secret with id 't' (usage)\n");
}

#[test]
fn under_the_name_of_qemu_img_nothing_more_is_measured() {
    let bench = Bench::new();
    fs::write(bench.path("file"), [1; 512]).unwrap();
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for target in ["vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels", "file"] {
        rows.push(vec!["measure", "-O", target, "--size", "1M"]);
        rows.push(vec!["measure", "-O", target, "--size", "1M", "-o", "preallocation=foo"]);
        rows.push(vec!["measure", "-O", target, "-f", "raw", "file"]);
        rows.push(vec!["measure", "-O", target, "-o", "preallocation=off,help"]);
    }
    bench.assert_same(&rows);
    if major() > 7 {
        bench.assert_same(&[vec!["measure", "-O", "vmdk", "-o", "help", "--size", "1M"]]);
    }
}

/// `-o help`: names, types and their order are those of `qemu-img create` for a file; the words are instar's.
#[test]
fn options_are_listed_as_create_lists_them() {
    let bench = Bench::new();
    let shape = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("  "));
        lines.map(|line| line.split_once(" - ").expect(line).0.to_owned()).collect()
    };
    for target in ["raw", "qcow2", "luks", "vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels"] {
        if !is_known(target) {
            continue;
        }
        let theirs = bench.reference(&["create", "-f", target, "-o", "help", "file"]);
        for list in ["help", "size=1,help", "?"] {
            let said = bench.instar(&["measure", "--qemu-version", profile(), "-O", target, "-o", list]);
            assert_eq!(said.code, Some(0), "{said}");
            assert!(said.stdout.starts_with(&format!("Supported {target} options:\n")), "{said}");
            assert_eq!(shape(&said.stdout), shape(&theirs.stdout), "{target}");
        }
    }
    let said = bench.instar(&["measure", "-O", "bochs", "-o", "help"]);
    assert_eq!(said.stderr, "instar: Format driver 'bochs' does not support image creation (unsupported)\n");
}
