//! `convert -t`, `-T`, `-r` and `-m`: how files are cached, how fast they are written and how much is done at once. None of them
//! makes a difference to what is written.

mod common;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Bench, Random, Said};
use nix::{
    fcntl::OFlag,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const MODES: [&str; 5] = ["none", "directsync", "writethrough", "writeback", "unsafe"];

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut random = Random(length as u64);
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

/// A disk of data and zeros, with an end in the middle of a sector.
fn disk() -> Vec<u8> {
    let parts = [noise(700_001), vec![0; 300_000], noise(4096 * 3), vec![0; 8192], noise(2_500_000)];
    parts.concat()
}

fn succeeds(said: &Said) {
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn every_mode_writes_the_same() {
    let bench = Bench::new();
    fs::write(bench.path("disk.raw"), disk()).unwrap();
    bench.make(&["convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "top.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "over.qcow2"]);
    bench.make(&["convert", "-f", "raw", "disk.raw", "raw.want"]);
    let allowed = ["--allow-references", "."];
    for source in ["disk.raw", "top.qcow2", "over.qcow2"] {
        let source_format = if source == "disk.raw" { "raw" } else { "qcow2" };
        for target in ["raw", "qcow2", "vmdk -o subformat=twoGbMaxExtentSparse", "vdi", "qcow2 -c"] {
            let mut first = None;
            let name = format!("target.{}", &target[..3]);
            for mode in MODES {
                let _ = fs::remove_file(bench.path(&name));
                let line =
                    format!("convert -t {mode} -T {mode} -f {source_format} -O {target} {source} {name}");
                succeeds(&bench.instar(&[&line.split(' ').collect::<Vec<_>>()[..], &allowed].concat()));
                let written = fs::read(bench.path(&name)).unwrap();
                match target {
                    // Others have times or random numbers in them.
                    "raw" | "qcow2" | "qcow2 -c" => {
                        assert!(first.get_or_insert_with(|| written.clone()) == &written, "{line}");
                    }
                    _ => {}
                }
                let format = target.split(' ').next().unwrap();
                succeeds(&bench.reference(&["compare", "-f", "raw", "-F", format, "raw.want", &name]));
            }
        }
    }
}

#[test]
fn what_is_there_is_overwritten_and_written_into_in_every_mode() {
    let bench = Bench::new();
    fs::write(bench.path("disk.raw"), disk()).unwrap();
    bench.make(&["convert", "-f", "raw", "disk.raw", "want"]);
    let mut longer = noise(512 * 9001);
    for mode in MODES {
        fs::write(bench.path("raw"), &longer).unwrap();
        succeeds(&bench.instar(&["convert", "-n", "-t", mode, "-f", "raw", "-O", "raw", "disk.raw", "raw"]));
        fs::write(bench.path("reference"), &longer).unwrap();
        bench.make(&["convert", "-n", "-t", mode, "-f", "raw", "-O", "raw", "disk.raw", "reference"]);
        assert!(fs::read(bench.path("raw")).unwrap() == fs::read(bench.path("reference")).unwrap(), "{mode}");
        succeeds(&bench.instar(&["convert", "-t", mode, "-f", "raw", "disk.raw", "raw"]));
        assert!(fs::read(bench.path("raw")).unwrap() == fs::read(bench.path("want")).unwrap(), "{mode}");
        longer.truncate(longer.len() - 512);
    }
}

#[test]
fn lengths_that_are_no_blocks_are_those_of_the_reference() {
    let bench = Bench::new();
    let bytes = noise((1 << 20) + 4097);
    for length in [0, 1, 511, 512, 513, 700, 4095, 4096, 4097, 65_537, (1 << 20) + 4097] {
        fs::write(bench.path("odd.raw"), &bytes[..length]).unwrap();
        for format in ["raw", "qcow2"] {
            let convert = |to: &'static str| {
                ["convert", "-t", "none", "-T", "none", "-f", "raw", "-O", format, "odd.raw", to]
            };
            let (ours, theirs) = (bench.drop_in(&convert("ours")), bench.reference(&convert("theirs")));
            assert_eq!(ours, theirs, "{length} {format}");
            let read = |name: &str| fs::read(bench.path(name)).unwrap();
            assert!(read("ours") == read("theirs"), "{length} {format}");
            let compare = ["compare", "-T", "none", "-f", "raw", "-F", format, "odd.raw", "ours"];
            assert_eq!(bench.drop_in(&compare), bench.reference(&compare), "{length} {format}");
        }
    }
}

#[test]
fn a_file_system_without_direct_reads_is_told_of_in_the_same_words() {
    let bench = Bench::new();
    fs::write(bench.path("disk.raw"), noise(1024)).unwrap();
    bench.make(&["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"]);
    for line in [
        "check -T none disk.qcow2",
        "info -t none disk.qcow2",
        "compare -T none disk.qcow2 disk.raw",
        "convert -T none /proc/version new",
        "convert -T off -f raw /proc/version new",
        "convert -T directsync -O qcow2 -f raw disk.raw /proc/version new",
        "convert -T none -t nothing -f raw disk.raw new",
        "convert -T nothing -f raw disk.raw new",
        "convert -n -t none -f raw -O raw disk.raw /proc/self/comm",
        "convert -n -t directsync -f raw -O qcow2 disk.raw /proc/self/comm",
        "convert -n -t none -f raw -O raw disk.raw missing",
        "compare -T none -f raw -F raw disk.raw /proc/version",
        "compare -T directsync -f raw -F raw /proc/version missing",
        "compare -T nothing disk.raw disk.raw",
        "check -T none -f qcow2 /proc/version",
        "check -T nothing disk.raw",
        "info -t none /proc/version",
        "info -t nothing disk.raw",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let said = bench.drop_in(&arguments);
        assert!(!bench.path("new").exists(), "{line}");
        assert_eq!(said, bench.reference(&arguments), "{line}");
        let _ = fs::remove_file(bench.path("new"));
    }
}

/// A conversion that never gets far, because it may write a byte a second.
struct Slow(Child);

impl Slow {
    fn start(bench: &Bench, line: &str) -> Self {
        // Who runs the tests may have them ignore SIGINT.
        let mut command = bench.command("env");
        Self(
            command
                .args(["--default-signal=INT", env!("CARGO_BIN_EXE_instar"), "convert", "-r", "1"])
                .args(line.split(' '))
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Waits until `holds` of the process.
    fn wait_until(&self, holds: impl Fn(u32) -> bool) {
        let begun = Instant::now();
        while !holds(self.0.id()) {
            assert!(begun.elapsed() < PATIENCE, "it does not come to that");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it by a signal; answers how long that took.
    fn interrupt(&mut self) -> Duration {
        let begun = Instant::now();
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).unwrap();
        assert!(!self.0.wait().unwrap().success());
        begun.elapsed()
    }

    /// Waits for it to fail; answers what it says.
    fn failure(&mut self) -> String {
        assert_eq!(self.0.wait().unwrap().code(), Some(1));
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.0.kill();
    }
}

/// Flags of the descriptors by which a process has files open that `of` says yes to.
fn flags(process: u32, of: impl Fn(&fs::Metadata) -> bool) -> Vec<OFlag> {
    let of_descriptor = |name: String| {
        let there = fs::metadata(format!("/proc/{process}/fd/{name}")).ok()?;
        let text = fs::read_to_string(format!("/proc/{process}/fdinfo/{name}")).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        let flags = i32::from_str_radix(flags, 8).unwrap();
        of(&there).then_some(OFlag::from_bits_retain(flags))
    };
    let names = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
    names.filter_map(|entry| of_descriptor(entry.ok()?.file_name().into_string().ok()?)).collect()
}

/// Names of a process's threads, but for the kernel's own.
fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let name = |task: io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let names = tasks.filter_map(name).map(|name| name.trim().to_owned());
    names.filter(|name| !name.starts_with("kvm-")).collect()
}

#[test]
fn files_are_open_as_the_modes_say_and_a_signal_ends_who_waits() {
    let bench = Bench::new();
    let length = 3 << 20;
    fs::write(bench.path("disk.raw"), noise(length as usize)).unwrap();
    let source = fs::metadata(bench.path("disk.raw")).unwrap().ino();
    for (modes, direct) in [
        ("-T none -t writeback", [true, false]),
        ("-T directsync -t none", [true, true]),
        ("-T writethrough -t directsync", [false, true]),
        ("-T unsafe -t unsafe", [false, false]),
    ] {
        let mut slow = Slow::start(&bench, &format!("{modes} -f raw -O raw disk.raw new"));
        // The new file has no name, and something in it.
        let is_new = |there: &fs::Metadata| there.is_file() && there.nlink() == 0 && there.len() > 0;
        slow.wait_until(|process| !flags(process, is_new).is_empty());
        let is_source = |there: &fs::Metadata| there.ino() == source;
        let open = [flags(slow.0.id(), is_source), flags(slow.0.id(), is_new)];
        let found = open.map(|flags| flags.into_iter().all(|flags| flags.contains(OFlag::O_DIRECT)));
        assert_eq!(found, direct, "{modes}");
        assert!(slow.interrupt() < Duration::from_secs(2));
        assert!(!bench.path("new").exists());
    }
}

#[test]
fn who_waits_is_stopped_by_the_deadline() {
    let bench = Bench::new();
    fs::write(bench.path("short.raw"), noise(5 << 20)).unwrap();
    // Long enough for a thread of its own.
    let long = File::create(bench.path("long.raw")).unwrap();
    let piece = noise(1 << 20);
    (0..70_u64).for_each(|index| long.write_all_at(&piece, index << 20).unwrap());
    for source in ["short.raw", "long.raw"] {
        for target in ["raw", "qcow2", "vmdk -o subformat=twoGbMaxExtentFlat"] {
            fs::write(bench.path("there"), "what was here before").unwrap();
            let begun = Instant::now();
            let mut slow = Slow::start(&bench, &format!("--timeout 1 -f raw -O {target} {source} there"));
            let failure = slow.failure();
            assert!(failure.contains("did not finish within 1 seconds"), "{source} {target}: {failure}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{source} {target}: {:?}", begun.elapsed());
            // Of an image of several files this one may not have been come to.
            let left = fs::read(bench.path("there")).unwrap();
            let untouched = target.starts_with("vmdk") && left == b"what was here before";
            assert!(left.is_empty() || untouched, "{source} {target}: {} bytes", left.len());
        }
    }
}

#[test]
fn no_more_is_written_in_a_second_than_the_rate_allows() {
    let bench = Bench::new();
    let length = 6 << 20;
    fs::write(bench.path("disk.raw"), noise(length)).unwrap();
    let took = |line: &str| {
        let begun = Instant::now();
        succeeds(&bench.instar(&line.split(' ').collect::<Vec<_>>()));
        begun.elapsed()
    };
    for (rate, target) in [(8, "raw"), (8, "qcow2 -c"), (16, "vmdk -o subformat=twoGbMaxExtentSparse")] {
        let elapsed = took(&format!("convert -r {rate}M -f raw -O {target} disk.raw new"));
        // The last request, of 2 MiB at most, is waited for but does not wait itself; a tenth of a second is free.
        let least = Duration::from_secs_f64(4.0 / f64::from(rate) - 0.1);
        assert!(elapsed >= least, "{target}: {elapsed:?}");
        let format = target.split(' ').next().unwrap();
        succeeds(&bench.reference(&["compare", "-f", "raw", "-F", format, "disk.raw", "new"]));
    }
    // No limit; and zeros that nobody writes are none.
    took("convert -r 0 -f raw disk.raw new");
    File::create(bench.path("hole.raw")).unwrap().set_len(1 << 30).unwrap();
    took("convert -r 64k -f raw hole.raw new");
}

#[test]
fn one_at_a_time_is_one_thread_and_the_same_image() {
    let bench = Bench::new();
    let piece = noise(1 << 20);
    let long = File::create(bench.path("long.raw")).unwrap();
    (0..66_u64).for_each(|index| long.write_all_at(&piece, index << 20).unwrap());
    let is_new = |there: &fs::Metadata| there.is_file() && there.nlink() == 0 && there.len() > 0;
    for (options, alone) in [("-m 1 -c", true), ("-m 1", true), ("", false), ("-m 16", false)] {
        let line = format!("{options} -f raw -O qcow2 long.raw new");
        let mut slow = Slow::start(&bench, line.trim());
        slow.wait_until(|process| !flags(process, is_new).is_empty());
        let names = threads(slow.0.id());
        assert_eq!(names == ["instar"], alone, "{options}: {names:?}");
        assert_eq!(names.iter().any(|name| name == "block-io"), !alone, "{options}: {names:?}");
        slow.interrupt();
    }
    fs::write(bench.path("disk.raw"), disk()).unwrap();
    let written =
        ["1", "2", "16"].map(|number| {
            succeeds(&bench.instar(&[
                "convert", "-m", number, "-W", "-c", "-f", "raw", "-O", "qcow2", "disk.raw", "new",
            ]));
            fs::read(bench.path("new")).unwrap()
        });
    assert!(written[0] == written[1] && written[1] == written[2]);
}
