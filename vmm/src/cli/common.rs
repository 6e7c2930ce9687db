//! The options every command has beside qemu-img's, and the environment variables that stand for them where a command
//! line cannot be changed.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use protocol::{ErrorKind, Op, QemuVersion, options, size};
use serde::Serialize;

use super::image::Image;
use crate::{
    devices::Cache,
    error::Error,
    launch::{self, Command, Consumer, Disk, Finished, Limits},
    machine::{MAX_MEMORY, MIN_MEMORY},
    records::{MAX_ANSWER, StreamError},
    references::Directory,
    report::{Failure, Speaker, escape, escape_name, reason},
    sandbox::{Layer, Sandbox, SandboxOptions},
};

/// For how long a command may run when nobody says.
pub const DEFAULT_TIMEOUT: Seconds = Seconds(60);

/// How much memory the guest has when nobody says.
pub const DEFAULT_MEMORY: Memory = Memory(64 << 20);

/// The cache mode that counts of those given for the option `what`, or why there is no such mode.
pub fn cache(given: &[String], what: &str) -> Result<Cache, String> {
    given.last().map_or(Ok(Cache::default()), |mode| {
        Cache::of_mode(mode).ok_or_else(|| format!("Invalid {what} option: {}", escape(mode)))
    })
}

/// What an `-o` list sets `name` to.
pub fn option_of(list: &str, name: &str) -> Option<String> {
    let (_, value) = options::parameters(list).filter(|(given, _)| *given == name).last()?;
    Some(value.unwrap_or_else(|| "on".to_owned()))
}

/// A number of bytes, with qemu-img's suffixes; `what` it is called in messages.
pub fn bytes(what: &str, text: impl AsRef<OsStr>, profile: QemuVersion) -> Result<u64, Failure> {
    let text = text.as_ref();
    size::parse(text.to_str().unwrap_or_default(), profile)
        .map_err(|error| Failure::usage(error.explain(what, &escape_name(text), profile)))
}

/// Least run of zeros that `convert` leaves out when nobody says, in bytes.
pub const DEFAULT_SPARSE_SIZE: u64 = 4096;

/// The largest that can be asked for: no more is read at once.
const MAX_SPARSE_SIZE: u64 = 16 << 20;

/// `-S`: the least run of zeros that is left out, in bytes.
pub fn sparse_size(text: &str, profile: QemuVersion) -> Result<u64, Failure> {
    let bytes = bytes("buffer size for sparse output", text, profile)?;
    if bytes % 512 != 0 || bytes > MAX_SPARSE_SIZE {
        return Err(Failure::usage(format!(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to \
             {MAX_SPARSE_SIZE}. Select 0 to disable sparse detection (fully allocates output)."
        )));
    }
    Ok(bytes)
}

/// Most bytes of text that come of a byte of the guest's answer.
const TEXT: u64 = 16;

/// `--timeout`: whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(u64);

impl Seconds {
    /// The longest time a command may be given: a day.
    pub const MAX: Self = Self(24 * 60 * 60);

    /// For how long a command may run that moves all the data of files which take `bytes` of disk space: at 4 MiB a second
    /// even slow disks and slow compression are through.
    pub fn for_moving(bytes: u64) -> Self {
        const RATE: u64 = 4 << 20;
        Self((DEFAULT_TIMEOUT.0 + bytes / RATE).min(Self::MAX.0))
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(seconds.0)
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(seconds) if (1..=Self::MAX.0).contains(&seconds) => Ok(Self(seconds)),
            _ => Err(format!("expected whole seconds from 1 to {}", Self::MAX.0)),
        }
    }
}

/// `--memory`: bytes, with qemu-img's suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match size::parse(text, QemuVersion::default()) {
            Ok(bytes) if (MIN_MEMORY..=MAX_MEMORY).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(format!("expected a size from {}M to {}M", MIN_MEMORY >> 20, MAX_MEMORY >> 20)),
        }
    }
}

/// The value of an option: the last one given, else the environment's, else the default.
pub fn value<T: FromStr<Err: std::fmt::Display> + Copy>(
    given: &[T],
    variable: &str,
    default: T,
) -> Result<T, Failure> {
    match given.last() {
        Some(&value) => Ok(value),
        None => Ok(of_environment(variable)?.unwrap_or(default)),
    }
}

fn of_environment<T: FromStr<Err: std::fmt::Display>>(variable: &str) -> Result<Option<T>, Failure> {
    let Some(text) = env::var_os(variable).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = |why: &str| Failure::usage(format!("Invalid {variable} '{}': {why}", escape_name(&text)));
    match text.to_str().map(T::from_str) {
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(why)) => Err(wrong(&why.to_string())),
        None => Err(wrong("not UTF-8")),
    }
}

/// The directories beneath which referenced files may be opened: those given, else the environment's.
pub fn reference_directories(given: &[String]) -> Result<Vec<Directory>, Failure> {
    let of_environment = match env::var_os("INSTAR_ALLOW_REFERENCES") {
        Some(list) if given.is_empty() => env::split_paths(&list).collect(),
        _ => Vec::new(),
    };
    let named = given.iter().map(PathBuf::from).chain(of_environment);
    named
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| {
            Directory::open(&path).map_err(|error| {
                let path = escape_name(path.as_os_str());
                let why = reason(&error);
                Failure::new(
                    ErrorKind::Io,
                    format!("Could not open directory '{path}' (--allow-references): {why}"),
                )
            })
        })
        .collect()
}

/// The profile the environment asks for.
pub fn profile_of_environment() -> Result<Option<QemuVersion>, Failure> {
    of_environment("INSTAR_QEMU_VERSION")
}

/// On which terms a command runs.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Who speaks.
    pub speaker: Speaker,
    /// When the command began.
    pub started: Instant,
    /// How long it may take.
    pub timeout: Seconds,
    /// How much memory its machine has.
    pub memory: Memory,
    /// `--no-sandbox`
    pub no_sandbox: bool,
}

impl Terms {
    /// Until when files may be looked at that are opened for the command. Those that move data have longer, as is known
    /// when they are open.
    pub fn deadline(&self) -> Instant {
        self.started + Duration::from(self.timeout)
    }

    /// Runs a command about the image `name`.
    pub fn launch(
        &self,
        command: Command,
        name: &OsStr,
        consumer: &mut Consumer,
    ) -> Result<Finished, Failure> {
        self.launch_naming(command, &|_| name, consumer)
    }

    /// Runs a command about several images: `name_of` is which of them is on the disk with a serial.
    pub fn launch_naming<'n>(
        &self,
        command: Command,
        name_of: &dyn Fn(&str) -> &'n OsStr,
        consumer: &mut Consumer,
    ) -> Result<Finished, Failure> {
        let left = self.deadline().saturating_duration_since(Instant::now());
        let limits = Limits { memory: self.memory.bytes(), timeout: left };
        launch(command, &limits, self, consumer).map_err(|error| match error {
            Error::Guest(record) => {
                Image::refusal(name_of(record.disk.as_deref().unwrap_or_default()), record)
            }
            // The time asked for, not what was left of it when the machine started.
            Error::Timeout(_) => Error::Timeout(self.timeout.into()).into(),
            error => error.into(),
        })
    }
}

/// What asks the guest for `request`.
pub fn command(op: Op, request: &impl Serialize) -> Result<Command, Failure> {
    let payload = serde_json::to_vec(request)
        .map_err(|error| Failure::usage(format!("Could not encode the command: {error}")))?;
    Ok(Command::new(op, payload))
}

/// The guest answered something else than it was asked.
pub fn another_operation() -> Failure {
    Error::from(StreamError::Operation).into()
}

/// Runs a command in its machine, in its sandbox.
fn launch(
    command: Command,
    limits: &Limits,
    terms: &Terms,
    consumer: &mut Consumer,
) -> Result<Finished, Error> {
    let speaker = terms.speaker;
    if terms.no_sandbox {
        speaker.warn("Running without the sandbox (--no-sandbox)");
        return launch::run(command, limits, None, consumer);
    }
    let options = SandboxOptions {
        as_qemu_img: speaker.as_qemu_img,
        references: !command.references.directories().is_empty(),
        more_output: (command.max_answer - MAX_ANSWER.min(command.max_answer)).saturating_mul(TEXT),
        writable: command.disks.iter().any(Disk::is_writable),
        appearing: command.targets.has_new(),
        creating: command.targets.has_parts(),
        direct: command.references.cache().direct || command.targets.cache().direct,
    };
    let sandbox = Sandbox::new(options);
    let finished = launch::run(command, limits, Some(&sandbox), consumer);
    let status = sandbox.status();
    if status.no_new_privs == Layer::Enforced && status.landlock == Layer::Missing {
        speaker.warn("This kernel has no Landlock: the sandbox is without that layer");
    }
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_bounds() {
        assert_eq!("1".parse(), Ok(Seconds(1)));
        assert_eq!("86400".parse(), Ok(Seconds(86_400)));
        for text in ["0", "-1", "86401", "", "1s", "1.5", "18446744073709551616"] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
        assert_eq!("16M".parse(), Ok(Memory(16 << 20)));
        for bytes in [MIN_MEMORY, MAX_MEMORY] {
            assert_eq!(bytes.to_string().parse(), Ok(Memory(bytes)));
        }
        for text in [&(MIN_MEMORY - 1).to_string(), &(MAX_MEMORY + 1).to_string(), "", "x", "8E"] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }
}
