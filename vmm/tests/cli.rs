//! The command line against the real `qemu-img` (`QEMU_IMG`, or the one in the path): exit code, stdout and stderr of
//! every row are the same, in the profile of its version.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, fcntl};

/// A directory for one test, with the files its rows name.
struct Bench {
    directory: PathBuf,
}

impl Bench {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("instar-cli-{}-{count}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(env!("CARGO_BIN_EXE_instar"), directory.join("qemu-img")).unwrap();
        let bench = Self { directory };
        bench.file("raw.img").set_len(1 << 20).unwrap();
        bench.file("a:b").write_all(b"x").unwrap();
        bench.file("empty");
        bench.file("closed").set_permissions(fs::Permissions::from_mode(0o000)).unwrap();
        fs::create_dir(bench.path("directory")).unwrap();
        symlink("loop", bench.path("loop")).unwrap();
        symlink("missing", bench.path("dangling")).unwrap();
        symlink("raw.img", bench.path("link")).unwrap();
        let status = Command::new(qemu_img())
            .args(["create", "-q", "-f", "qcow2", "a.qcow2", "1G"])
            .current_dir(&bench.directory)
            .status();
        assert!(status.unwrap().success());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn file(&self, name: &str) -> File {
        File::create(self.path(name)).unwrap()
    }

    /// A command in the directory, its environment free of our settings.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory).env("LC_ALL", "C").stdin(Stdio::null());
        for name in ["INSTAR_QEMU_VERSION", "INSTAR_TIMEOUT", "INSTAR_MEMORY"] {
            command.env_remove(name);
        }
        command
    }

    /// instar under the name of qemu-img, in the profile of the reference.
    fn drop_in(&self) -> Command {
        let mut command = self.command(self.path("qemu-img"));
        command.env("INSTAR_QEMU_VERSION", profile());
        command
    }

    fn instar(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_instar")).args(arguments).output().unwrap()
    }

    fn assert_same(&self, arguments: &[&str]) {
        self.assert_same_as(arguments, |command| command);
    }

    fn assert_same_as(&self, arguments: &[&str], set_up: impl Fn(&mut Command) -> &mut Command) {
        let run = |mut command: Command| {
            let output = set_up(command.args(arguments)).output().unwrap();
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        };
        assert_eq!(run(self.drop_in()), run(self.command(qemu_img())), "{arguments:?}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn qemu_img() -> OsString {
    env::var_os("QEMU_IMG").unwrap_or_else(|| "qemu-img".into())
}

/// The major version of the reference.
fn major() -> u32 {
    let output = Command::new(qemu_img()).arg("--version").output().expect("qemu-img runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.strip_prefix("qemu-img version ").expect("qemu-img tells its version");
    version.split('.').next().unwrap().parse().unwrap()
}

/// The profile the reference is held to.
fn profile() -> &'static str {
    match major() {
        11.. => "11.1",
        8..=10 => "10.0",
        6..=7 => "7.2",
        _ => "5.2",
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn usage_errors_are_qemu_imgs() {
    let bench = Bench::new();
    for row in [
        &[][..],
        &["no-such-command"],
        &["--no-such-option"],
        &["measure"],
        &["measure", "a", "b"],
        &["measure", "--size", "1G", "a", "b"],
        &["measure", "--size", "1G", "raw.img"],
        &["measure", "raw.img", "--size", "1G"],
        &["measure", "--", "a", "--size"],
        &["measure", "-f", "raw"],
        &["measure", "-f", "raw", "--size", "1G"],
        &["measure", "-l", "x"],
        &["measure", "-l", "", "--size", "1G"],
        &["measure", "--image-opts"],
        &["measure", "--image-opts", "--size", "1G"],
        &["measure", "--image-opts", "-f", "qcow2", "a.qcow2"],
        &["measure", "--image-opts", "-f", "qcow2", "missing"],
        &["measure", "--output", "xml", "--size", "1G"],
        &["measure", "--output=", "--size", "1G"],
        &["measure", "--output", "JSON", "--size", "1G"],
        &["measure", "--outp", "x", "--size", "1G"],
        &["measure", "--output", "x", "--size", "y"],
        &["measure", "--size", "y", "--output", "x"],
        &["measure", "--size", "y", "--no-such-option"],
        &["measure", "-o", "help", "a", "b"],
    ] {
        bench.assert_same(row);
    }
}

#[test]
fn sizes_are_refused_in_qemu_imgs_words() {
    let bench = Bench::new();
    for size in ["", "x", "1kk", "1KiB", "1.5", "9E", "8E", "16E", "-1", "99999999999999999999", "1 "] {
        bench.assert_same(&["measure", "--size", size]);
        bench.assert_same(&["measure", "--size", size, "raw.img"]);
    }
    bench.assert_same(&["measure", "--size=", "--size", "1G"]);
    bench.assert_same(&["measure", "--size", "1G", "--size", "x"]);
}

#[test]
fn option_lists_are_refused_in_qemu_imgs_words() {
    let bench = Bench::new();
    for list in ["", ",", ",,", ",a", "a,", "a,,,"] {
        bench.assert_same(&["measure", "-O", "qcow2", "-o", list, "--size", "1G"]);
        bench.assert_same(&["measure", "-o", "size=1", "-o", list, "a", "b"]);
    }
}

#[test]
fn snapshots_are_parsed_as_qemu_img_does() {
    let bench = Bench::new();
    for snapshot in [
        "snapshot.foo=1",
        "snapshot.",
        "snapshot.id=1,foo",
        "snapshot.id=1,foo=2",
        "snapshot.name=a,,b,foo=2",
        "snapshot.id,foo=1",
    ] {
        bench.assert_same(&["measure", "-l", snapshot, "raw.img"]);
    }
    bench.assert_same(&["measure", "-l", "snapshot.nosuch", "-l", "y", "raw.img"]);
    bench.assert_same(&["measure", "-l", "snapshot.id=1"]);
}

#[test]
fn objects_are_refused_in_qemu_imgs_words() {
    let bench = Bench::new();
    let mut rows = vec![
        "",
        "id=a",
        "foo,id=a",
        "secret",
        "secret,id=a",
        "secret,data=x",
        "secret,id=a,foo=b",
        "secret,id=a,data=b,file=c",
        "secret,id=1a,data=b",
        "secret,id=,data=b",
        "secret,id=a/b,data=b",
        "secret,id=a,data=b,keyid=x",
        "secret,id=a,data=b,format=xx",
    ];
    if major() >= 6 {
        rows.extend([
            "secret,id",
            "secret,id=a,data",
            "secret,secret,id=a",
            "{\"qom-type\":\"secret\",\"id\":\"a\"}",
        ]);
    }
    for object in rows {
        bench.assert_same(&["measure", "--object", object, "--size", "1G"]);
        bench.assert_same(&["measure", "--object", object, "missing"]);
    }
    let twice = ["secret,id=a,data=b", "secret,id=a,data=c"];
    bench.assert_same(&["measure", "--object", twice[0], "--object", twice[1], "--size", "1G"]);
}

/// Releases before 10.0 print their whole help to an unknown option and succeed; instar refuses in every profile,
/// because an option that is ignored is a wrong answer.
#[test]
fn unknown_options_are_refused() {
    let bench = Bench::new();
    for row in [
        &["--foo"][..],
        &["--foo=3"],
        &["-x"],
        &["-Ux", "raw.img"],
        &["-U=3", "raw.img"],
        &["raw.img", "--foo"],
        &["--size"],
        &["--siz"],
        &["-o"],
        &["-f"],
        &["-UO"],
        &["--force-share=3", "raw.img"],
        &["--help=3"],
        &["--version"],
        &["--foo", "--help"],
        &["-\u{1}"],
    ] {
        let row: Vec<&str> = [&["measure"][..], row].concat();
        if major() >= 10 && !row.contains(&"-\u{1}") {
            bench.assert_same(&row);
        }
        for version in ["5.2", "7.2", "10.0", "11.1"] {
            let output = bench.drop_in().env("INSTAR_QEMU_VERSION", version).args(&row).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{version} {row:?}");
            assert!(output.stdout.is_empty(), "{version} {row:?}");
            assert!(stderr(&output).contains("measure: "), "{version} {row:?}");
        }
    }
    if major() == 10 {
        bench.assert_same(&["measure", "-s", "1G"]);
        bench.assert_same(&["measure", "--source-format", "raw", "raw.img"]);
    }
    if major() >= 10 {
        bench.assert_same(&["measure", "--s", "1G"]);
        bench.assert_same(&["measure", "--s=1"]);
        bench.assert_same(&["measure", "--fo", "raw"]);
    }
}

#[test]
fn files_that_cannot_be_opened_are_told_in_qemu_imgs_words() {
    let bench = Bench::new();
    let _socket = UnixListener::bind(bench.path("socket")).unwrap();
    let long = "x".repeat(300);
    let deep = "x/".repeat(2200);
    for name in [
        "missing",
        "dangling",
        "loop",
        "directory",
        "directory/",
        "/tmp",
        "raw.img/x",
        "socket",
        "",
        "-",
        &long,
        &deep,
        "a:b",
        "foo:bar",
        ":x",
        "A-b c:d",
        "file:",
        "file:missing",
        "file:directory",
        "/a:b",
        "no/a:b",
    ] {
        bench.assert_same(&["measure", "--", name]);
        bench.assert_same(&["measure", "--output=json", "-O", "qcow2", "-f", "raw", "--", name]);
    }
    bench.assert_same(&["measure", "-U", "missing"]);
    bench.assert_same(&["measure", "-O", "no-such-format", "missing"]);
    bench.assert_same(&["measure", "-O", "qcow2", "-o", "foo=bar", "missing"]);
}

#[test]
fn names_that_are_not_text_are_names() {
    let bench = Bench::new();
    let output = bench.drop_in().arg("measure").arg(OsStr::from_bytes(b"no\xffsuch")).output().unwrap();
    assert_eq!(
        stderr(&output),
        "qemu-img: Could not open 'no\\xffsuch': Could not open 'no\\xffsuch': No such file or directory\n"
    );
    let output = bench.drop_in().args(["measure", "no\x1b[2J\nsuch"]).output().unwrap();
    assert!(stderr(&output).starts_with("qemu-img: Could not open 'no\\x1b[2J\\nsuch': "), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn a_file_without_permission_is_not_read() {
    let bench = Bench::new();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let program = bench.path("program");
    if root {
        // Nobody may not be allowed into the build directory.
        // Copied by somebody else: a child of another test would keep our end open, and the program busy.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_instar")).arg(&program).status();
        assert!(copied.unwrap().success());
        fs::remove_file(bench.path("qemu-img")).unwrap();
        symlink(&program, bench.path("qemu-img")).unwrap();
    }
    bench.assert_same_as(
        &["measure", "closed"],
        |command| {
            if root { command.uid(65534).gid(65534) } else { command }
        },
    );
}

#[test]
fn special_files_are_refused_and_never_waited_for() {
    let bench = Bench::new();
    let fifo = bench.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for name in [fifo.as_path(), Path::new("/dev/zero"), Path::new("/dev/null"), Path::new("/dev/tty")] {
        let started = Instant::now();
        let output = bench.command(env!("CARGO_BIN_EXE_instar")).arg("measure").arg(name).output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(&format!("instar: Could not open '{}': ", name.display())));
    }
    assert_eq!(
        stderr(&bench.instar(&["measure", "/dev/zero"])),
        "instar: Could not open '/dev/zero': '/dev/zero' is neither a regular file nor a block device (unsupported)\n"
    );
}

fn byte(kind: i32, byte: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

#[test]
fn an_image_somebody_writes_to_is_not_read_unless_shared() {
    let bench = Bench::new();
    // What a process holds that has the image open for writing: see QEMU's block/file-posix.c.
    let hold = |name: &str, at: i64| {
        let file = File::options().read(true).write(true).open(bench.path(name)).unwrap();
        fcntl(&file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))).unwrap();
        file
    };
    for at in [101, 103, 200] {
        let _held = hold("a.qcow2", at);
        bench.assert_same(&["measure", "a.qcow2"]);
        bench.assert_same(&["measure", "-f", "qcow2", "-O", "qcow2", "a.qcow2"]);
    }
    let _read_exclusively = hold("raw.img", 200);
    bench.assert_same(&["measure", "-f", "raw", "raw.img"]);
}

/// qemu-img lets a raw image be read while it is written to even where it had to find out that it is raw. This process
/// cannot find out, so it asks for `-f raw` or `-U`.
#[test]
fn an_unnamed_format_is_locked_as_if_it_had_tables() {
    let bench = Bench::new();
    let file = File::options().read(true).write(true).open(bench.path("raw.img")).unwrap();
    fcntl(&file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, 101))).unwrap();
    let output = bench.instar(&["measure", "raw.img"]);
    assert_eq!(
        stderr(&output),
        "instar: Could not open 'raw.img': Failed to get shared \"write\" lock (io)\n\
         Is another process using the image [raw.img]?\n"
    );
}

#[test]
fn a_shared_image_is_measured_while_somebody_writes_to_it() {
    let bench = Bench::new();
    let hold = |name: &str| {
        let file = File::options().read(true).write(true).open(bench.path(name)).unwrap();
        fcntl(&file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, 101))).unwrap();
        file
    };
    let _held = [hold("a.qcow2"), hold("raw.img")];
    bench.assert_same(&["measure", "-U", "a.qcow2"]);
    bench.assert_same(&["measure", "--force-share", "-O", "qcow2", "a.qcow2"]);
    bench.assert_same(&["measure", "-f", "raw", "raw.img"]);
}

#[test]
fn every_spelling_of_an_option_is_understood() {
    let bench = Bench::new();
    for row in [
        &["--size", "1G"][..],
        &["--size=1G", "--output=json"],
        &["--siz", "1G", "--out", "json"],
        &["--size", "1G", "--"],
        &["-O", "qcow2", "--size", "1G", "-ocluster_size=4k"],
        &["-Oqcow2", "--size", "1G", "--size", "2G"],
        &["raw.img"],
        &["link"],
        &["./a:b"],
        &["file:a:b"],
        &["empty"],
        &["-fraw", "raw.img", "-Oqcow2"],
        &["raw.img", "-f", "raw", "--output", "json"],
        &["-Ufqcow2", "a.qcow2"],
        &["-Uf", "qcow2", "-U", "--", "a.qcow2"],
        &["-f", "raw", "-f", "qcow2", "a.qcow2"],
        &["--object", "secret,id=a,data=b", "--size", "1G"],
        &[
            "--object",
            "secret,id=a,data=b",
            "--object",
            "secret,id=b,data=c,keyid=a,format=xx",
            "--size",
            "1G",
        ],
    ] {
        bench.assert_same(&[&["measure"][..], row].concat());
    }
}

#[test]
fn own_failures_carry_their_kind() {
    let bench = Bench::new();
    for (row, text) in [
        (&["measure"][..], "instar: Either --size N or one filename must be specified. (usage)\n"),
        (
            &["measure", "missing"],
            "instar: Could not open 'missing': Could not open 'missing': No such file or directory (io)\n",
        ),
        (&["measure", "nbd:x"], "instar: Could not open 'nbd:x': Unknown protocol 'nbd' (unsupported)\n"),
        (
            &["measure", "json:{}"],
            "instar: Could not open 'json:{}': Must specify either driver or file (usage)\n",
        ),
        (
            &["measure", "--foo"],
            "instar measure: unrecognized option '--foo' (usage)\nTry 'instar measure --help' for more information\n",
        ),
        (
            &["measure", "--qemu-version", "7.2", "--size", "x"],
            "instar: Invalid image size specified. You may use k, M, G, T, P or E suffixes for (usage)\n\
             instar: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.\n",
        ),
        (&["measure", "--size", "x\n\ty"], "instar: Invalid image size specified: 'x\\n\\ty' (usage)\n"),
    ] {
        let output = bench.instar(row);
        assert_eq!(stderr(&output), text);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{row:?}");
    }
}

#[test]
fn own_options_are_checked_and_never_abbreviated() {
    let bench = Bench::new();
    for (row, text) in [
        (["--timeout", "0"], "expected whole seconds from 1 to 86400"),
        (["--timeout", "x"], "expected whole seconds from 1 to 86400"),
        (["--memory", "1M"], "expected a size from 16M to 3070M"),
        (["--memory", "1T"], "expected a size from 16M to 3070M"),
        (["--qemu-version", "9.9"], "known versions are 5.2, 7.2, 8.0, 10.0 and 11.1"),
        (["--timeou", "1"], "unrecognized option '--timeou'"),
        (["--mem", "64M"], "unrecognized option '--mem'"),
    ] {
        let output = bench.instar(&["measure", "--size", "1G", row[0], row[1]]);
        assert_eq!(output.status.code(), Some(1), "{row:?}");
        assert!(stderr(&output).contains(text), "{row:?}: {output:?}");
    }
    for (variable, value) in [("INSTAR_TIMEOUT", "0"), ("INSTAR_MEMORY", "x"), ("INSTAR_QEMU_VERSION", "1")] {
        let mut command = bench.command(env!("CARGO_BIN_EXE_instar"));
        let output = command.args(["measure", "--size", "1G"]).env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}");
        assert!(
            stderr(&output).starts_with(&format!("instar: Invalid {variable} '{value}': ")),
            "{output:?}"
        );
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let bench = Bench::new();
    for row in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["--version"],
        &["-V"],
        &["--vers"],
        &["measure", "--help"],
        &["measure", "-h"],
        &["measure", "-Uh", "--no-such-option"],
        &["--", "measure", "--size", "1G", "--help"],
    ] {
        let output = bench.instar(row);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{row:?}");
        assert!(!output.stdout.is_empty());
    }
    let version = bench.drop_in().arg("--version").output().unwrap();
    let text = String::from_utf8(version.stdout).unwrap();
    assert!(text.starts_with(&format!("qemu-img version {}.0 (instar ", profile())), "{text}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let bench = Bench::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = bench.command(env!("CARGO_BIN_EXE_instar"));
    let output = command.arg("--help").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "instar: Could not write to standard output: No space left on device (io)\n");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command(env!("CARGO_BIN_EXE_instar"));
    let output = command.arg("--help").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "instar: Could not write to standard output: Broken pipe (io)\n");
}

#[test]
fn leaving_the_sandbox_out_is_said() {
    let bench = Bench::new();
    let output = bench.instar(&["measure", "--size", "1G", "--no-sandbox"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), "instar: warning: Running without the sandbox (--no-sandbox)\n");
    let output = bench.drop_in().args(["measure", "--size", "1G", "--no-sandbox"]).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let output = bench.instar(&["measure", "--size", "1G"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}
