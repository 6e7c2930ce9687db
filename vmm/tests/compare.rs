//! `compare` against the real `qemu-img`: text, exit codes and the order of checks, over every format, chains, lengths and
//! broken images.

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicUsize, Ordering},
};

use common::{
    Bench, Said, assert_none, differences, major,
    random_images::{Maker, difference_in, directory, make_all, random},
    settle,
};

/// Formats and options of the copies of one disk.
const COPIES: [(&str, &[&str]); 14] = [
    ("raw", &[]),
    ("qcow2", &[]),
    ("qcow2", &["-o", "cluster_size=4k"]),
    ("qcow2", &["-o", "extended_l2=on"]),
    ("qcow2", &["-c"]),
    ("qcow2", &["-S", "0"]),
    ("vmdk", &[]),
    ("vmdk", &["-o", "subformat=streamOptimized"]),
    ("vpc", &["-o", "force_size=on"]),
    ("vhdx", &[]),
    ("vdi", &[]),
    ("qcow", &[]),
    ("qed", &[]),
    ("parallels", &[]),
];

/// Random images, the ones below others not counted.
const IMAGES: u64 = 36;

/// What both say of the rows, everything beneath the bench's directory being allowed.
fn assert_same(bench: &Bench, rows: &[Vec<String>]) {
    settle(bench.directory());
    let found = differences(rows, |row| difference_in(bench, bench.directory(), row));
    assert_none(&found, rows.len());
}

fn row(line: &str) -> Vec<String> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    std::iter::once("compare").chain(words).map(str::to_owned).collect()
}

/// A disk of 6 MiB with data, zeros that are stored, and holes.
fn disk() -> Vec<u8> {
    let mut random = common::Random(11);
    let mut disk = vec![0; 6 << 20];
    for (start, length) in [(0, 700_000), (3 << 20, 1 << 20), (5 << 20, 12_345)] {
        disk[start..start + length].fill_with(|| random.next() as u8);
    }
    disk
}

#[test]
fn copies_in_every_format_are_compared() {
    let bench = Bench::new();
    let mut disk = disk();
    fs::write(bench.path("0.raw"), &disk).unwrap();
    let mut names = vec![];
    // Debian's 5.2 does not write Parallels images.
    let written = COPIES.iter().filter(|(format, _)| major() >= 7 || *format != "parallels");
    for (index, (format, options)) in written.enumerate() {
        let name = format!("{index}.copy.{format}");
        bench.make(&[&["convert", "-O", format], *options, &["0.raw", &name]].concat());
        names.push(name);
    }
    // Bytes that differ: in data, in zeros, at both ends, in chunks behind the first one.
    let mut random = common::Random(12);
    let places = [0, 6 << 20, 2 << 20, 4 << 20, 700_000, (5 << 20) + 12_345];
    for index in 0..12 {
        let place = match places.get(index) {
            Some(&end) => end - usize::from(end > 0),
            None => random.below(6 << 20) as usize,
        };
        disk[place] ^= 1;
        fs::write(bench.path(&format!("{index}.other.raw")), &disk).unwrap();
        disk[place] ^= 1;
    }
    let mut rows = vec![];
    for name in &names {
        rows.push(row(&format!("-p 0.raw {name}")));
        rows.push(row(&format!("-f {} {name} 0.copy.raw", name.rsplit_once('.').unwrap().1)));
        for other in &names {
            rows.push(row(&format!("-s {name} {other}")));
        }
        for index in 0..12 {
            rows.push(row(&format!("{name} {index}.other.raw")));
        }
    }
    assert_same(&bench, &rows);
}

#[test]
fn lengths_may_differ_where_zeros_follow() {
    let bench = Bench::new();
    let mut disk = disk();
    fs::write(bench.path("short.raw"), &disk[..(5 << 20) + 100_000]).unwrap();
    fs::write(bench.path("odd.raw"), &disk[..(3 << 20) + 1234]).unwrap();
    disk.resize(9 << 20, 0);
    fs::write(bench.path("long.raw"), &disk).unwrap();
    disk[(8 << 20) + 4321] = 1;
    fs::write(bench.path("tail.raw"), &disk).unwrap();
    File::create(bench.path("hole.raw")).unwrap().set_len(20 << 20).unwrap();
    File::create(bench.path("none.raw")).unwrap();
    bench.make(&["convert", "-O", "qcow2", "tail.raw", "tail.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "none.qcow2", "1G"]);
    let names =
        ["short.raw", "odd.raw", "long.raw", "tail.raw", "hole.raw", "none.raw", "tail.qcow2", "none.qcow2"];
    let mut rows = vec![];
    for one in names {
        for two in names {
            for options in ["", "-p", "-q", "-s", "-p -s", "-p -q"] {
                rows.push(row(&format!("{options} {one} {two}")));
            }
        }
    }
    assert_same(&bench, &rows);
}

#[test]
fn progress_is_told_at_the_same_moments() {
    let bench = Bench::new();
    let (mut random, mut commands) = (common::Random(13), vec![]);
    bench.make(&["create", "-q", "-f", "qcow2", "sparse.qcow2", "300M"]);
    for _ in 0..60 {
        commands.push(format!("write -P 7 {} {}", random.below(4700) * 65536, (1 + random.below(6)) * 32768));
    }
    assert!(bench.qemu_io("sparse.qcow2", &commands.iter().map(String::as_str).collect::<Vec<_>>()));
    bench.make(&["convert", "-O", "raw", "sparse.qcow2", "flat.raw"]);
    bench.make(&["convert", "-O", "vdi", "sparse.qcow2", "sparse.vdi"]);
    let rows = [
        "-p sparse.qcow2 flat.raw",
        "-p flat.raw sparse.qcow2",
        "-p sparse.vdi flat.raw",
        "-p flat.raw flat.raw",
    ];
    assert_same(&bench, &rows.map(row));
}

#[test]
fn random_images_are_compared_as_qemu_img_compares_them() {
    let bench = Bench::new();
    let numbers: Vec<u64> = (0..IMAGES).collect();
    let made = make_all(&bench, &numbers);
    let images = made.iter().flatten().count();
    assert!(images >= 28, "only {images} images");
    let compared = AtomicUsize::new(0);
    let found = differences(&numbers, |&number| {
        let made = made[number as usize].as_ref()?;
        let directory = directory(&bench, number);
        let mut maker = Maker { directory: &directory, random: random(number + IMAGES) };
        let mut copy = bench.command(common::qemu_img());
        let copied = copy.current_dir(&directory).args(["convert", "-f", made.format, "-O", "raw"]);
        if Said::by(copied.args([&made.name, "copy.raw"])).code != Some(0) {
            // Too small for its format, as it says.
            return None;
        }
        compared.fetch_add(1, Ordering::Relaxed);
        let file = File::options().write(true).open(directory.join("copy.raw")).unwrap();
        let length = file.metadata().unwrap().len();
        let options = format!("-f {} -F raw", made.format);
        let mut found = vec![];
        for flip in [false, true] {
            if flip {
                file.write_at(&[maker.random.below(256) as u8], maker.random.below(length.max(1))).unwrap();
            }
            for more in ["-p", "-s"] {
                let row = row(&format!("{more} {options} {} copy.raw", made.name));
                found.extend(difference_in(&bench, &directory, &row));
            }
        }
        (!found.is_empty()).then(|| found.join("\n"))
    });
    assert_none(&found, images * 4);
    assert!(compared.into_inner() >= 24);
}

#[test]
fn command_lines_are_refused_in_the_same_words() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        fs::write(bench.path(name), vec![1; 4096]).unwrap();
    }
    let mut rows: Vec<Vec<String>> = [
        "",
        "a",
        "a b a",
        "nx b",
        "a nx",
        "nx ny",
        "-p nx b",
        "-p a nx",
        "-q nx b",
        "-f foo a b",
        "-F foo a b",
        "-f qcow2 a b",
        "-F qcow2 a b",
        "-f qcow2 a nx",
        "-f raw -F raw a b",
        "-T foo a b",
        "-p -T foo a b",
        "-T none a b",
        "-T unsafe nx b",
        "-T foo a",
        "--foo a b",
        "-x a b",
        "-f",
        "-Uqf raw a b",
        "a -s b -p",
        "-s -- a b",
        "--object foo a b",
        "--object secret,id=a a b",
        "--object secret,id=a,data=b a b",
        "--image-opts -f raw a b",
        "--image-opts -F raw driver=raw,file.filename=a b",
        "--image-opts -F raw driver=raw,file.filename=nx b",
        "--image-opts driver=raw,file.filename=a driver=raw,file.filename=b",
    ]
    .map(row)
    .to_vec();
    if major() >= 10 {
        let new = [
            "--a-format raw --b-format=raw a b",
            "--cache=none --strict a b",
            "--quiet --progress a b",
            "--c=x a b",
        ];
        rows.extend(new.map(row));
        rows.push(row("--progress=json a b"));
        rows.push(row("--image-opts file.filename=a a"));
    }
    assert_same(&bench, &rows);
}

#[test]
fn encrypted_images_and_chains_are_compared() {
    let bench = Bench::new();
    fs::write(bench.path("plain.raw"), disk()).unwrap();
    let object = "secret,id=s,data=abc";
    for (name, options) in [
        ("luks.qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
        ("disk.luks", "key-secret=s,iter-time=10"),
    ] {
        let format = name.rsplit_once('.').unwrap().1;
        bench.make(&["convert", "--object", object, "-O", format, "-o", options, "plain.raw", name]);
    }
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "plain.raw", "-F", "raw", "over.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "over.qcow2", "-F", "qcow2", "top.qcow2", "8M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "plain.raw", "-F", "raw", "changed.qcow2"]);
    assert!(bench.qemu_io("changed.qcow2", &["write -P 9 2M 64k"]));
    let luks = "driver=luks,key-secret=s,file.filename=disk.luks";
    let qcow2 = "driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2";
    let plain = "driver=raw,file.filename=plain.raw";
    let mut rows = vec![];
    for pair in [[luks, qcow2], [plain, luks], [qcow2, plain]] {
        for options in ["", "-s"] {
            rows.push(row(&format!("{options} --object {object} --image-opts {} {}", pair[0], pair[1])));
        }
        rows.push(row(&format!("--object secret,id=s,data=x --image-opts {} {}", pair[0], pair[1])));
        rows.push(row(&format!("--image-opts {} {}", pair[0], pair[1])));
    }
    for pair in
        ["over.qcow2 plain.raw", "top.qcow2 over.qcow2", "plain.raw changed.qcow2", "changed.qcow2 top.qcow2"]
    {
        rows.push(row(pair));
        rows.push(row(&format!("-s {pair}")));
        rows.push(row(&format!("-p {pair}")));
    }
    assert_same(&bench, &rows);
}

#[test]
fn references_are_denied_by_default() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "raw", "base.raw", "1M"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over.qcow2"]);
    for line in [["compare", "over.qcow2", "base.raw"], ["compare", "base.raw", "over.qcow2"]] {
        let said = bench.instar(&line);
        assert_eq!(said.code, Some(2), "{said}");
        assert!(said.stderr.contains("backing file 'base.raw'"), "{said}");
        assert!(said.stderr.contains("(reference-denied"), "{said}");
    }
}

#[test]
fn broken_images_have_their_own_exit_codes() {
    let bench = Bench::new();
    fs::write(bench.path("plain.raw"), disk()).unwrap();
    bench.make(&["convert", "-c", "-O", "qcow2", "plain.raw", "stream.qcow2"]);
    bench.make(&["convert", "-O", "qcow2", "plain.raw", "table.qcow2"]);
    let overwrite = |name: &str, place: u64, bytes: &[u8]| {
        let file = File::options().write(true).open(bench.path(name)).unwrap();
        file.write_all_at(bytes, place).unwrap();
    };
    // The entry of the cluster at 3 MiB, not aligned; that of the first one leads to no stream.
    overwrite("table.qcow2", (4 << 16) + 8 * 48, &0x8000_0000_0005_0200_u64.to_be_bytes());
    overwrite("stream.qcow2", (4 << 16) + 8 * 48, &(1_u64 << 62 | 0x1234).to_be_bytes());
    let rows = [
        "table.qcow2 plain.raw",
        "plain.raw table.qcow2",
        "plain.raw stream.qcow2",
        "-p stream.qcow2 plain.raw",
    ];
    for (line, code) in rows.iter().zip([3, 3, 4, 4]) {
        let (ours, mut theirs) = (bench.drop_in(&row(line)), bench.reference(&row(line)));
        // The format driver's own word for it.
        theirs.stderr =
            theirs.stderr.split_inclusive('\n').filter(|line| !line.starts_with("qcow2: ")).collect();
        assert_eq!((ours.code, &ours), (Some(code), &theirs), "{line}");
    }
    let said = bench.instar(&["compare", "plain.raw", "table.qcow2"]);
    assert_eq!(said.code, Some(3), "{said}");
    assert!(said.stderr.contains("Sector allocation test failed for table.qcow2 (corrupt: "), "{said}");
}

#[test]
fn progress_can_be_json() {
    let bench = Bench::new();
    fs::write(bench.path("a"), vec![1; 8 << 20]).unwrap();
    let said = bench.instar(&["compare", "--progress=json", "a", "a"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "Images are identical.\n"), "{said}");
    let lines: Vec<serde_json::Value> =
        said.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let percents: Vec<f64> = lines.iter().map(|line| line["percent"].as_f64().unwrap()).collect();
    assert_eq!(percents, [0.0, 25.0, 50.0, 75.0, 100.0]);
    let said = bench.instar(&["compare", "--progress=xml", "a", "a"]);
    let message = "instar: --progress expects =bar, =json or =text, not 'xml' (usage)\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), message));
}
