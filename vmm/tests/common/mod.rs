//! What the differential tests share: the reference `qemu-img` (`QEMU_IMG`, or the one in the path), instar under its
//! name, and the comparison of what the two say.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod random_images;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tempfile::TempDir;

/// How many differences a failed test prints.
const SHOWN: usize = 20;

/// How often the reference may fail for a reason of its own before that counts.
const TRIES: usize = 20;

/// A warning that is left out of what the reference says.
const DEPRECATED: &str = "qemu-img: warning: Using a multiplier suffix on hex numbers is deprecated: ";

/// A directory that is gone after the test, with instar in it under the name `qemu-img`. Programs run there.
pub struct Bench {
    directory: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_instar"), directory.path().join("qemu-img")).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A program in the directory, its environment free of settings.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory).env("LC_ALL", "C").stdin(Stdio::null());
        for name in ["INSTAR_ALLOW_REFERENCES", "INSTAR_QEMU_VERSION", "INSTAR_TIMEOUT", "INSTAR_MEMORY"] {
            command.env_remove(name);
        }
        command
    }

    /// instar under its own name.
    pub fn instar(&self, arguments: &[&str]) -> Said {
        Said::by(self.command(env!("CARGO_BIN_EXE_instar")).args(arguments))
    }

    /// instar under the name of `qemu-img`, in the profile of the reference.
    pub fn drop_in<T: AsRef<OsStr>>(&self, arguments: &[T]) -> Said {
        let mut command = self.command(self.path("qemu-img"));
        Said::by(command.env("INSTAR_QEMU_VERSION", profile()).args(arguments))
    }

    /// The reference.
    pub fn reference<T: AsRef<OsStr>>(&self, arguments: &[T]) -> Said {
        let mut said = Said::default();
        for _ in 0..TRIES {
            said = Said::by(self.command(qemu_img()).args(arguments));
            // qemu-img 7.2 times its key derivation with a clock that is too coarse in a virtual machine.
            if !said.stderr.contains("Unable to get accurate CPU usage") {
                break;
            }
        }
        // docs/quirks.md: 7.2 warns of hexadecimal numbers with a suffix, instar does not.
        said.stderr = said.stderr.split_inclusive('\n').filter(|line| !line.contains(DEPRECATED)).collect();
        said
    }

    /// Runs `qemu-img`, which must succeed: to make something for the test.
    pub fn make(&self, arguments: &[&str]) {
        let said = self.reference(arguments);
        assert_eq!(said.code, Some(0), "qemu-img {arguments:?}: {said}");
    }

    /// Runs commands of `qemu-io` on an image; answers whether all went well.
    pub fn qemu_io(&self, image: &str, commands: &[&str]) -> bool {
        let program = env::var_os("QEMU_IO").unwrap_or_else(|| "qemu-io".into());
        let arguments = commands.iter().flat_map(|command| ["-c", command]);
        Said::by(self.command(program).args(arguments).arg(image)).code == Some(0)
    }

    /// Runs each row with both programs and fails the test if they differ in exit code, stdout or stderr.
    pub fn assert_same<T: AsRef<OsStr> + Sync>(&self, rows: &[Vec<T>]) {
        let found = differences(rows, |row| {
            let (ours, theirs) = (self.drop_in(row), self.reference(row));
            (ours != theirs).then(|| format!("{}\ninstar: {ours}\nqemu-img: {theirs}", line(row)))
        });
        assert_none(&found, rows.len());
    }
}

/// Has a reader of libyal's, `vhdi`, `vmdk` or `qcow`, write the disk of an image to the file `raw`.
pub fn read_by(bench: &Bench, library: &str, image: &str, raw: &str) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers.py");
    let said = Said::by(bench.command("/usr/bin/python3").arg(script).args([library, image, raw]));
    match said.code {
        Some(0) => Ok(()),
        _ => Err(format!("{library}: {said}")),
    }
}

/// What a program said, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn by(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } =
            command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {:?}, stdout {:?}, stderr {:?}", self.code, self.stdout, self.stderr)
    }
}

/// Looks at every row, several at a time, and answers what `difference` finds, in the order of the rows.
pub fn differences<T: Sync>(rows: &[T], difference: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((index, row)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            rows.get(index).map(|row| (index, row))
        } {
            if let Some(text) = difference(row) {
                found.lock().unwrap().push((index, text));
            }
        }
    };
    // Programs wait about half of their time: for the disk, and for the kernel to take their machines apart.
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort();
    found.into_iter().map(|(_, text)| text).collect()
}

/// Fails the test with the first differences found in `rows` rows.
pub fn assert_none(found: &[String], rows: usize) {
    let shown: Vec<&str> = found.iter().take(SHOWN).map(String::as_str).collect();
    assert!(found.is_empty(), "{} of {rows} rows differ:\n\n{}\n", found.len(), shown.join("\n\n"));
}

/// A command line that a shell takes.
pub fn line<T: AsRef<OsStr>>(arguments: &[T]) -> String {
    let mut line = String::from("qemu-img");
    for argument in arguments {
        let text = argument.as_ref().to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,+".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            line.push_str(&format!(" {text}"));
        } else {
            line.push_str(&format!(" '{}'", text.replace('\'', r"'\''")));
        }
    }
    line
}

pub fn qemu_img() -> OsString {
    env::var_os("QEMU_IMG").unwrap_or_else(|| "qemu-img".into())
}

/// The major version of the reference.
pub fn major() -> u32 {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        let said = Said::by(Command::new(qemu_img()).arg("--version"));
        let version = said.stdout.strip_prefix("qemu-img version ").expect("qemu-img tells its version");
        version.split('.').next().unwrap().parse().unwrap()
    })
}

/// The profile that the reference is held to.
pub fn profile() -> &'static str {
    match major() {
        11.. => "11.1",
        10 => "10.0",
        8..=9 => "8.0",
        6..=7 => "7.2",
        _ => "5.2",
    }
}

/// The formats of the corpus, which are the endings of its names.
const FORMATS: [&str; 5] = ["qcow2", "raw", "vhdx", "vmdk", "vpc"];

/// Makes the images of `images/corpus.sh` whose name matches the shell pattern; answers their names.
pub fn corpus(directory: &Path, pattern: &str) -> Vec<String> {
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/make");
    let said = Said::by(Command::new(make).arg(directory).arg(pattern));
    assert_eq!(said.code, Some(0), "images/make: {said}");
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_image = |name: &str| name.rsplit_once('.').is_some_and(|(_, format)| FORMATS.contains(&format));
    let mut names: Vec<String> = names.filter(|name| is_image(name)).collect();
    names.sort();
    names
}

/// Waits until the file system has settled how much space the files of a directory take.
pub fn settle(directory: &Path) {
    let said = Said::by(Command::new("sync").arg("-f").arg(directory));
    assert_eq!(said.code, Some(0), "sync: {said}");
}

/// A seeded source of pseudo-random numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
