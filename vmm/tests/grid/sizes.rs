//! Questions about sizes: `measure --size`, in every region where a formula changes its mind, with every option rightly and
//! wrongly given, and every spelling of a number.

use std::collections::BTreeSet;

use super::{Question, SECRET};
use crate::common::Random;

/// All of them.
pub fn questions() -> Vec<Question> {
    let fast = rows().into_iter().map(|row| Question::new(row.arguments()));
    let slow = luks_sizes().into_iter().map(|row| Question::new(row.arguments()).slow());
    fast.chain(slow).collect()
}

/// A target format, a size and a list of options (empty: none), and whether there is a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    target: &'static str,
    size: String,
    options: String,
    secret: bool,
}

impl Row {
    fn new(target: &'static str, size: impl Into<String>, options: impl Into<String>) -> Self {
        Self { target, size: size.into(), options: options.into(), secret: false }
    }

    fn arguments(&self) -> Vec<&str> {
        let mut arguments: Vec<&str> = vec!["-O", self.target];
        if self.secret {
            arguments.extend(["--object", SECRET]);
        }
        if !self.options.is_empty() {
            arguments.extend(["-o", &self.options]);
        }
        arguments.extend(["--size", &self.size]);
        arguments
    }
}

const CLUSTERS: [&str; 13] =
    ["512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M"];
const WIDTHS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Sizes in every region where a formula changes its mind.
const SIZES: [&str; 20] = [
    "0",
    "1",
    "511",
    "513",
    "65536",
    "65537",
    "1M",
    "33M",
    "1G",
    "1073741825",
    "10G",
    "100G",
    "128G",
    "1T",
    "1.3T",
    "8T",
    "63T",
    "2P",
    "1E",
    "9223372036854775807",
];

/// Option lists of qcow2 that measure accepts.
fn qcow2_options() -> Vec<String> {
    let mut lists = vec![String::new()];
    for cluster in CLUSTERS {
        lists.push(format!("cluster_size={cluster}"));
        lists.push(format!("compat=0.10,cluster_size={cluster}"));
    }
    for width in WIDTHS {
        for cluster in ["512", "64k", "2M"] {
            lists.push(format!("refcount_bits={width},cluster_size={cluster}"));
        }
    }
    for cluster in &CLUSTERS[5..] {
        lists.push(format!("extended_l2=on,cluster_size={cluster}"));
    }
    for mode in ["off", "metadata", "falloc", "full"] {
        lists.push(format!("preallocation={mode}"));
        lists.push(format!("preallocation={mode},cluster_size=4k,compat=0.10"));
    }
    let others = [
        "compat=1.1",
        "lazy_refcounts=on",
        "lazy_refcounts",
        "nolazy_refcounts",
        "backing_file=/nonexistent",
        "backing_file=b,backing_fmt=raw",
        "data_file=d,data_file_raw=on",
        "compression_type=zstd",
        "compression_type=foo",
        "encryption=on",
        "encrypt.format=aes",
        "size=5G",
        "size=5P",
        "cluster_size=4k,cluster_size=2M",
        "extended_l2=on,compat=0.10",
        "extended_l2=on,refcount_bits=1,cluster_size=2M",
        "extended_l2,refcount_bits=64",
        "cluster_size=65536",
        "cluster_size=0x1000",
    ];
    lists.extend(others.map(str::to_owned));
    lists
}

/// Option lists of qcow2 that are wrong, each in its own way, and some in two.
const QCOW2_ERRORS: [&str; 42] = [
    "cluster_size=0",
    "cluster_size=256",
    "cluster_size=4M",
    "cluster_size=3k",
    "cluster_size=-1",
    "cluster_size=1.5k",
    "cluster_size=x",
    "cluster_size=",
    "cluster_size",
    "cluster_size=16E",
    "refcount_bits=0",
    "refcount_bits=3",
    "refcount_bits=65",
    "refcount_bits=128",
    "refcount_bits=-1",
    "refcount_bits=1k",
    "refcount_bits=",
    "refcount_bits=16,compat=0.10,refcount_bits=8",
    "compat=0.10,refcount_bits=64",
    "compat=v2",
    "compat=v3",
    "compat=1.2",
    "compat=",
    "compat",
    "preallocation=foo",
    "preallocation=",
    "preallocation=FULL",
    "lazy_refcounts=maybe",
    "extended_l2=yes",
    "extended_l2=1",
    "extended_l2=on,cluster_size=8k",
    "extended_l2=on,cluster_size=512",
    "foo=bar",
    "foo",
    "foo=bar,cluster_size=1",
    "cluster_size=1,compat=x,refcount_bits=3",
    "encrypt.format=luks,encrypt.key-secret=nosuch",
    "encrypt.cipher-alg=aes-128",
    "size=x",
    "size=-1",
    "=",
    "a=b=c",
];

/// How a size may be written, rightly and wrongly.
const SPELLINGS: [&str; 98] = [
    "",
    " ",
    "0",
    "00",
    "-0",
    "+0",
    "007",
    "010",
    "1",
    " 1",
    "1 ",
    "+1",
    "-1",
    "- 1",
    "1b",
    "1B",
    "1k",
    "1K",
    "1m",
    "1M",
    "1g",
    "1G",
    "1t",
    "1T",
    "1p",
    "1P",
    "1e",
    "1E",
    "1kk",
    "1kB",
    "1KiB",
    "1x",
    "1.0",
    "1.5",
    "1.5b",
    "1.5k",
    "1.5K",
    "1.25M",
    "0.5G",
    ".5G",
    ".5",
    ".",
    "5.",
    "5.G",
    "5.k",
    "5..k",
    "1.2.3k",
    "0.000001G",
    "0.0000000000001E",
    "1.99999999999999999999G",
    "0.99999999999999999999999E",
    "7.9999999999E",
    "7.99999999999999999999E",
    "0x",
    "0x0",
    "0x200",
    "0X200",
    "0xg",
    "0x10k",
    "0x1p3",
    "0x1.8k",
    "0x7fffffffffffffff",
    "0x8000000000000000",
    "0xffffffffffffffff",
    "0x10000000000000000",
    "1e3",
    "1E3",
    "1e3k",
    "1.5e3k",
    "1e",
    "e",
    "k",
    "K1",
    "abc",
    "1,5k",
    "1_000",
    "inf",
    "nan",
    "NaN",
    "infinity",
    "9223372036854775295",
    "9223372036854775296",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
    "-9223372036854775808",
    "7E",
    "8E",
    "16E",
    "8191P",
    "8192P",
    "8388607T",
    "8388608T",
    "0.5E",
    "7.5E",
];

/// Every target that measures nothing: unknown, not to be created, without an answer.
const OTHER_TARGETS: [&str; 20] = [
    "",
    "nosuch",
    "RAW",
    "qcow2 ",
    "vmdk",
    "vpc",
    "vhdx",
    "vdi",
    "qcow",
    "qed",
    "parallels",
    "bochs",
    "cloop",
    "dmg",
    "compress",
    "preallocate",
    "nbd",
    "file",
    "host_device",
    "throttle",
];

/// Every row of the grid: a target format, a size, its options.
fn rows() -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    for options in qcow2_options() {
        rows.extend(SIZES.map(|size| Row::new("qcow2", size, &options)));
    }
    for options in QCOW2_ERRORS {
        rows.extend(["0", "1G", "3P"].map(|size| Row::new("qcow2", size, options)));
    }
    for size in SPELLINGS {
        rows.extend(["raw", "qcow2"].map(|target| Row::new(target, size, "")));
    }
    for options in
        ["", "size=1G", "preallocation=full", "preallocation=foo", "foo=1", "extent_size_hint=1M", "nocow=on"]
    {
        rows.extend(SIZES.map(|size| Row::new("raw", size, options)));
    }
    // Around the largest disk for a cluster size, and around the steps of the tables for a small one.
    for (bits, cluster) in (9_u32..).zip(CLUSTERS) {
        for (extended, most) in
            [("", 22_u64 + 2 * u64::from(bits) - 3), (",extended_l2=on", 2 * u64::from(bits) + 18)]
        {
            if !extended.is_empty() && bits < 14 {
                continue;
            }
            let edge = 1_u64 << most.min(62);
            let step = 1_u64 << (2 * bits - 3);
            for size in
                [edge - 1, edge, edge + 1, edge + (1 << bits), edge - step, step, step + 1, step * 9 - 1]
            {
                rows.insert(Row::new("qcow2", size.to_string(), format!("cluster_size={cluster}{extended}")));
            }
        }
    }
    let mut random = Random(0x5eed);
    for _ in 0..300 {
        let bits = random.below(58) + 1;
        let size = random.below(1 << bits);
        let (cluster, width) = (CLUSTERS[random.below(13) as usize], WIDTHS[random.below(7) as usize]);
        rows.insert(Row::new(
            "qcow2",
            size.to_string(),
            format!("cluster_size={cluster},refcount_bits={width}"),
        ));
        rows.insert(Row::new("raw", size.to_string(), ""));
    }
    for target in OTHER_TARGETS {
        for (size, options) in [("1G", ""), ("1G", "foo=bar"), ("x", "")] {
            rows.insert(Row::new(target, size, options));
        }
    }
    rows.extend(luks_errors());
    rows
}

/// Rows that end before any key is derived, with a secret and without.
fn luks_errors() -> Vec<Row> {
    let mut rows = vec![];
    for options in [
        "key-secret=nosuch",
        "key-secret=sec0,foo=bar",
        "key-secret=sec0,cipher-alg=foo",
        "key-secret=sec0,cipher-mode=foo",
        "key-secret=sec0,ivgen-alg=foo",
        "key-secret=sec0,ivgen-hash-alg=foo",
        "key-secret=sec0,hash-alg=foo",
        "key-secret=sec0,iter-time=x",
        "key-secret=sec0,detached-header=on",
        "key-secret=sec0,size=x",
        "key-secret=sec0,encrypt.format=luks",
        "cipher-alg=foo",
        "foo=bar",
    ] {
        for size in ["0", "1G"] {
            rows.push(Row { secret: true, ..Row::new("luks", size, options) });
            rows.push(Row::new("luks", size, options));
        }
    }
    rows
}

/// Sizes with a LUKS header. qemu-img derives a key for each, for seconds: `measure_size.rs` asks more of the installed one.
fn luks_sizes() -> Vec<Row> {
    [
        ("luks", "1000000007", "key-secret=sec0,iter-time=10"),
        ("luks", "1G", "key-secret=sec0,iter-time=10,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64"),
        ("qcow2", "1T", "encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10,cluster_size=4k"),
    ]
    .map(|(target, size, options)| Row { secret: true, ..Row::new(target, size, options) })
    .into()
}
