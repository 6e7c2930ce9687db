//! Every kind of source into every kind of target: what `qemu-img` reads from the new image is what the source holds, its
//! `check` is content, its `info` tells of our image what it tells of its own, and the length is the one that
//! `instar measure --exact` has told beforehand.

mod common;

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use common::{Bench, Said, assert_none, differences};
use serde_json::Value;

/// The secret that options refer to.
const SECRET: &str = "secret,id=s,data=0123456789abcdef";

/// Names of the images that are converted, and what `qemu-img convert` makes them with.
const SOURCES: &[(&str, &str, &[&str])] = &[
    ("raw", "raw", &[]),
    ("qcow2", "qcow2", &[]),
    ("qcow2-v2", "qcow2", &["-o", "compat=0.10,cluster_size=4k"]),
    ("qcow2-subclusters", "qcow2", &["-o", "extended_l2=on,cluster_size=32k"]),
    ("qcow2-zlib", "qcow2", &["-c"]),
    ("qcow2-zstd", "qcow2", &["-c", "-o", "compression_type=zstd,cluster_size=2M"]),
    ("qcow2-luks", "qcow2", &["-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]),
    ("vmdk", "vmdk", &[]),
    ("vmdk-stream", "vmdk", &["-o", "subformat=streamOptimized"]),
    ("vpc", "vpc", &["-o", "force_size=on"]),
    ("vhdx", "vhdx", &["-o", "block_size=1M"]),
    ("vdi", "vdi", &[]),
    ("qcow", "qcow", &[]),
    ("qed", "qed", &[]),
    ("parallels", "parallels", &[]),
    ("luks", "luks", &["-o", "key-secret=s,iter-time=10"]),
];

/// Targets: format, `-o` list, and what else is on the command line.
const TARGETS: &[(&str, &str, &[&str])] = &[
    ("raw", "", &[]),
    ("raw", "", &["-S", "0"]),
    ("raw", "", &["-S", "64k"]),
    ("raw", "preallocation=falloc", &[]),
    ("qcow2", "", &[]),
    ("qcow2", "", &["-S", "0"]),
    ("qcow2", "compat=0.10", &[]),
    ("qcow2", "cluster_size=512", &[]),
    ("qcow2", "cluster_size=4k,refcount_bits=1", &[]),
    ("qcow2", "cluster_size=2M,lazy_refcounts=on", &[]),
    ("qcow2", "refcount_bits=64", &[]),
    ("qcow2", "extended_l2=on", &[]),
    ("qcow2", "extended_l2=on,cluster_size=16k", &[]),
    ("qcow2", "preallocation=metadata", &[]),
    ("qcow2", "preallocation=falloc", &[]),
    ("qcow2", "preallocation=full", &[]),
    ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", &[]),
    (
        "qcow2",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,preallocation=metadata",
        &["-S", "0"],
    ),
    ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,preallocation=falloc", &[]),
    ("qcow2", "", &["-c"]),
    ("qcow2", "compression_type=zstd", &["-c"]),
    ("qcow2", "cluster_size=4k", &["-c"]),
    ("qcow2", "cluster_size=2M,compression_type=zstd", &["-c"]),
    ("qcow2", "compat=0.10", &["-c", "-S", "0"]),
    ("vmdk", "", &[]),
    ("vmdk", "adapter_type=lsilogic,hwversion=10", &[]),
    ("vmdk", "compat6=on,zeroed_grain=on", &[]),
    ("vmdk", "subformat=monolithicFlat", &[]),
    ("vmdk", "subformat=twoGbMaxExtentSparse", &[]),
    ("vmdk", "subformat=twoGbMaxExtentFlat", &[]),
    ("vmdk", "subformat=streamOptimized", &[]),
    ("vpc", "", &[]),
    ("vpc", "force_size=on", &[]),
    ("vpc", "subformat=fixed", &[]),
    ("vpc", "subformat=fixed,force_size=on", &[]),
    ("vhdx", "", &[]),
    ("vhdx", "block_size=1M", &[]),
    ("vhdx", "block_state_zero=off", &[]),
    ("vhdx", "subformat=fixed,block_size=1M", &[]),
    ("vdi", "", &[]),
    ("vdi", "static=on", &[]),
    ("qcow", "", &[]),
    ("luks", "key-secret=s,iter-time=10", &[]),
    ("luks", "key-secret=s,iter-time=10,cipher-alg=aes-128,hash-alg=sha1", &[]),
    ("qed", "", &[]),
    ("qed", "cluster_size=4k,table_size=2", &[]),
    ("parallels", "", &[]),
    ("parallels", "cluster_size=64k", &[]),
];

/// Bytes of the disk: no whole clusters, blocks or grains.
const SIZE: u64 = (5 << 20) + 1536;

/// The disk that all sources hold: noise, text, zeros that are stored, holes, and sectors alone among zeros.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; SIZE as usize];
    let mut word = 1_u64;
    let mut noise = |range: std::ops::Range<usize>| {
        for byte in &mut disk[range] {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = (word >> 56) as u8;
        }
    };
    noise(0..70_000);
    noise(200_704..201_216);
    noise(1 << 20..(1 << 20) + 300_000);
    noise((3 << 20) - 512..(3 << 20) + 4096);
    noise(SIZE as usize - 512..SIZE as usize);
    for (at, byte) in disk[2 << 20..(2 << 20) + 400_000].iter_mut().enumerate() {
        *byte = b"all work and no play makes jack a dull boy\n"[at % 43];
    }
    disk
}

/// An image as an option list: needed where it is encrypted.
fn described(format: &str, list: &str, path: &str) -> String {
    match (format, list.contains("key-secret")) {
        ("luks", _) => format!("driver=luks,key-secret=s,file.filename={path}"),
        (_, true) => format!("driver={format},encrypt.key-secret=s,file.filename={path}"),
        _ => format!("driver={format},file.filename={path}"),
    }
}

struct Grid {
    bench: Bench,
    /// What `qemu-img info` says of the images that `qemu-img convert` makes, by target.
    own: Mutex<HashMap<usize, Value>>,
}

impl Grid {
    fn new() -> Self {
        let bench = Bench::new();
        let path = bench.path("disk.raw");
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for (index, page) in
            disk().chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|&byte| byte != 0))
        {
            file.write_all_at(page, index as u64 * 4096).unwrap();
        }
        // Zeros that are stored.
        file.write_all_at(&[0; 65536], 4 << 20).unwrap();
        for &(name, format, arguments) in SOURCES {
            let target = format!("{name}.source");
            bench.make(
                &[
                    &["convert", "--object", SECRET, "-f", "raw", "-O", format],
                    arguments,
                    &["disk.raw", &target],
                ]
                .concat(),
            );
        }
        Self { bench, own: Mutex::default() }
    }

    /// What is wrong with the target number `target` made of the source number `source`.
    fn difference(&self, source: usize, target: usize) -> Option<String> {
        let (source_name, source_format, source_arguments) = SOURCES[source];
        let (format, list, more) = TARGETS[target];
        let directory = PathBuf::from(format!("cell-{source}-{target}"));
        fs::create_dir(self.bench.directory().join(&directory)).unwrap();
        let made = directory.join("disk.vmdk").to_str().unwrap().to_owned();
        let from = described(source_format, &source_arguments.join(" "), &format!("{source_name}.source"));
        let mut options = vec!["--object", SECRET, "-O", format];
        if !list.is_empty() {
            options.extend(["-o", list]);
        }
        options.extend(more);
        let convert = [&["convert"], options.as_slice(), &["--image-opts", &from, &made]].concat();
        let told = (|| {
            let measured =
                [&["measure", "--output", "json", "--exact"], options.as_slice(), &["--image-opts", &from]]
                    .concat();
            let predicted = required(&self.bench.instar(&measured))?;
            let said = self.bench.instar(&convert);
            if said != (Said { code: Some(0), ..Said::default() }) {
                return Err(format!("convert: {said}"));
            }
            self.read_back(format, list, &made)?;
            let own = self.own_info(target);
            let info = self.info(format, list, &made);
            if info != own {
                return Err(format!("info tells {info}\nand of qemu-img's image {own}"));
            }
            let written = length(&self.bench.directory().join(&directory));
            (written == predicted)
                .then_some(())
                .ok_or_else(|| format!("{written} bytes, predicted {predicted}"))
        })();
        fs::remove_dir_all(self.bench.directory().join(&directory)).unwrap();
        told.err().map(|why| format!("{source_name}: {convert:?}: {why}"))
    }

    /// What of the disk in the new image is not that of the source, or what `check` finds.
    fn read_back(&self, format: &str, list: &str, made: &str) -> Result<(), String> {
        let made = described(format, list, made);
        let disk = "driver=raw,file.filename=disk.raw";
        let compared = self.bench.reference(&["compare", "--object", SECRET, "--image-opts", disk, &made]);
        if compared.code != Some(0) {
            return Err(format!("compare: {compared}"));
        }
        let checked = self.bench.reference(&["check", "-q", "--object", SECRET, "--image-opts", &made]);
        // 63: the format has no checks.
        if !matches!(checked.code, Some(0 | 63)) {
            return Err(format!("check: {checked}"));
        }
        Ok(())
    }

    fn own_info(&self, target: usize) -> Value {
        if let Some(info) = self.own.lock().unwrap().get(&target) {
            return info.clone();
        }
        let (format, list, more) = TARGETS[target];
        let directory = format!("own-{target}-{:?}", std::thread::current().id());
        fs::create_dir(self.bench.directory().join(&directory)).unwrap();
        let made = format!("{directory}/disk.vmdk");
        let list_option: &[&str] = if list.is_empty() { &[] } else { &["-o", list] };
        self.bench.make(
            &[
                &["convert", "--object", SECRET, "-O", format],
                list_option,
                more,
                &["-f", "raw", "disk.raw", &made],
            ]
            .concat(),
        );
        let info = self.info(format, list, &made);
        self.own.lock().unwrap().insert(target, info.clone());
        info
    }

    /// What `qemu-img info` says of an image, but for what no two images have in common.
    fn info(&self, format: &str, list: &str, made: &str) -> Value {
        let made = described(format, list, made);
        let said =
            self.bench.reference(&["info", "--output", "json", "--object", SECRET, "--image-opts", &made]);
        assert_eq!(said.code, Some(0), "{made}: {said}");
        let mut info = serde_json::from_str(&said.stdout).unwrap();
        settle(&mut info);
        info
    }
}

/// Takes out of an answer of `info` what is random, measured, or a name.
fn settle(info: &mut Value) {
    const OWN: [&str; 13] = [
        "filename",
        "actual-size",
        "cid",
        "uuid",
        "iters",
        "stride",
        "key-offset",
        "mk-iters",
        "date-sec",
        "date-nsec",
        "parent-cid",
        "master-key-iters",
        "stripes",
    ];
    match info {
        Value::Object(fields) => {
            fields.retain(|name, _| !OWN.contains(&name.as_str()));
            // The length of compressed data is a library's own.
            if fields.get("format").is_some_and(|format| format == "file") {
                fields.remove("virtual-size");
            }
            fields.values_mut().for_each(settle);
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}

fn required(said: &Said) -> Result<u64, String> {
    let answer: Value = serde_json::from_str(&said.stdout).map_err(|_| format!("measure: {said}"))?;
    answer["required"].as_u64().ok_or_else(|| format!("measure: {said}"))
}

/// Bytes of all files in a directory.
fn length(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn every_source_becomes_every_target() {
    let grid = Grid::new();
    let cells: Vec<(usize, usize)> = (0..TARGETS.len())
        .flat_map(|target| (0..SOURCES.len()).map(move |source| (source, target)))
        .collect();
    assert!(cells.len() >= 400);
    let found = differences(&cells, |&(source, target)| grid.difference(source, target));
    assert_none(&found, cells.len());
}
