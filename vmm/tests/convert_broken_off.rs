//! Conversions that do not end well: killed at any moment, or out of space. What stands under the target's name then is nothing
//! that looks complete, and the source is what it was.

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use common::{Bench, Random, Said};

/// Bytes of the disk: enough to be killed in.
const SIZE: u64 = 48 << 20;

/// Moments at which a conversion is killed, for each kind of target.
const MOMENTS: u64 = 25;

/// A raw image full of what does not compress.
fn source(bench: &Bench, name: &str, size: u64) -> Vec<u8> {
    let mut random = Random(size);
    let bytes: Vec<u8> = (0..size / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(bench.path(name), &bytes).unwrap();
    bytes
}

/// What an image holds, if `qemu-img` takes it for one.
fn same(bench: &Bench, format: &str, name: &str) -> bool {
    bench.reference(&["compare", "-f", "raw", "-F", format, "disk.raw", name]).code == Some(0)
}

#[test]
fn a_conversion_that_is_killed_leaves_nothing_that_looks_complete() {
    let bench = Bench::new();
    let bytes = source(&bench, "disk.raw", SIZE);
    let mut random = Random(1);
    for (format, existing) in [("qcow2", false), ("raw", false), ("qcow2", true), ("raw", true)] {
        let arguments = ["convert", "-f", "raw", "-O", format, "disk.raw", "target"];
        let run = || {
            if existing {
                fs::write(bench.path("target"), "what was here before").unwrap();
            }
            bench.command(env!("CARGO_BIN_EXE_instar")).args(arguments).stderr(Stdio::null()).spawn().unwrap()
        };
        let begun = Instant::now();
        assert!(run().wait().unwrap().success());
        let whole = begun.elapsed();
        assert!(same(&bench, format, "target"));
        let (mut broken_off, mut complete) = (0, 0);
        for moment in 0..MOMENTS {
            let _ = fs::remove_file(bench.path("target"));
            let mut process = run();
            thread::sleep(whole.mul_f64(random.below(1100) as f64 / 1000.0));
            process.kill().unwrap();
            let ended = process.wait().unwrap();
            let there = bench.path("target").exists();
            if ended.success() {
                complete += 1;
            } else {
                broken_off += 1;
                assert!(existing || !there || same(&bench, format, "target"), "{format}, moment {moment}");
            }
            // One that is overwritten is short until it is complete, or no image.
            if there && !same(&bench, format, "target") {
                let length = fs::metadata(bench.path("target")).unwrap().len();
                let is_image = format == "raw" && length >= SIZE
                    || format != "raw" && bench.reference(&["info", "-f", format, "target"]).code == Some(0);
                assert!(existing && !is_image, "{format}, moment {moment}: {length} bytes");
            }
            let beside: Vec<_> = fs::read_dir(bench.directory())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| !["disk.raw", "target", "qemu-img"].contains(&name.as_str()))
                .collect();
            assert_eq!(beside, Vec::<String>::new(), "{format}, moment {moment}");
        }
        assert!(broken_off > 0, "{format}: {complete} were all complete");
    }
    assert!(fs::read(bench.path("disk.raw")).unwrap() == bytes);
}

#[test]
fn a_file_system_that_is_full_ends_a_conversion() {
    let bench = Bench::new();
    let bytes = source(&bench, "disk.raw", 8 << 20);
    fs::create_dir(bench.path("small")).unwrap();
    let mounted = Said::by(bench.command("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs", "small"]));
    assert_eq!(mounted.code, Some(0), "a file system of its own takes root: {mounted}");
    for format in ["raw", "qcow2", "vpc", "vdi", "vmdk", "vhdx"] {
        for existing in [false, true] {
            if existing {
                fs::write(bench.path("small/target"), "what was here before").unwrap();
            }
            let said = bench.instar(&["convert", "-f", "raw", "-O", format, "disk.raw", "small/target"]);
            assert_eq!(said.code, Some(1), "{format}: {said}");
            assert!(said.stderr.contains("No space left on device"), "{format}: {said}");
            assert_eq!(said.stderr.lines().count(), 1, "{format}: {said}");
            let left: Vec<_> =
                fs::read_dir(bench.path("small")).unwrap().map(|entry| entry.unwrap().path()).collect();
            if existing {
                // What was in it went when the conversion began to write.
                assert_eq!(left, [bench.path("small/target")], "{format}");
                assert_eq!(fs::metadata(&left[0]).unwrap().len(), 0, "{format}");
                fs::remove_file(&left[0]).unwrap();
            } else {
                assert_eq!(left, Vec::<std::path::PathBuf>::new(), "{format}");
            }
        }
    }
    assert!(Said::by(bench.command("umount").arg("small")).code == Some(0));
    assert!(fs::read(bench.path("disk.raw")).unwrap() == bytes);
}

#[test]
fn a_source_that_shrinks_is_an_error() {
    let bench = Bench::new();
    source(&bench, "disk.raw", 64 << 20);
    let mut process = bench
        .command(env!("CARGO_BIN_EXE_instar"))
        .args(["convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "target"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(150));
    let file = File::options().write(true).open(bench.path("disk.raw")).unwrap();
    file.set_len(4096).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut process.stderr.take().unwrap(), &mut said).unwrap();
    assert!(!process.wait().unwrap().success());
    assert!(said.contains("error while reading"), "{said}");
    assert!(!bench.path("target").exists());
}
