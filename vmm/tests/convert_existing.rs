//! `convert -n`: into images that are there, made by `qemu-img`, without data, full of other data, and longer than the source.

mod common;

use std::fs;

use common::{Bench, Said, assert_none, differences, major};

/// The secret that options refer to.
const SECRET: &str = "secret,id=s,data=0123456789abcdef";

/// Targets: format, and what `qemu-img convert` makes them with.
const TARGETS: &[(&str, &[&str])] = &[
    ("raw", &[]),
    ("qcow2", &[]),
    ("qcow2", &["-o", "compat=0.10,cluster_size=4k"]),
    ("qcow2", &["-o", "extended_l2=on,cluster_size=32k"]),
    ("qcow2", &["-o", "cluster_size=2M"]),
    ("qcow2", &["-c"]),
    ("qcow2", &["-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]),
    ("qcow2", &["-o", "encrypt.format=aes,encrypt.key-secret=s"]),
    ("vmdk", &[]),
    ("vpc", &["-o", "force_size=on"]),
    ("vpc", &["-o", "force_size=on,subformat=fixed"]),
    ("vhdx", &["-o", "block_size=1M"]),
    ("vdi", &[]),
    ("vdi", &["-o", "static=on"]),
    ("qcow", &[]),
    ("qed", &[]),
    ("parallels", &[]),
    ("luks", &["-o", "key-secret=s,iter-time=10"]),
];

/// Bytes of the source: it ends within a cluster.
const SIZE: usize = (3 << 20) + 5 * 512;
/// Bytes of targets that are longer.
const LONGER: usize = SIZE + (2 << 20) + 512;

/// What is in a target before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    Data,
    LongerData,
    /// Data in the part behind the source, and nothing before that.
    DataBehind,
}

impl Before {
    fn disk(self) -> Vec<u8> {
        match self {
            Self::Nothing => vec![0; SIZE],
            Self::Data => noise(SIZE, 7),
            Self::LongerData => noise(LONGER, 8),
            Self::DataBehind => {
                let mut disk = noise(LONGER, 9);
                disk[..SIZE].fill(0);
                disk
            }
        }
    }

    fn name(self) -> String {
        format!("{self:?}.raw")
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = common::Random(seed);
    let mut disk: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    disk.truncate(length);
    disk
}

/// Noise, zeros, and sectors alone among zeros; the end is within a cluster.
fn source() -> Vec<u8> {
    let noise = noise(SIZE, 1);
    let mut disk = vec![0; SIZE];
    for range in [0..100_000, 500_224..500_736, 1 << 20..(1 << 20) + 66_000, SIZE - 1024..SIZE] {
        disk[range.clone()].copy_from_slice(&noise[range]);
    }
    disk
}

fn described(format: &str, arguments: &[&str], path: &str) -> String {
    match (format, arguments.concat().contains("key-secret")) {
        ("luks", _) => format!("driver=luks,key-secret=s,file.filename={path}"),
        (_, true) => format!("driver={format},encrypt.key-secret=s,file.filename={path}"),
        _ => format!("driver={format},file.filename={path}"),
    }
}

/// One conversion: number of the target, what is in it before, and options.
type Row = (usize, Before, &'static [&'static str]);

/// What is wrong with the target of a conversion.
fn difference(bench: &Bench, row: &Row) -> Option<String> {
    let &(target, before, options) = row;
    let (format, arguments) = TARGETS[target];
    let name = format!("{target}-{before:?}-{}", options.concat());
    let before_name = before.name();
    bench.make(
        &[
            &["convert", "--object", SECRET, "-f", "raw", "-O", format],
            arguments,
            &[before_name.as_str(), &name],
        ]
        .concat(),
    );
    let opened = described(format, arguments, &name);
    let line = [
        &["convert", "--object", SECRET, "-n", "-f", "raw", "--target-image-opts"],
        options,
        &["source.raw", &opened],
    ]
    .concat();
    let told = (|| {
        let said = bench.instar(&line);
        if said != (Said { code: Some(0), ..Said::default() }) {
            return Err(format!("convert: {said}"));
        }
        let checked = bench.reference(&["check", "-q", "--object", SECRET, "--image-opts", &opened]);
        // 63: the format has no checks.
        if !matches!(checked.code, Some(0 | 63)) {
            return Err(format!("check: {checked}"));
        }
        let read = format!("{name}.read");
        bench.make(&["convert", "--object", SECRET, "--image-opts", "-O", "raw", &opened, &read]);
        let mut expected = before.disk();
        expected[..SIZE].copy_from_slice(&source());
        let found = fs::read(bench.path(&read)).unwrap();
        fs::remove_file(bench.path(&read)).unwrap();
        let at = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        match (at, found.len() == expected.len()) {
            (None, true) => Ok(()),
            (at, _) => Err(format!("{} bytes, differ at {at:?}", found.len())),
        }
    })();
    fs::remove_file(bench.path(&name)).unwrap();
    told.err().map(|why| format!("{format} {arguments:?}, {before:?}: {}: {why}", line.join(" ")))
}

#[test]
fn what_is_there_becomes_the_source_and_what_is_behind_it_stays() {
    let bench = Bench::new();
    fs::write(bench.path("source.raw"), source()).unwrap();
    for before in [Before::Nothing, Before::Data, Before::LongerData, Before::DataBehind] {
        fs::write(bench.path(&before.name()), before.disk()).unwrap();
    }
    let mut rows: Vec<Row> = Vec::new();
    for (target, &(format, arguments)) in TARGETS.iter().enumerate() {
        // Debian's 5.2 is built without it.
        if format == "parallels" && major() < 6 {
            continue;
        }
        rows.extend(
            [Before::Nothing, Before::Data, Before::LongerData].map(|before| (target, before, &[][..])),
        );
        // Zeros that are not written are noise there.
        if format != "luks" {
            let zero: &[&str] = &["--target-is-zero"];
            rows.extend([Before::Nothing, Before::DataBehind].map(|before| (target, before, zero)));
        }
        // qcow2 images are written compressed, too.
        if format == "qcow2" && !arguments.concat().contains("encrypt") {
            rows.push((target, Before::LongerData, &["-c"]));
        }
    }
    let found = differences(&rows, |row| difference(&bench, row));
    assert_none(&found, rows.len());
}

#[test]
fn what_cannot_be_written_to_is_refused_and_stays_as_it_is() {
    let bench = Bench::new();
    fs::write(bench.path("source.raw"), source()).unwrap();
    fs::write(bench.path("below.raw"), noise(LONGER, 3)).unwrap();
    bench.make(&["create", "-q", "-f", "qcow2", "small.qcow2", "1M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "below.raw", "-F", "raw", "above.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "data.qcow2", "8M"]);
    bench.make(&["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "8M"]);
    bench.make(&[
        "create",
        "-q",
        "--object",
        SECRET,
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "l",
        "8M",
    ]);
    fs::write(bench.path("part.raw"), noise(LONGER, 4)).unwrap();
    for (target, file, why) in [
        ("driver=qcow2,file.filename=small.qcow2", "small.qcow2", "output file is smaller than input file"),
        ("driver=qcow2,file.filename=above.qcow2", "above.qcow2", "(unsupported)"),
        ("driver=qcow2,file.filename=data.qcow2", "data.raw", "(reference-denied)"),
        ("driver=vmdk,file.filename=flat.vmdk", "flat-flat.vmdk", "(reference-denied)"),
        ("driver=luks,file.filename=l", "l", "Parameter 'key-secret' is required for cipher"),
        ("driver=luks,key-secret=t,file.filename=l", "l", "No secret with id 't'"),
        ("driver=raw,size=4M,file.filename=part.raw", "part.raw", "(unsupported)"),
        ("driver=dmg,file.filename=part.raw", "part.raw", ""),
    ] {
        let before = fs::read(bench.path(file)).unwrap();
        let said = bench.instar(&[
            "convert",
            "--object",
            SECRET,
            "-n",
            "-f",
            "raw",
            "--target-image-opts",
            "source.raw",
            target,
        ]);
        assert!(said.code == Some(1) && said.stderr.contains(why), "{target}: {said}");
        assert!(fs::read(bench.path(file)).unwrap() == before, "{target}");
    }
}
