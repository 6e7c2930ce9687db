//! `info` against the real `qemu-img` over random images of every format that it writes, and over images in whose
//! metadata bytes were flipped. Every number comes from a seed.

mod common;

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use common::{Bench, Random, assert_none, differences, major};

/// Random images, and flips.
const IMAGES: u64 = 520;
const FLIPS: u64 = 400;

/// Longest time that a broken image may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Formats that `qemu-img` writes in one file, some more often than others.
const FORMATS: [&str; 14] = [
    "qcow2",
    "vmdk",
    "qcow2",
    "vpc",
    "qcow2",
    "vhdx",
    "qcow2",
    "vdi",
    "raw",
    "qcow2",
    "parallels",
    "qed",
    "qcow",
    "qcow2",
];

fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from[random.below(from.len() as u64) as usize]
}

fn one_in(random: &mut Random, count: u64) -> bool {
    random.below(count) == 0
}

/// Makes an image by a number; answers its format and name.
fn make(bench: &Bench, number: u64) -> (&'static str, String) {
    let mut random = Random(0x1f0 + 0x9e37_79b9 * number);
    let random = &mut random;
    let format = FORMATS[(number % FORMATS.len() as u64) as usize];
    let name = format!("{number}.{format}");
    let most = if one_in(random, 4) { 1 << 27 } else { 1 << 14 };
    let size = (1 + random.below(most)) * 512;
    let backing = matches!(format, "qcow2" | "qcow" | "qed" | "vmdk") && one_in(random, 4);
    let mut options: Vec<String> = vec![];
    let mut v3 = false;
    match format {
        "qcow2" => {
            v3 = !one_in(random, 4);
            let cluster = pick(random, &["512", "4k", "16k", "64k", "64k", "2M"]);
            options.push(format!("cluster_size={cluster}"));
            if v3 {
                options.push(format!("refcount_bits={}", pick(random, &["1", "8", "16", "16", "64"])));
                options.push(format!("lazy_refcounts={}", pick(random, &["on", "off"])));
                if major() > 5 {
                    options.push(format!("compression_type={}", pick(random, &["zlib", "zstd"])));
                }
                if matches!(cluster, "16k" | "64k" | "2M") && one_in(random, 3) {
                    options.push("extended_l2=on".into());
                }
                if !backing && one_in(random, 8) {
                    options.push(format!("data_file={number}.data"));
                    options.push(format!("data_file_raw={}", pick(random, &["on", "off"])));
                }
            } else {
                options.push("compat=0.10".into());
            }
        }
        "vmdk" => {
            options.push(format!("subformat={}", pick(random, &["monolithicSparse", "streamOptimized"])));
        }
        "vpc" => {
            options.push(format!("subformat={}", pick(random, &["dynamic", "dynamic", "fixed"])));
            options.push(format!("force_size={}", pick(random, &["on", "off"])));
        }
        "vhdx" => options.push(format!("block_size={}", pick(random, &["1M", "8M", "64M"]))),
        "vdi" => options.push(format!("static={}", pick(random, &["off", "off", "on"]))),
        "parallels" => options.push(format!("cluster_size={}", pick(random, &["64k", "1M"]))),
        "qed" => options.push(format!("cluster_size={}", pick(random, &["16k", "64k", "1M"]))),
        _ => {}
    }
    // Nothing that takes space: fixed disks, large tables and files beside the image are of small disks.
    let dense = options.iter().any(|option| {
        option.ends_with("fixed")
            || option == "static=on"
            || option.ends_with("=512")
            || option.starts_with("data_file")
    });
    let size = if dense { size % (4 << 20) + 512 } else { size };
    let mut create = vec!["create", "-q", "-f", format];
    let base = pick(random, &["base name.raw", "sub/../base.raw", "./base.raw"]);
    let options = options.join(",");
    if !options.is_empty() {
        create.extend(["-o", &options]);
    }
    let size = size.to_string();
    if backing {
        // A base that VMDK takes.
        let (base, base_format) = if format == "vmdk" { ("base.vmdk", "vmdk") } else { (base, "raw") };
        create.extend(["-b", base, "-F", base_format]);
        create.push(&name);
    } else {
        create.extend([name.as_str(), &size]);
    }
    bench.make(&create);
    if format == "qcow2" {
        furnish(bench, random, &name, v3);
    }
    (format, name)
}

/// Gives a qcow2 image snapshots, bitmaps and marks.
fn furnish(bench: &Bench, random: &mut Random, name: &str, v3: bool) {
    let mut bitmaps = false;
    if v3 && one_in(random, 3) {
        for bitmap in
            ["b", "bit map, \"two\" \\", "dritte Übersicht"].into_iter().take(1 + random.below(3) as usize)
        {
            let granularity = pick(random, &["512", "64k", "1M"]);
            let state = pick(random, &["--enable", "--disable"]);
            let said = bench.reference(&["bitmap", "--add", state, "-g", granularity, name, bitmap]);
            bitmaps |= said.code == Some(0);
        }
    }
    if one_in(random, 3) {
        for _ in 0..=random.below(3) {
            let snapshot = pick(
                random,
                &["s", "zwölf Boxkämpfer", "a name that is longer than its column", "\u{1f600}"],
            );
            // Not all images can have one.
            bench.reference(&["snapshot", "-c", snapshot, name]);
        }
    }
    if one_in(random, 6) {
        bench.qemu_io(name, &["write 0 512", "abort"]);
    }
    if v3 && !bitmaps && one_in(random, 6) {
        // Section "Header" of the qcow2 specification: incompatible feature bit 1.
        patch(&bench.path(name), 79, |byte| byte | 2);
    }
}

fn patch(path: &Path, offset: u64, change: impl Fn(u8) -> u8) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[change(byte[0])]).unwrap();
}

fn bench_with_bases() -> Bench {
    let bench = Bench::new();
    fs::create_dir(bench.path("sub")).unwrap();
    for name in ["base.raw", "base name.raw"] {
        bench.make(&["create", "-q", "-f", "raw", name, "1M"]);
    }
    bench.make(&["create", "-q", "-f", "vmdk", "base.vmdk", "1M"]);
    bench
}

/// Waits until the file system has settled how much space a file takes.
fn settle(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn random_images_are_described_as_qemu_img_describes_them() {
    let bench = bench_with_bases();
    let numbers: Vec<u64> = (0..IMAGES).collect();
    let found = differences(&numbers, |&number| {
        let (format, name) = make(&bench, number);
        settle(&bench.path(&name));
        let mut row = vec!["info"];
        if number % 3 == 0 || name.ends_with(".vpc") {
            row.extend(["-f", format]);
        }
        let mut texts = vec![];
        for output in ["--output=human", "--output=json"] {
            let mut row = row.clone();
            row.extend([output, &name]);
            let (ours, theirs) = (bench.drop_in(&row), bench.reference(&row));
            if theirs.code != Some(0) || ours != theirs {
                texts.push(format!("{row:?}\ninstar: {ours}\nqemu-img: {theirs}"));
            }
            if number % 4 != 0 {
                continue;
            }
            row.push("--backing-chain");
            let theirs = bench.reference(&row);
            row.extend(["--allow-references", "."]);
            let ours = bench.drop_in(&row);
            if theirs.code != Some(0) || ours != theirs {
                texts.push(format!("{row:?}\ninstar: {ours}\nqemu-img: {theirs}"));
            }
        }
        for made in [name.clone(), format!("{number}.data")] {
            let _ = fs::remove_file(bench.path(&made));
        }
        (!texts.is_empty()).then(|| texts.join("\n"))
    });
    assert_none(&found, numbers.len());
}

/// Parts of a file, `[start, end)` in bytes.
type Places = &'static [(u64, u64)];

/// Images whose bytes are flipped, and where: all that `qemu-img info` looks at but what docs/quirks.md has rows and
/// tests for, that is the place and number of qcow2's snapshots.
const VICTIMS: [(&str, &str, Places); 12] = [
    ("qcow2", "lazy_refcounts=on", &[(0, 60), (72, 512)]),
    ("qcow2", "compat=0.10,cluster_size=512", &[(0, 60)]),
    ("qcow2", "extended_l2=on,cluster_size=16k", &[(0, 60), (72, 512)]),
    ("vmdk", "subformat=monolithicSparse", &[(0, 80), (512, 900)]),
    ("vmdk", "subformat=streamOptimized", &[(0, 80), (512, 900)]),
    ("vpc", "subformat=dynamic", &[(0, 85), (512, 564)]),
    (
        "vhdx",
        "block_size=1M",
        &[(0x1_0000, 0x1_0060), (0x3_0000, 0x3_0050), (0x30_0000, 0x30_00c0), (0x31_0000, 0x31_0030)],
    ),
    ("vdi", "static=off", &[(64, 0x1c8)]),
    ("parallels", "cluster_size=64k", &[(0, 64)]),
    ("qed", "cluster_size=64k", &[(0, 64)]),
    ("qcow", "", &[(0, 48)]),
    ("luks", "key-secret=s,iter-time=10", &[(0, 592)]),
];

#[test]
fn images_with_flipped_bytes_end_as_they_do_with_qemu_img() {
    let bench = bench_with_bases();
    let mut victims = vec![];
    for (index, (format, options, places)) in VICTIMS.iter().enumerate() {
        let name = format!("victim-{index}");
        let mut create = vec!["create", "-q", "--object", "secret,id=s,data=s", "-f", format, &name, "3M"];
        if !options.is_empty() {
            create.extend(["-o", options]);
        }
        bench.make(&create);
        victims.push((*format, fs::read(bench.path(&name)).unwrap(), *places));
    }
    let numbers: Vec<u64> = (0..FLIPS).collect();
    let found = differences(&numbers, |&number| {
        let mut random = Random(0xf11b + 0x9e37_79b9 * number);
        let (format, bytes, places) = &victims[(number % victims.len() as u64) as usize];
        let name = format!("flipped-{number}");
        let mut bytes = bytes.clone();
        let mut flips = vec![];
        for _ in 0..=random.below(2) {
            let (start, end) = places[random.below(places.len() as u64) as usize];
            let at = start + random.below(end - start);
            let bits = 1 << random.below(8);
            bytes[at as usize] ^= bits;
            flips.push((at, bits));
        }
        fs::write(bench.path(&name), &bytes).unwrap();
        settle(&bench.path(&name));
        let mut row = vec!["info", "--output=json", &name];
        if (number / victims.len() as u64).is_multiple_of(2) {
            row.extend(["-f", format]);
        }
        let theirs = bench.reference(&row);
        let started = Instant::now();
        let ours = bench.drop_in(&row);
        let took = started.elapsed();
        fs::remove_file(bench.path(&name)).unwrap();
        let same = ours.code == theirs.code && ours.stdout == theirs.stdout && took < PATIENCE;
        (!same).then(|| format!("{row:?} {format} {flips:x?} {took:?}\ninstar: {ours}\nqemu-img: {theirs}"))
    });
    assert_none(&found, numbers.len());
}
