//! `dd` against the real `qemu-img`: what is refused in which words, and what is written.

mod common;

use std::fs;

use common::{Bench, Said, assert_none, differences, line, profile};

/// Operands and options, one command a line; `out` is a file that is not there.
const LINES: &str = "
if=d.raw
of=out
if=d.raw of=out
if=nx of=out
if=d.raw of=out bs=x
if=d.raw of=out bs=0
if=d.raw of=out bs=4G
if=d.raw of=out count=x
if=d.raw of=out skip=x
if=d.raw of=out skip=-1
if=d.raw of=out foo=1
if=d.raw of=out foo
if=d.raw out
if= of=out
if=d.raw of=
bs=1M if=d.raw of=out count=0
bs=1M skip=5 if=d.raw of=out
bs=512 skip=2 count=3 if=d.raw of=out
bs=700 skip=1 count=3 if=d.raw of=out
bs=700 skip=1 if=d.qcow2 of=out
bs=1000 skip=3 count=500 if=d.qcow2 of=out
bs=64k skip=3 count=5 -O vdi if=d.qcow2 of=out
bs=64k skip=3 -O vpc if=d.raw of=out
if=d.raw of=out isize=100
-f qcow2 if=d.raw of=out
-f foo if=d.raw of=out
-O foo if=d.raw of=out
-O bochs if=d.raw of=out
-n if=d.raw of=out
-x
--foo
--image-opts -f raw if=d.raw of=out
--image-opts if=driver=qcow2,file.filename=d.qcow2 of=out
--object foo if=d.raw of=out
if=d.raw of=/nx/out
if=d.raw of=.
if=d.raw of=foo:x
if=nx of=/nx/out
if=d.qcow2 if=d.raw of=out
bs=1k bs=x if=d.raw of=out
-U -O raw -f raw if=d.raw of=out count=1
bs=0x200 if=d.raw of=out count=1
bs=1.5k if=d.raw of=out count=1
skip=99999999999999999999 if=d.raw of=out
";

#[test]
fn parts_are_copied_and_refused_as_by_qemu_img() {
    let bench = Bench::new();
    let mut random = common::Random(19);
    let mut disk = vec![0; 1 << 20];
    disk[100_000..600_000].fill_with(|| random.next() as u8);
    fs::write(bench.path("d.raw"), &disk).unwrap();
    bench.make(&["convert", "-O", "qcow2", "d.raw", "d.qcow2"]);
    let lines: Vec<(usize, &str)> = LINES.trim().lines().chain([""]).enumerate().collect();
    let found = differences(&lines, |(index, text)| {
        let name = format!("out{index}");
        let row: Vec<String> = std::iter::once("dd")
            .chain(text.split_whitespace())
            .map(|word| word.replace("out", &name))
            .collect();
        let mut ours = bench.command(bench.path("qemu-img"));
        let ours = Said::by(ours.env("INSTAR_QEMU_VERSION", profile()).args(&row));
        let written = fs::read(bench.path(&name)).ok();
        let _ = fs::remove_file(bench.path(&name));
        let theirs = bench.reference(&row);
        // A file that could not be filled is not left behind by us.
        let expected = fs::read(bench.path(&name)).ok().filter(|_| theirs.code == Some(0));
        // Dynamic disks have ids in them.
        let same = match text.contains("-O v") {
            true => written.as_ref().map(Vec::len) == expected.as_ref().map(Vec::len),
            false => written == expected,
        };
        (ours != theirs || !same).then(|| format!("{}\ninstar: {ours}\nqemu-img: {theirs}", line(&row)))
    });
    assert_none(&found, lines.len());
}
