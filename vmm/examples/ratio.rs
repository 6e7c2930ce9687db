//! Times two commands against each other: alternating runs, medians, and the peak memory of each.
//!
//! Usage: `ratio [--new FILE] NAME RUNS COMMAND... -- COMMAND...`. Prints a row of a Markdown table. `FILE` is removed before each
//! run: both commands make it.

use std::{
    env, fs,
    mem::zeroed,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Wall-clock time and peak memory in KiB of one run.
type Run = (Duration, i64);

#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells its memory")]
fn run(command: &[String], new: Option<&str>) -> Run {
    if let Some(new) = new {
        // Where it is not, there is nothing to do.
        let _ = fs::remove_file(new);
    }
    let begin = Instant::now();
    let child =
        Command::new(&command[0]).args(&command[1..]).stdout(Stdio::null()).spawn().expect("command starts");
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage; the child is ours and waited for once.
    let usage = unsafe {
        let mut usage: libc::rusage = zeroed();
        assert_eq!(
            libc::wait4(child.id().cast_signed(), &mut status, 0, &mut usage),
            child.id().cast_signed()
        );
        usage
    };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{command:?} fails");
    (begin.elapsed(), usage.ru_maxrss)
}

fn median(runs: &mut [Run]) -> Run {
    runs.sort();
    let time = runs[runs.len() / 2].0;
    runs.sort_by_key(|run| run.1);
    (time, runs[runs.len() / 2].1)
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (new, arguments) = match arguments.as_slice() {
        [option, file, rest @ ..] if option == "--new" => (Some(file.as_str()), rest),
        rest => (None, rest),
    };
    let [name, runs, commands @ ..] = arguments else { panic!("usage: ratio NAME RUNS A... -- B...") };
    let mut commands = commands.split(|argument| argument == "--");
    let (ours, theirs) = (commands.next().expect("a command"), commands.next().expect("a second command"));
    let (mut ours_runs, mut their_runs) = (vec![], vec![]);
    for _ in 0..runs.parse().expect("a number of runs") {
        ours_runs.push(run(ours, new));
        their_runs.push(run(theirs, new));
    }
    let (ours, theirs) = (median(&mut ours_runs), median(&mut their_runs));
    let milliseconds = |run: Run| run.0.as_secs_f64() * 1e3;
    println!(
        "| {name} | {:.2} ms | {:.2} ms | **{:.2}** | {} MiB | {} MiB |",
        milliseconds(ours),
        milliseconds(theirs),
        milliseconds(ours) / milliseconds(theirs),
        ours.1 / 1024,
        theirs.1 / 1024,
    );
}
