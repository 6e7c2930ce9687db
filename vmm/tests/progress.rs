//! How far a command has come: the bar on a terminal, and the answer to `SIGUSR1`.

mod common;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use common::{Bench, Random, qemu_img};
use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What takes the bar off the screen.
const CLEAR: &str = "\r\x1b[2K";

/// A bench with images: `small` of 8 MiB, `large` of random bytes, which take seconds to be compressed.
fn bench() -> Bench {
    let bench = Bench::new();
    let mut random = Random(5);
    fs::write(bench.path("small"), vec![1; 8 << 20]).unwrap();
    let large: Vec<u8> = (0..3 << 20).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(bench.path("large"), large).unwrap();
    bench
}

fn send(child: &Child, signal: Signal) {
    let _ = kill(Pid::from_raw(child.id().try_into().unwrap()), signal);
}

/// What a program prints on a terminal of 80 columns, and how it ends; `signal` ends it once it has printed something.
fn on_terminal(command: &mut Command, signal: Option<Signal>) -> (ExitStatus, String) {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let (stdout, stderr) = (pty.slave.try_clone().unwrap(), pty.slave);
    let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    // The command holds the terminal open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (mut terminal, mut printed, mut piece) = (File::from(pty.master), Vec::new(), [0; 4096]);
    // A terminal that nobody holds open any more ends in an error.
    while let Ok(length @ 1..) = terminal.read(&mut piece) {
        printed.extend_from_slice(&piece[..length]);
        if let Some(signal) = signal {
            send(&child, signal);
        }
    }
    (child.wait().unwrap(), String::from_utf8(printed).unwrap())
}

/// A command line of a program on a terminal that lines can be drawn over on.
fn program(bench: &Bench, name: &Path, line: &str) -> Command {
    let mut command = bench.command(name);
    command.env("TERM", "xterm").args(line.split_whitespace());
    command
}

fn instar(bench: &Bench, line: &str) -> Command {
    program(bench, env!("CARGO_BIN_EXE_instar").as_ref(), line)
}

#[test]
fn a_bar_is_for_terminals() {
    let bench = bench();
    let (status, printed) = on_terminal(&mut instar(&bench, "convert -p -O qcow2 small a"), None);
    assert_eq!(status.code(), Some(0), "{printed:?}");
    let last = printed.rsplit(CLEAR).next().unwrap();
    assert!(last.starts_with("100% [=") && last.contains("] 8.00 MiB, "), "{last:?}");
    assert!(last.ends_with("s\r\n") && last.lines().count() == 1, "{last:?}");
    assert!(printed.contains(" of 8.00 MiB, ") && printed.contains(" left"), "{printed:?}");
    assert!(printed.split('\r').all(|line| line.trim_start_matches("\x1b[2K").len() <= 80), "{printed:?}");

    // A verdict stands alone.
    let (status, printed) = on_terminal(&mut instar(&bench, "compare -p small a"), None);
    assert_eq!(status.code(), Some(0), "{printed:?}");
    assert!(printed.starts_with("  0% [") && printed.ends_with(&format!("{CLEAR}Images are identical.\r\n")));

    // Otherwise all is as with qemu-img.
    let theirs = bench.reference(&["convert", "-p", "-O", "qcow2", "small", "a"]).stdout;
    let convert = "convert -p -O qcow2 small a";
    for (mut command, terminal) in [
        (program(&bench, &bench.path("qemu-img"), convert), "xterm"),
        (instar(&bench, "convert --progress=text -O qcow2 small a"), "xterm"),
        (instar(&bench, convert), "dumb"),
    ] {
        let (status, printed) = on_terminal(command.env("TERM", terminal), None);
        assert_eq!((status.code(), printed), (Some(0), theirs.replace('\n', "\r\n")), "{command:?}");
    }
    let said = bench.instar(&["convert", "-p", "-O", "qcow2", "small", "a"]);
    assert_eq!((said.stdout, said.stderr.as_str()), (theirs, ""));
    let said = bench.instar(&["convert", "--progress=bar", "-O", "qcow2", "small", "a"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn what_is_told_beside_the_bar_has_lines_of_its_own() {
    let bench = bench();
    let failed = "convert -p --max-output 4M -O qcow2 small a";
    let (status, printed) = on_terminal(&mut instar(&bench, failed), None);
    assert_eq!(status.code(), Some(1), "{printed:?}");
    let (bar, message) = printed.rsplit_once(CLEAR).unwrap();
    assert!(bar.starts_with("  0% [") || bar.contains(" of 8.00 MiB, "), "{printed:?}");
    assert!(message.starts_with("instar: ") && message.ends_with("(limit: storage)\r\n"), "{message:?}");
    assert_eq!(message.lines().count(), 1, "{message:?}");

    // Nothing was drawn that would have to go.
    let (_, printed) = on_terminal(&mut instar(&bench, "convert -p none a"), None);
    assert!(printed.starts_with("instar: ") && !printed.contains('\x1b'), "{printed:?}");

    fs::write(bench.path("longer"), vec![1; 9 << 20]).unwrap();
    let (status, printed) = on_terminal(&mut instar(&bench, "compare -p small longer"), None);
    assert_eq!(status.code(), Some(1), "{printed:?}");
    assert!(printed.contains(&format!("{CLEAR}Warning: Image size mismatch!\r\n")), "{printed:?}");
    assert!(printed.ends_with(&format!("{CLEAR}Content mismatch at offset 8388608!\r\n")), "{printed:?}");
}

#[test]
fn a_signal_takes_the_bar_off_the_screen() {
    let bench = bench();
    let mut command = instar(&bench, "convert -p -c -O qcow2 large a");
    let (status, printed) = on_terminal(&mut command, Some(Signal::SIGTERM));
    assert_eq!(status.signal(), Some(libc::SIGTERM), "{printed:?}");
    assert!(printed.ends_with(CLEAR), "{printed:?}");
    assert!(!bench.path("a").exists());
}

/// Whether a process handles SIGUSR1, which would end it else.
fn listens(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & 1 << (libc::SIGUSR1 - 1) != 0
}

#[test]
fn a_question_by_signal_is_answered_as_qemu_img_answers_it() {
    let bench = bench();
    let moments = bench.reference(&["convert", "-p", "-c", "-O", "qcow2", "large", "a"]).stdout;
    let moments: Vec<&str> = moments.split('\r').collect();
    for (program, extra) in [
        (qemu_img(), ""),
        (bench.path("qemu-img").into(), ""),
        (env!("CARGO_BIN_EXE_instar").into(), "-q"),
        (env!("CARGO_BIN_EXE_instar").into(), "--progress=json"),
    ] {
        let mut command = bench.command(&program);
        command.args(["convert", "-c", "-O", "qcow2", "large", "b"]).args(extra.split_whitespace());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if listens(&child) {
                send(&child, Signal::SIGUSR1);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{output:?}");
        let answers = String::from_utf8(output.stderr).unwrap();
        assert!(answers.lines().count() > 1, "{program:?} {answers}");
        match extra {
            "--progress=json" => assert!(answers.lines().all(|line| line.starts_with('{')), "{answers}"),
            _ => assert!(answers.lines().all(|line| moments.contains(&line)), "{program:?} {answers}"),
        }
    }
}
