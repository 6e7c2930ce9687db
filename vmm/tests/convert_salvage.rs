//! `convert --salvage` of broken images against the real `qemu-img`: the same disk, the same warnings, the same exit code.

mod common;

use std::{collections::BTreeMap, fs};

use common::{Bench, Random, Said, assert_none, differences};

/// Where `qemu-img convert` puts the L2 table and the first cluster of an image of 2 MiB, in bytes.
const L2: usize = 0x40000;
const CLUSTER: u64 = 0x10000;

/// The L2 entry of a cluster.
fn entry(image: &[u8], index: usize) -> u64 {
    u64::from_be_bytes(image[L2 + 8 * index..][..8].try_into().unwrap())
}

fn with_entry(image: &[u8], index: usize, entry: u64) -> Vec<u8> {
    let mut broken = image.to_vec();
    broken[L2 + 8 * index..][..8].copy_from_slice(&entry.to_be_bytes());
    broken
}

/// Broken images, by name: of a disk of data in clusters 0 to 3, zeros, and data again from 20 on.
fn broken(bench: &Bench) -> Vec<&'static str> {
    let mut random = Random(3);
    let mut disk = vec![0; 2 << 20];
    for range in [0..4 * 65536, 20 * 65536..23 * 65536 + 512] {
        // Less than eight bits a byte, so that it is compressed.
        disk[range].fill_with(|| random.below(7) as u8);
    }
    fs::write(bench.path("disk.raw"), &disk).unwrap();
    bench.make(&["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "plain.qcow2"]);
    bench.make(&["convert", "-f", "raw", "-c", "-O", "qcow2", "disk.raw", "packed.qcow2"]);
    let [plain, packed] = ["plain.qcow2", "packed.qcow2"].map(|name| fs::read(bench.path(name)).unwrap());

    let mut stream = packed.clone();
    let at = (entry(&packed, 1) & ((1 << 54) - 1)) as usize;
    stream[at..at + 64].fill(0xff);
    let mut table = plain.clone();
    let l1 = u64::from_be_bytes(plain[40..48].try_into().unwrap()) as usize;
    table[l1..l1 + 8].copy_from_slice(&(1 << 63 | L2 as u64 | 0x200).to_be_bytes());
    let images = [
        ("sound", packed.clone()),
        ("stream", stream),
        ("stream-past-the-end", with_entry(&packed, 21, entry(&packed, 21) + (1 << 40))),
        ("cluster", with_entry(&plain, 2, entry(&plain, 2) + 0x200)),
        ("cluster-at-the-end", with_entry(&plain, 23, entry(&plain, 23) + 0x200)),
        ("table", table),
    ];
    images
        .map(|(name, image)| {
            fs::write(bench.path(name), image).unwrap();
            name
        })
        .to_vec()
}

/// The lines of stderr and how often each is there: `qemu-img` reads here and asks there, in no certain order. What it finds
/// wrong with an image it says on a line of its own, instar does not.
fn warnings(said: &Said) -> BTreeMap<&str, usize> {
    let mut lines = BTreeMap::new();
    for line in said.stderr.lines().filter(|line| !line.starts_with("qcow2: ")) {
        *lines.entry(line).or_default() += 1;
    }
    lines
}

#[test]
fn what_cannot_be_read_becomes_zeros() {
    let bench = Bench::new();
    let images = broken(&bench);
    let targets: [&[&str]; 4] =
        [&["-O", "raw"], &["-O", "qcow2"], &["-O", "qcow2", "-c"], &["-q", "-O", "vmdk", "-S", "0"]];
    let rows: Vec<(&str, usize)> =
        (0..targets.len()).flat_map(|target| images.iter().map(move |&image| (image, target))).collect();
    let found = differences(&rows, |&(image, target)| {
        let name = |who| format!("{image}-{target}.{who}");
        // qemu-img marks what it finds corrupt.
        fs::copy(bench.path(image), bench.path(&name("source"))).unwrap();
        let row = |from: &str, to: &str| {
            let row = ["convert", "--salvage", "-f", "qcow2"].iter().chain(targets[target]);
            row.chain(&[from, to]).map(|&word| word.to_owned()).collect::<Vec<_>>()
        };
        let ours = bench.drop_in(&row(image, &name("ours")));
        let theirs = bench.reference(&row(&name("source"), &name("theirs")));
        let format = targets[target].iter().skip_while(|&&word| word != "-O").nth(1).unwrap();
        let same = bench.reference(&["compare", "-f", format, "-F", format, &name("ours"), &name("theirs")]);
        let equal = (ours.code, warnings(&ours)) == (theirs.code, warnings(&theirs));
        (!equal || same.code != Some(0))
            .then(|| format!("{image} {target}: {same}\ninstar: {ours}\nqemu-img: {theirs}"))
    });
    assert_none(&found, rows.len());
}

#[test]
fn only_the_sectors_that_cannot_be_read_are_lost() {
    let bench = Bench::new();
    broken(&bench);
    let said = bench.instar(&["convert", "--salvage", "-f", "qcow2", "stream", "out.raw"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(said.stderr.lines().count() as u64, CLUSTER / 512, "{said}");
    let [mut disk, out] = ["disk.raw", "out.raw"].map(|name| fs::read(bench.path(name)).unwrap());
    disk[65536..2 * 65536].fill(0);
    assert!(disk == out);
    // Without the option it is a failure.
    let said = bench.instar(&["convert", "-f", "qcow2", "stream", "out2.raw"]);
    assert_eq!(said.code, Some(1), "{said}");
}
