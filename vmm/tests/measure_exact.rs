//! `measure --exact` against the length of the files that the real `qemu-img` writes: by `convert` from images of every
//! kind, and by `create`.

mod common;

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use common::{Bench, Said, differences};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What a new image is made of.
#[derive(Clone, Debug)]
enum From {
    /// A file, and from how many bytes on zeros are left out if not as usual.
    Image(&'static str, Option<&'static str>),
    Size(&'static str),
}

#[derive(Clone, Debug)]
struct Row {
    from: From,
    target: &'static str,
    options: String,
}

fn image(name: &'static str, options: impl Into<String>) -> Row {
    Row { from: From::Image(name, None), target: "qcow2", options: options.into() }
}

/// A bench with a raw image for each kind of content. All are sparse files.
fn bench() -> Bench {
    let bench = Bench::new();
    // Neither compresses to nothing nor takes a generator: a word that is multiplied.
    let noise = |length: u64| -> Vec<u8> {
        let words = (1..=length / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        words.flat_map(u64::to_le_bytes).collect()
    };
    let raw = |name: &str, length: u64, pieces: &[(u64, Vec<u8>)]| {
        let mut file = File::create(bench.path(name)).unwrap();
        file.set_len(length).unwrap();
        for (offset, bytes) in pieces {
            file.seek(SeekFrom::Start(*offset)).unwrap();
            file.write_all(bytes).unwrap();
        }
    };
    raw("dense.raw", 3 * MIB + 512, &[(0, noise(3 * MIB + 512))]);
    raw("odd.raw", MIB + 1, &[(MIB - 4096, noise(4096))]);
    raw("empty.raw", 40 * MIB, &[]);
    raw("zeros.raw", 8 * MIB, &[(0, vec![0; 8 << 20])]);
    let holes = |at: u64| (at * 777 * KIB + at * 4608, noise(512 << (at % 9)));
    raw("scattered.raw", 24 * MIB + 3 * KIB, &(0..30).map(holes).collect::<Vec<_>>());
    // Data with runs of zeros of all lengths in it.
    let mut mixed = noise(6 * MIB);
    for run in 1..200 {
        let (at, length) = (run * 31_232, run * 97 % 40 * 512);
        mixed[at..at + length].fill(0);
    }
    raw("mixed.raw", 6 * MIB, &[(0, mixed)]);
    bench
}

impl Row {
    /// What is wrong with the length that is told.
    fn difference(&self, bench: &Bench) -> Option<String> {
        let real = self.write(bench);
        let mut arguments = vec!["measure", "--exact", "-O", self.target];
        if !self.options.is_empty() {
            arguments.extend(["-o", &self.options]);
        }
        match self.from {
            From::Size(size) => arguments.extend(["--size", size]),
            From::Image(name, sparse) => {
                arguments.extend(["-f", format(name)]);
                arguments.extend(sparse.iter().flat_map(|sparse| ["-S", sparse]));
                arguments.push(name);
            }
        }
        let said = bench.instar(&arguments);
        let told = said.stdout.lines().next().and_then(|line| line.strip_prefix("required size: "));
        (told != Some(&real.to_string())).then(|| format!("{self:?}: {real} bytes\ninstar: {said}"))
    }

    /// Has `qemu-img` write the image, and gives its length.
    fn write(&self, bench: &Bench) -> u64 {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (name, data) = (format!("new-{number}"), format!("data-{number}"));
        let mut options = self.options.replace("data_file=x", &format!("data_file={data}"));
        let mut arguments: Vec<&str> = match self.from {
            From::Size(_) => vec!["create", "-q", "-f", self.target],
            From::Image(name, _) => vec!["convert", "-f", format(name), "-O", self.target],
        };
        if self.target == "luks" {
            arguments.extend(["--object", "secret,id=s,data=abc"]);
            options += "key-secret=s,iter-time=10";
        } else if options.contains("encrypt.format") {
            arguments.extend(["--object", "secret,id=s,data=abc"]);
            options += ",encrypt.key-secret=s,encrypt.iter-time=10";
        }
        if !options.is_empty() {
            arguments.extend(["-o", &options]);
        }
        match self.from {
            From::Size(size) => arguments.extend([&name, size]),
            From::Image(from, sparse) => {
                arguments.extend(sparse.iter().flat_map(|sparse| ["-S", sparse]));
                arguments.extend([from, &name]);
            }
        }
        bench.make(&arguments);
        let length = fs::metadata(bench.path(&name)).unwrap().len();
        fs::remove_file(bench.path(&name)).unwrap();
        let _ = fs::remove_file(bench.path(&data));
        length
    }
}

fn format(name: &str) -> &str {
    name.rsplit('.').next().unwrap()
}

fn assert_exact(bench: &Bench, rows: &[Row]) {
    // docs/quirks.md: older releases cut zeros out along other bounds.
    assert!(common::major() >= 7, "qemu-img is too old to be compared with");
    let found = differences(rows, |row| row.difference(bench));
    assert!(found.is_empty(), "{} of {} differ:\n{}", found.len(), rows.len(), found.join("\n"));
}

/// Clusters, refcounts and L2 entries of all sizes.
fn geometries() -> Vec<String> {
    let mut geometries = vec![];
    for cluster in ["512", "4k", "64k", "2M"] {
        for refcount in [1, 16, 64] {
            geometries.push(format!("cluster_size={cluster},refcount_bits={refcount}"));
            if matches!(cluster, "64k" | "2M") {
                geometries.push(format!("cluster_size={cluster},refcount_bits={refcount},extended_l2=on"));
            }
        }
        geometries.push(format!("cluster_size={cluster},compat=0.10"));
    }
    geometries.push("cluster_size=16k,extended_l2=on,lazy_refcounts=on".into());
    geometries
}

#[test]
fn raw_images_become_as_long_as_told() {
    let bench = bench();
    let names = ["dense.raw", "odd.raw", "empty.raw", "zeros.raw", "scattered.raw", "mixed.raw"];
    let rows: Vec<Row> =
        geometries().iter().flat_map(|geometry| names.map(|name| image(name, geometry.as_str()))).collect();
    assert!(rows.len() >= 120, "{}", rows.len());
    assert_exact(&bench, &rows);
}

#[test]
fn preallocated_images_and_data_files_are_as_long_as_told() {
    let bench = bench();
    let mut rows = vec![];
    for geometry in geometries() {
        for space in ["metadata", "falloc", "full"] {
            rows.push(image("scattered.raw", format!("{geometry},preallocation={space}")));
        }
    }
    for geometry in
        ["cluster_size=512", "cluster_size=64k,extended_l2=on", "refcount_bits=64,cluster_size=4k"]
    {
        for data in ["data_file=x", "data_file=x,preallocation=metadata", "data_file=x,preallocation=falloc"]
        {
            rows.push(image("mixed.raw", format!("{geometry},{data}")));
        }
    }
    rows.push(image("mixed.raw", "data_file=x,data_file_raw=on,cluster_size=512"));
    rows.push(image("mixed.raw", "encrypt.format=luks"));
    rows.push(image("scattered.raw", "encrypt.format=luks,cluster_size=512,preallocation=metadata"));
    assert_exact(&bench, &rows);
}

#[test]
fn images_of_every_format_become_as_long_as_told() {
    let bench = bench();
    let make = |arguments: &[&str]| bench.make(&[&["convert", "-f", "raw"], arguments].concat());
    make(&["-c", "-O", "qcow2", "mixed.raw", "zlib.qcow2"]);
    make(&["-c", "-O", "qcow2", "-o", "cluster_size=512", "scattered.raw", "small.qcow2"]);
    make(&["-O", "qcow2", "-o", "extended_l2=on", "scattered.raw", "subclusters.qcow2"]);
    make(&["-S", "0", "-O", "qcow2", "-o", "cluster_size=4k", "zeros.raw", "zeros.qcow2"]);
    make(&["-O", "vmdk", "-o", "subformat=streamOptimized", "mixed.raw", "stream.vmdk"]);
    let formats =
        ["sparse.vmdk", "dynamic.vpc", "dynamic.vhdx", "dynamic.vdi", "old.qcow", "one.qed", "one.parallels"];
    for name in formats {
        make(&["-O", format(name), "scattered.raw", name]);
    }
    bench.make(&["create", "-q", "-f", "qcow2", "empty.qcow2", "8T"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "punched.qcow2", "20M"]);
    let io =
        ["write -P 1 0 9M", "write -z 3M 2M", "write -z -u 6M 1M", "discard 8M 512k", "write -P 2 19M 1k"];
    for command in io {
        let program = std::env::var_os("QEMU_IO").unwrap_or_else(|| "qemu-io".into());
        let said = Said::by(bench.command(program).args(["-f", "qcow2", "-c", command, "punched.qcow2"]));
        assert_eq!(said.code, Some(0), "{said}");
    }
    let mut names =
        vec!["zlib.qcow2", "small.qcow2", "subclusters.qcow2", "zeros.qcow2", "punched.qcow2", "stream.vmdk"];
    names.extend(formats);
    make(&["-c", "-O", "qcow2", "-o", "compression_type=zstd", "mixed.raw", "zstd.qcow2"]);
    names.push("zstd.qcow2");
    let targets =
        ["", "cluster_size=512,refcount_bits=64", "extended_l2=on", "cluster_size=2M,extended_l2=on"];
    let mut rows: Vec<Row> =
        names.iter().flat_map(|name| targets.map(|options| image(name, options))).collect();
    for options in ["", "refcount_bits=64", "extended_l2=on", "cluster_size=2M", "cluster_size=4k"] {
        rows.push(image("empty.qcow2", options));
    }
    assert_exact(&bench, &rows);
}

#[test]
fn zeros_are_left_out_as_they_are_asked_to_be() {
    let bench = bench();
    bench.make(&["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=8k", "mixed.raw", "mixed.qcow2"]);
    let mut rows = vec![];
    for sparse in ["0", "512", "1536", "4k", "64k", "16M"] {
        for name in ["mixed.raw", "scattered.raw", "mixed.qcow2"] {
            for options in ["cluster_size=512", "cluster_size=4k", "cluster_size=16k,extended_l2=on"] {
                rows.push(Row { from: From::Image(name, Some(sparse)), ..image(name, options) });
            }
        }
    }
    assert_exact(&bench, &rows);
}

#[test]
fn other_formats_are_as_long_as_told() {
    let bench = bench();
    let mut rows = vec![];
    for target in ["vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels"] {
        for (name, sparse) in [("scattered.raw", None), ("mixed.raw", Some("64k"))] {
            rows.push(Row { from: From::Image(name, sparse), target, options: String::new() });
        }
    }
    assert_exact(&bench, &rows);
}

#[test]
fn what_a_chain_holds_is_as_long_as_told() {
    let bench = bench();
    bench.make(&["convert", "-f", "raw", "-O", "qcow2", "mixed.raw", "base.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "9M"]);
    for command in ["write -P 5 3M 200k", "write -z 4M 1M", "write -P 6 8M 1k"] {
        let program = std::env::var_os("QEMU_IO").unwrap_or_else(|| "qemu-io".into());
        let said = Said::by(bench.command(program).args(["-f", "qcow2", "-c", command, "top.qcow2"]));
        assert_eq!(said.code, Some(0), "{said}");
    }
    for options in ["cluster_size=64k", "cluster_size=512", "extended_l2=on"] {
        bench.make(&["convert", "-f", "qcow2", "-O", "qcow2", "-o", options, "top.qcow2", options]);
        let length = fs::metadata(bench.path(options)).unwrap().len();
        let arguments = ["measure", "--exact", "--allow-references", ".", "-f", "qcow2", "-O", "qcow2"];
        let said = bench.instar(&[&arguments[..], &["-o", options, "top.qcow2"]].concat());
        assert!(
            said.stdout.starts_with(&format!("required size: {length}\n")),
            "{options}: {length}, {said}"
        );
    }
}

#[test]
fn images_of_a_size_are_created_as_long_as_told() {
    let bench = Bench::new();
    let mut rows = vec![];
    let mut add = |target, size, options: &str| {
        rows.push(Row { from: From::Size(size), target, options: options.into() });
    };
    for geometry in geometries() {
        for size in ["0", "1", "100000", "1G", "100G"] {
            add("qcow2", size, &geometry);
        }
        add("qcow2", "20000001", &format!("{geometry},preallocation=metadata"));
    }
    for options in ["", "cluster_size=4k", "refcount_bits=64", "extended_l2=on", "cluster_size=2M"] {
        add("qcow2", "8T", options);
    }
    add("qcow2", "1G", "encrypt.format=luks");
    add("raw", "1", "");
    add("raw", "5000", "");
    add("luks", "1", "");
    assert_exact(&bench, &rows);
}

#[test]
fn other_figures_and_the_shape_stay() {
    let bench = bench();
    let usual = bench.instar(&["measure", "-O", "qcow2", "--output", "json", "zeros.raw"]);
    let exact = bench.instar(&["measure", "-O", "qcow2", "--output", "json", "--exact", "zeros.raw"]);
    assert_eq!(exact.stdout, usual.stdout.replace("\"required\": 8716288", "\"required\": 196616"));
    assert_ne!(exact.stdout, usual.stdout);
}

#[test]
fn options_of_exact_are_instar_s_own_and_checked() {
    let bench = bench();
    let refused = |arguments: &[&str], text: &str| {
        let said = bench.instar(&[&["measure"], arguments].concat());
        assert_eq!((said.code, said.stderr.as_str()), (Some(1), text), "{arguments:?}");
    };
    refused(&["-S", "0", "dense.raw"], "instar: -S requires --exact. (usage)\n");
    refused(&["--exact", "-S", "0", "--size", "1"], "instar: -S requires a filename argument. (usage)\n");
    let sizes = "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to 16777216. \
                 Select 0 to disable sparse detection (fully allocates output).";
    for size in ["513", "32M"] {
        refused(&["--exact", "-S", size, "dense.raw"], &format!("instar: {sizes} (usage)\n"));
    }
    for arguments in [["measure", "--exact", "dense.raw"], ["measure", "-S0", "dense.raw"]] {
        let (ours, theirs) = (bench.drop_in(&arguments), bench.reference(&arguments));
        assert!(ours.code == Some(1) && (common::major() < 8 || ours == theirs), "{ours}\n{theirs}");
    }
}

#[test]
fn the_profile_does_not_change_the_exact_length() {
    let bench = bench();
    let of = |version| {
        let arguments =
            ["measure", "--qemu-version", version, "--exact", "-O", "qcow2", "-o", "cluster_size=4k"];
        bench.instar(&[&arguments[..], &["-f", "raw", "scattered.raw"]].concat()).stdout
    };
    assert!(of("11.1").starts_with("required size: "));
    assert_eq!(of("5.2"), of("11.1"));
}

#[test]
fn compressed_images_are_as_long_as_instar_makes_them() {
    let bench = bench();
    for (format, more) in [
        ("qcow2", &["-c"][..]),
        ("qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
    ] {
        for source in ["dense.raw", "mixed.raw", "scattered.raw"] {
            let line = [&["-O", format], more, &["-f", "raw", source]].concat();
            let told = bench.instar(&[&["measure", "--exact"], line.as_slice()].concat());
            let made = bench.instar(&[&["convert"], line.as_slice(), &["made"]].concat());
            assert_eq!((told.code, made.code), (Some(0), Some(0)), "{line:?}: {told}, {made}");
            let length = fs::metadata(bench.path("made")).unwrap().len();
            assert!(
                told.stdout.starts_with(&format!("required size: {length}\n")),
                "{line:?}: {told}, {length}"
            );
        }
    }
}

#[test]
fn what_has_no_exact_length_is_refused() {
    let bench = bench();
    let refused = |options: &str, size: &str, text: &str| {
        let from = if size.is_empty() { &["dense.raw"][..] } else { &["--size", size] };
        let said = bench.instar(&[&["measure", "--exact", "-O", "qcow2", "-o", options], from].concat());
        assert_eq!((said.code, said.stderr), (Some(1), format!("instar: {text}\n")), "{options} {size}");
    };
    let backing = "The exact length of an image with a backing file is not known beforehand";
    refused("backing_file=x", "", &format!("{backing} (unsupported: backing_file)"));
    // The refcount table would be larger than 8 MiB: such a file is not opened.
    let large = "The image size is too large (try using a larger cluster size)";
    refused("cluster_size=2M,refcount_bits=64,preallocation=full", "2E", &format!("{large} (unsupported)"));
}

#[test]
fn a_stream_that_does_not_hold_its_cluster_is_corrupt() {
    let bench = bench();
    bench.make(&["convert", "-f", "raw", "-c", "-O", "qcow2", "mixed.raw", "c.qcow2"]);
    // Data clusters follow header, refcount table, refcount block, L1 and L2 table.
    let mut file = File::options().write(true).open(bench.path("c.qcow2")).unwrap();
    file.seek(SeekFrom::Start(5 * 65536)).unwrap();
    file.write_all(&[0xff; 512]).unwrap();
    let said = bench.instar(&["measure", "--exact", "-O", "qcow2", "c.qcow2"]);
    let text = "error while reading at byte 0: Input/output error";
    assert_eq!(said.stderr, format!("instar: {text} (corrupt: compressed cluster)\n"));
    let convert: &mut Command = &mut bench.command(common::qemu_img());
    let theirs = Said::by(convert.args(["convert", "-O", "raw", "c.qcow2", "out.raw"]));
    assert_eq!(theirs.stderr, format!("qemu-img: {text}\n"));
}
