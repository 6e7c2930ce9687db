//! Compressed sources against the real `qemu-img`: what `convert`, `dd` and `compare` make of them, with one processor and with
//! all, and of streams that somebody has broken.

mod common;

use std::fs;

use common::{Bench, Random, Said, assert_none, differences};

/// Length of the disks in bytes: their images are long enough for workers.
const LENGTH: usize = 12 << 20;

/// A disk with data that is compressed well, badly and not at all, and with zeros.
fn disk() -> Vec<u8> {
    let mut random = Random(17);
    let mut disk = vec![0; LENGTH];
    for part in disk.chunks_mut(300_000) {
        let symbols = [0, 1, 3, 20, 100, 256, 256][random.below(7) as usize];
        if symbols > 0 {
            part.fill_with(|| random.below(symbols) as u8);
        }
    }
    disk
}

/// The images of the disk: name, format and how `qemu-img convert` makes them.
const IMAGES: [(&str, &str, &[&str]); 8] = [
    ("zlib-4k", "qcow2", &["-c", "-o", "cluster_size=4k"]),
    ("zlib-64k", "qcow2", &["-c"]),
    ("zlib-2m", "qcow2", &["-c", "-o", "cluster_size=2M"]),
    ("zstd-4k", "qcow2", &["-c", "-o", "compression_type=zstd,cluster_size=4k"]),
    ("zstd-64k", "qcow2", &["-c", "-o", "compression_type=zstd"]),
    ("zstd-2m", "qcow2", &["-c", "-o", "compression_type=zstd,cluster_size=2M"]),
    ("stream", "vmdk", &["-o", "subformat=streamOptimized"]),
    ("old", "qcow", &["-c"]),
];

/// Makes `disk.raw` and those of its images that are asked for.
fn make(bench: &Bench, names: &[&str]) {
    fs::write(bench.path("disk.raw"), disk()).unwrap();
    for (name, format, options) in IMAGES.into_iter().filter(|(name, ..)| names.contains(name)) {
        let row = [&["convert", "-f", "raw", "-O", format], options, &["disk.raw", name]].concat();
        // qemu-img makes no qcow image of what cannot be compressed.
        let said = if format == "qcow" { bench.drop_in(&row) } else { bench.reference(&row) };
        assert_eq!(said.code, Some(0), "{row:?}: {said}");
    }
}

/// instar with all processors, or with one only: then it has no workers.
fn instar(bench: &Bench, alone: bool, arguments: &[&str]) -> Said {
    let program = env!("CARGO_BIN_EXE_instar");
    let mut command = bench.command(if alone { "taskset" } else { program });
    if alone {
        command.args(["-c", "0", program]);
    }
    Said::by(command.args(arguments))
}

/// That a command fails, or that the file it makes is not `expected`.
fn difference(said: &Said, made: &[u8], expected: &[u8]) -> Option<String> {
    (said.code != Some(0) || made != expected).then(|| format!("{said}, {} bytes", made.len()))
}

#[test]
fn what_is_compressed_is_read_by_as_many_processors_as_there_are() {
    let bench = Bench::new();
    make(&bench, &IMAGES.map(|(name, ..)| name));
    let disk = disk();
    let rows: Vec<_> = IMAGES.iter().flat_map(|image| [(image, false), (image, true)]).collect();
    let found = differences(&rows, |&(&(name, format, _), alone)| {
        let out = |what: &str| format!("{name}-{alone}-{what}");
        let check = |what: &str, arguments: &[&str], expected: &[u8]| {
            let said = instar(&bench, alone, arguments);
            let made = fs::read(bench.path(&out(what))).unwrap_or_default();
            let _ = fs::remove_file(bench.path(&out(what)));
            difference(&said, &made, expected).map(|text| format!("{name} {alone} {what}: {text}"))
        };
        let compared = |other: &str, other_format: &str| {
            let said = instar(&bench, alone, &["compare", "-f", format, "-F", other_format, name, other]);
            (said.code != Some(0)).then(|| format!("{name} {alone} {other}: {said}"))
        };
        let (raw, packed, part) = (out("raw"), out("packed"), out("part"));
        let dd = |option: &str, value: &str| format!("{option}={value}");
        check("raw", &["convert", "-f", format, name, &raw], &disk)
            .or_else(|| {
                // Decoded and encoded again.
                let said =
                    instar(&bench, alone, &["convert", "-f", format, "-O", "qcow2", "-c", name, &packed]);
                let same = bench.reference(&["compare", "-f", "qcow2", "-F", "raw", &packed, "disk.raw"]);
                (said.code != Some(0) || same.code != Some(0))
                    .then(|| format!("{name} {alone}: {said} {same}"))
            })
            .or_else(|| {
                let words = [
                    dd("bs", "1000"),
                    dd("skip", "777"),
                    dd("count", "9737"),
                    dd("if", name),
                    dd("of", &part),
                ];
                let words: Vec<&str> =
                    ["dd", "-f", format].into_iter().chain(words.iter().map(String::as_str)).collect();
                check("part", &words, &disk[777_000..9_737_000])
            })
            .or_else(|| compared("disk.raw", "raw"))
            // Two disks that are decoded side by side.
            .or_else(|| compared("zstd-64k", "qcow2"))
    });
    assert_none(&found, rows.len());
}

/// Small clusters upon large ones that are compressed: of these, parts are asked for between other things.
#[test]
fn what_lies_upon_compressed_images_is_read() {
    let bases = [("zlib-2m", "qcow2"), ("zstd-2m", "qcow2"), ("zlib-64k", "qcow2"), ("stream", "vmdk")];
    let bench = Bench::new();
    make(&bench, &bases.map(|(name, _)| name));
    let directory = bench.directory().to_str().unwrap().to_owned();
    let mut random = Random(5);
    let mut rows = Vec::new();
    for (base, format) in bases {
        let (top, expected) = (format!("on-{base}"), format!("{base}.raw"));
        let size = format!("{}", LENGTH + 65536);
        bench.make(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "cluster_size=4k",
            "-b",
            base,
            "-F",
            format,
            &top,
            &size,
        ]);
        let writes: Vec<String> = (0..200)
            .map(|_| {
                format!(
                    "write -q -P {} {} {}",
                    random.below(256),
                    random.below(LENGTH as u64),
                    1 + random.below(9000)
                )
            })
            .collect();
        assert!(bench.qemu_io(&top, &writes.iter().map(String::as_str).collect::<Vec<_>>()));
        bench.make(&["convert", "-f", "qcow2", "-O", "raw", &top, &expected]);
        rows.extend([(top.clone(), expected.clone(), false), (top, expected, true)]);
    }
    let found = differences(&rows, |(top, expected, alone)| {
        let out = format!("{top}-{alone}");
        let said =
            instar(&bench, *alone, &["convert", "--allow-references", &directory, "-f", "qcow2", top, &out]);
        let [made, expected] = [&out, expected].map(|name| fs::read(bench.path(name)).unwrap_or_default());
        difference(&said, &made, &expected).map(|text| format!("{top} {alone}: {text}"))
    });
    assert_none(&found, rows.len());
}

/// The data clusters that a qcow2 image has compressed: their numbers, where their L2 entries are, and these.
fn entries(image: &[u8]) -> Vec<(usize, usize, u64)> {
    let number = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let (l1, cluster) = (number(40) as usize, 1_usize << image[23]);
    let tables = (0..).map(|index| number(l1 + 8 * index)).take_while(|&entry| entry != 0);
    let offsets = tables.map(|entry| (entry & ((1 << 56) - 512)) as usize);
    let slots = offsets.flat_map(|table| (table..table + cluster).step_by(8));
    let all = slots.enumerate().map(|(index, at)| (index, at, number(at)));
    all.filter(|(.., entry)| entry >> 62 == 1).collect()
}

/// Breaks a stream, the entry that leads to it, or the end of the file, behind all tables. Answers what of the disk is in the
/// cluster.
fn broken(
    image: &[u8],
    entries: &[(usize, usize, u64)],
    bits: u32,
    seed: u64,
) -> (Vec<u8>, std::ops::Range<usize>) {
    let mut random = Random(seed * 77 + 1);
    let mut broken = image.to_vec();
    let (chosen, how) = (random.below(entries.len() as u64) as usize, random.below(7));
    let (index, slot, entry) = entries[if how < 6 { chosen } else { entries.len() - 1 }];
    // The offset, and how many sectors follow its own (qcow2 specification, "Compressed Clusters Descriptor").
    let offset_bits = 62 - (bits - 8);
    let offset = (entry & ((1 << offset_bits) - 1)) as usize;
    let length = 512 * (1 + (entry >> offset_bits & ((1 << (bits - 8)) - 1)) as usize) - offset % 512;
    let end = (offset + length).min(image.len());
    let mut set = |entry: u64| broken[slot..slot + 8].copy_from_slice(&entry.to_be_bytes());
    match how {
        // Garbage.
        0 => broken[offset..end].fill_with(|| random.next() as u8),
        // A bit.
        1 | 2 => broken[offset + random.below(length as u64 / 4) as usize] ^= 1 << random.below(8),
        // Another cluster's stream, or the middle of one.
        3 => set(entry & !((1 << offset_bits) - 1) | entries[entries.len() / 2].2 & ((1 << offset_bits) - 1)),
        4 => set(entry + 1 + random.below(3000)),
        // As few sectors as there can be.
        5 => set(entry & ((1 << offset_bits) - 1) | 1 << 62),
        _ => broken.truncate(offset + length / 2),
    }
    (broken, index << bits..(index + 1) << bits)
}

#[test]
fn broken_streams_are_read_or_refused_as_qemu_img_does() {
    const CASES: u64 = 25;
    let bench = Bench::new();
    let images = [("zlib-64k", 16), ("zstd-64k", 16), ("zlib-4k", 12)];
    make(&bench, &images.map(|(name, _)| name));
    let images = images.map(|(name, bits)| {
        let image = fs::read(bench.path(name)).unwrap();
        let entries = entries(&image);
        assert!(entries.len() > 50, "{name}");
        (name, bits, image, entries)
    });
    let rows: Vec<_> = images.iter().flat_map(|image| (0..CASES).map(move |seed| (image, seed))).collect();
    let found = differences(&rows, |&((name, bits, image, entries), seed)| {
        let file = format!("{name}-{seed}");
        let (image, cluster) = broken(image, entries, *bits, seed);
        fs::write(bench.path(&file), image).unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|who| format!("{file}.{who}"));
        // qemu-img with several requests at a time tells of all that fail.
        let row = |at_once, out: &str| {
            ["convert", "-m", at_once, "-f", "qcow2", "-O", "raw", &file, out].map(str::to_owned)
        };
        let said = (bench.drop_in(&row("8", &ours)), bench.reference(&row("1", &theirs)));
        let data = |out: &str| {
            let mut data = fs::read(bench.path(out)).unwrap();
            if name.starts_with("zstd") {
                data[cluster.clone()].fill(0);
            }
            data
        };
        let same = said.0 == said.1 && (said.0.code != Some(0) || data(&ours) == data(&theirs));
        for name in [&file, &ours, &theirs] {
            let _ = fs::remove_file(bench.path(name));
        }
        (!same).then(|| format!("{file}\ninstar: {}\nqemu-img: {}", said.0, said.1))
    });
    assert_none(&found, rows.len());
}
