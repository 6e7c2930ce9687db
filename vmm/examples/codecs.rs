//! Times compression libraries inside the guest.
//!
//! Usage: `codecs GUEST FILE`: the guest is unikernel's bin `bench`, the file is what is compressed, cluster by cluster. Prints
//! a Markdown table. How it is built and run is in docs/convert.md.

use std::{
    arch::x86_64::_rdtsc,
    env,
    fs::File,
    thread::sleep,
    time::{Duration, Instant},
};

use instar::launch::{Command, Disk, Limits, no_parts, run_guest};
use protocol::{Answer, Op};

/// Direction, library and method as the guest knows them, and what the table says.
const CANDIDATES: [(&str, &str); 12] = [
    ("encode codecs deflate", "zlib-rs, level 6, window 4 KiB"),
    ("encode codecs zlib", "zlib-rs, level 6, window 32 KiB"),
    ("encode miniz_oxide zlib", "miniz_oxide, level 6, window 32 KiB"),
    ("encode libdeflate zlib", "libdeflate, level 6, window 32 KiB"),
    ("encode codecs zstd", "libzstd, level 3"),
    ("encode ruzstd zstd", "ruzstd, its one level"),
    ("decode codecs deflate", "deflate, zlib-rs"),
    ("decode miniz_oxide deflate", "deflate, miniz_oxide"),
    ("decode libdeflate deflate", "deflate, libdeflate"),
    ("decode codecs zlib", "zlib stream, zlib-rs"),
    ("decode codecs zstd", "zstd, libzstd"),
    ("decode ruzstd zstd", "zstd, ruzstd"),
];

const RUNS: usize = 5;

/// Ticks of the time-stamp counter in a second.
fn ticks_per_second() -> f64 {
    // SAFETY: every x86-64 processor has the counter.
    let ticks = || unsafe { _rdtsc() };
    let (begin, ticks_then) = (Instant::now(), ticks());
    sleep(Duration::from_millis(200));
    (ticks() - ticks_then) as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [guest, file] = arguments.as_slice() else { panic!("usage: codecs GUEST FILE") };
    let guest = std::fs::read(guest).expect("the guest can be read");
    let frequency = ticks_per_second();
    let limits = Limits { memory: 768 << 20, timeout: Duration::from_secs(300) };
    println!("| | MB/s | coded to |\n|---|---|---|");
    for (deed, name) in CANDIDATES {
        let run = || {
            let source = File::open(file).expect("the file opens");
            let length = source.metadata().expect("it has a length").len();
            let disks = vec![Disk::read_only("source", source, length)];
            let command = Command { disks, ..Command::new(Op::Measure, deed.into()) };
            match run_guest(&guest, command, &limits, None, &mut no_parts).map(|finished| finished.answer) {
                Ok(Answer::Measure(answer)) => answer,
                Ok(other) => panic!("{other:?}"),
                Err(error) => panic!("{deed}: {error}"),
            }
        };
        let best = (0..RUNS).map(|_| run()).min_by_key(|answer| answer.bitmaps).expect("more than no run");
        let seconds = best.bitmaps.unwrap_or_default() as f64 / frequency;
        let (plain, coded) = (best.fully_allocated as f64, best.required as f64);
        println!("| {name} | {:.0} | {:.1} % |", plain / seconds / 1e6, coded / plain * 1e2);
    }
}
