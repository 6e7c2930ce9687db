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

/// Direction, library and method as the guest knows them, workers, and what the table says.
const CANDIDATES: [(&str, usize, &str); 18] = [
    ("encode codecs deflate", 0, "deflate, 4 KiB: **zlib-rs**, level 9 with a chain of 32"),
    ("encode zlib_rs deflate", 0, "deflate, 4 KiB: zlib-rs, level 6"),
    ("encode codecs zlib", 0, "zlib, 32 KiB: **zlib-rs**, level 9 with a chain of 32"),
    ("encode zlib_rs zlib", 0, "zlib, 32 KiB: zlib-rs, level 6"),
    ("encode libdeflate zlib", 0, "zlib, 32 KiB: libdeflate, level 6"),
    ("encode miniz_oxide zlib", 0, "zlib, 32 KiB: miniz_oxide, level 6"),
    ("encode codecs zstd", 0, "zstd: **libzstd**, level 3"),
    ("encode ruzstd zstd", 0, "zstd: ruzstd, its one level"),
    ("encode pool deflate", 0, "deflate, chosen, pool without workers"),
    ("encode pool deflate", 1, "deflate, chosen, pool with one worker"),
    ("encode pool zstd", 0, "zstd, chosen, pool without workers"),
    ("encode pool zstd", 1, "zstd, chosen, pool with one worker"),
    ("decode codecs deflate", 0, "deflate decoded: **zlib-rs**"),
    ("decode miniz_oxide deflate", 0, "deflate decoded: miniz_oxide"),
    ("decode libdeflate deflate", 0, "deflate decoded: libdeflate"),
    ("decode codecs zlib", 0, "zlib decoded: **zlib-rs**"),
    ("decode codecs zstd", 0, "zstd decoded: **libzstd**"),
    ("decode ruzstd zstd", 0, "zstd decoded: ruzstd"),
];

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
    for (deed, workers, name) in CANDIDATES {
        let answer = {
            let source = File::open(file).expect("the file opens");
            let length = source.metadata().expect("it has a length").len();
            let disks = vec![Disk::read_only("source", source, length)];
            let command = Command { disks, workers, ..Command::new(Op::Measure, deed.into()) };
            match run_guest(&guest, command, &limits, None, &mut no_parts).map(|finished| finished.answer) {
                Ok(Answer::Measure(answer)) => answer,
                Ok(other) => panic!("{other:?}"),
                Err(error) => panic!("{deed}: {error}"),
            }
        };
        let seconds = answer.bitmaps.unwrap_or_default() as f64 / frequency;
        let (plain, coded) = (answer.fully_allocated as f64, answer.required as f64);
        println!("| {name} | {:.0} | {:.1} % |", plain / seconds / 1e6, coded / plain * 1e2);
    }
}
