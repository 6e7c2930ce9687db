//! `measure`: the length of a new image.

use std::{
    ffi::{OsStr, OsString},
    time::{Duration, Instant},
};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, ErrorKind, ErrorRecord, ImageSource, MeasureRequest, MeasureSubject, Op, QemuVersion,
    options::{HINT, is_valid_list},
    size,
};

use super::{
    argv::{Exception, Item, Reader, Table},
    common::{self, Memory, Seconds},
    secret, snapshot,
};
use crate::{
    error::Error,
    launch::{Command, DeviceStart, Disk, IoMode, Limits},
    report::{self, Failure, Speaker, escape, escape_name},
    source::{self, Source, SourceError, SourceOptions},
};

/// The command's name.
pub const NAME: &str = "measure";

/// Bytes of data for each byte of tables in the usual image: qcow2 with clusters of 64 KiB.
const DATA_PER_TABLE: u64 = 65536 / 8;

/// Serial of the disk that holds the measured image.
const SOURCE: &str = "source";

/// Calculate the length of a new image: an empty one of SIZE bytes, or one that holds what FILE holds.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "measure",
    help_triggers("-h", "--help"),
    usage = "[-f FMT] [-l SNAPSHOT] [-U] [-O TARGET_FMT] [-o OPTIONS]\n    [--output human|json] [--object OBJDEF] [--exact [-S SIZE]] [--timeout SECONDS]\n    [--memory SIZE] [--qemu-version X.Y] [--no-sandbox] (--size SIZE | FILE)",
    note = "Options may stand behind FILE, be abbreviated, and be written --output=json or",
    note = "-fqcow2. Of an option given twice the last counts, but for -o and --object.",
    note = "INSTAR_TIMEOUT, INSTAR_MEMORY and INSTAR_QEMU_VERSION in the environment are",
    note = "defaults for the options of those names.",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Measure {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// FILE is a list of options instead of a name (not supported)
    #[argh(switch)]
    image_opts: bool,

    /// measure this internal snapshot of FILE: an id, a name, or snapshot.id=ID,snapshot.name=NAME
    #[argh(option, short = 'l', arg_name = "SNAPSHOT")]
    snapshot: Vec<String>,

    /// format of the new image (default: raw)
    #[argh(option, short = 'O', arg_name = "TARGET_FMT")]
    target_format: Vec<String>,

    /// options of the new image's format, as in cluster_size=2M,preallocation=full; may be given several times
    #[argh(option, short = 'o', arg_name = "OPTIONS")]
    options: Vec<String>,

    /// read FILE even while another process writes to it
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// human or json (default: human)
    #[argh(option, arg_name = "human|json")]
    output: Vec<String>,

    /// a secret that options or FILE refer to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// size of the new image in bytes, or with a suffix: k, M, G, T, P or E (powers of 1024); -s for profiles from 11.1
    #[argh(option, short = 's', arg_name = "SIZE")]
    size: Vec<String>,

    /// tell the length the file will really have: of what convert writes for FILE, or create for --size
    #[argh(switch)]
    exact: bool,

    /// with --exact: zeros in data that are left out, from this many bytes on, as for convert; 0 writes all (default: 4k)
    #[argh(option, short = 'S', arg_name = "SIZE")]
    sparse_size: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60)
    #[argh(option, arg_name = "SECONDS")]
    timeout: Vec<Seconds>,

    /// memory of the virtual machine, 16M to 3070M (default: 64M)
    #[argh(option, arg_name = "SIZE")]
    memory: Vec<Memory>,

    /// follow this release of qemu-img: 5.2, 7.2, 10.0 or 11.1 (default: 11.1)
    #[argh(option, arg_name = "X.Y")]
    #[expect(dead_code, reason = "looked for before the line is read")]
    qemu_version: Vec<QemuVersion>,

    /// run without the sandbox around the virtual machine
    #[argh(switch)]
    no_sandbox: bool,
}

/// What the option table cannot say: when qemu-img learned a name.
const HISTORY: [Exception; 7] = [
    Exception::LongSince("format", QemuVersion::V10_0),
    Exception::LongSince("snapshot", QemuVersion::V10_0),
    Exception::LongSince("target-format", QemuVersion::V10_0),
    Exception::LongSince("options", QemuVersion::V10_0),
    Exception::Alias("source-format", "format", QemuVersion::V11_1),
    Exception::Alias("source-image-opts", "image-opts", QemuVersion::V11_1),
    Exception::ShortSince('s', QemuVersion::V11_1),
];

/// Options of instar's that there are not under the name `qemu-img`.
const OWN: [&str; 2] = ["exact", "sparse-size"];

/// The least run of zeros that is left out when nobody says: that of `convert`.
const DEFAULT_SPARSE_SIZE: u64 = 4096;

/// The largest: `convert` reads no more at once.
const MAX_SPARSE_SIZE: u64 = 16 << 20;

/// Reads the command line behind `measure` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let started = Instant::now();
    let own = OWN.map(if speaker.as_qemu_img { Exception::Absent } else { Exception::Own });
    let exceptions: Vec<Exception> = common::OWN.into_iter().chain(HISTORY).chain(own).collect();
    if let Some(profile) = common::profile_of_line::<Measure>(&exceptions, arguments)? {
        speaker.profile = profile;
    }
    let speaker = *speaker;

    let table = Table::of::<Measure>(&exceptions, speaker.profile);
    let mut reader = Reader::new(&table, arguments);
    let mut secrets = secret::Secrets::default();
    for item in reader.by_ref() {
        let item = item.map_err(|error| Failure::grammar(NAME, error.to_string()))?;
        if item.option == "help" {
            return report::print(&super::help::<Measure>(speaker, Some(NAME)));
        }
        check(&item, speaker, &mut secrets)?;
    }
    let options = Measure::from_args(&[speaker.name(), NAME], &reader.canonical())
        .map_err(|exit| Failure::usage(escape(exit.output.trim_end())))?;
    let timeout = common::value(&options.timeout, "INSTAR_TIMEOUT", common::DEFAULT_TIMEOUT)?;
    let deadline = started + Duration::from(timeout);
    let memory = common::value(&options.memory, "INSTAR_MEMORY", common::DEFAULT_MEMORY)?;

    let Subject { subject, name, disks, bytes } = options.subject(speaker, reader.operands(), deadline)?;
    let request = MeasureRequest {
        profile: speaker.profile,
        target_format: options.target().to_owned(),
        options: (!options.options.is_empty()).then(|| options.options.join(",")),
        secrets: secrets.into_ids(),
        exact: options.exact(speaker.profile)?,
        subject,
    };
    let payload = serde_json::to_vec(&request)
        .map_err(|error| Failure::usage(format!("Could not encode the command: {error}")))?;
    let io = IoMode::for_reading(bytes);
    let command = Command { op: Op::Measure, payload, disks, io, start: DeviceStart::HandedOver };
    let left = deadline.saturating_duration_since(Instant::now());
    let limits = Limits { memory: memory.bytes(), timeout: left.max(Duration::from_millis(1)) };
    let finished =
        common::launch(command, &limits, options.no_sandbox, speaker).map_err(|error| match error {
            Error::Guest(record) => refusal(record, name),
            // The time asked for, not what was left of it when the machine started.
            Error::Timeout(_) => Error::Timeout(timeout.into()).into(),
            error => error.into(),
        })?;
    let Answer::Measure(answer) = &finished.answer;
    let printed = report::print(&match options.output() {
        Some(Output::Json) => report::measure::json(answer),
        _ => report::measure::human(answer),
    });
    finished.leave_standing();
    printed
}

/// What qemu-img checks about an option when it comes to it, before the options behind it.
fn check(item: &Item, speaker: Speaker, secrets: &mut secret::Secrets) -> Result<(), Failure> {
    match item.option {
        "options" if !is_valid_list(&item.value) => {
            Err(Failure::usage(format!("Invalid option list: {}", escape(&item.value))))
        }
        "snapshot" => snapshot::check(&item.value, speaker),
        "object" => secrets.add(&item.value, speaker.profile),
        "output" if Output::parse(&item.value).is_none() => Err(bad_output(&item.value, speaker.profile)),
        "size" => size(&item.value, speaker.profile).map(|_| ()),
        "sparse-size" => sparse_size(&item.value, speaker.profile).map(|_| ()),
        _ => Ok(()),
    }
}

/// The shape of the answer.
#[derive(Clone, Copy)]
enum Output {
    Human,
    Json,
}

impl Output {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

fn bad_output(text: &str, profile: QemuVersion) -> Failure {
    match profile {
        QemuVersion::V5_2 | QemuVersion::V7_2 => {
            Failure::usage("--output must be used with human or json as argument.")
        }
        QemuVersion::V10_0 => {
            Failure::usage(format!("--output expects 'human' or 'json' not '{}'", escape(text)))
        }
        QemuVersion::V11_1 => {
            Failure::usage(format!("--output expects 'human' or 'json', not '{}'", escape(text)))
        }
    }
    .try_help(NAME)
}

fn size(text: &str, profile: QemuVersion) -> Result<u64, Failure> {
    size::parse(text, profile)
        .map_err(|error| Failure::usage(error.explain("image size", &escape(text), profile)))
}

fn sparse_size(text: &str, profile: QemuVersion) -> Result<u64, Failure> {
    let bytes = size::parse(text, profile).map_err(|error| {
        Failure::usage(error.explain("buffer size for sparse output", &escape(text), profile))
    })?;
    if bytes % 512 != 0 || bytes > MAX_SPARSE_SIZE {
        return Err(Failure::usage(format!(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to \
             {MAX_SPARSE_SIZE}. Select 0 to disable sparse detection (fully allocates output)."
        )));
    }
    Ok(bytes)
}

/// What is measured, and the file for it.
struct Subject<'a> {
    subject: MeasureSubject,
    name: Option<&'a OsStr>,
    disks: Vec<Disk>,
    /// About how many bytes there are to read.
    bytes: u64,
}

impl Measure {
    fn target(&self) -> &str {
        self.target_format.last().map_or("raw", String::as_str)
    }

    fn output(&self) -> Option<Output> {
        self.output.last().and_then(|text| Output::parse(text))
    }

    /// From how many bytes on zeros are left out, if the exact length is asked for.
    fn exact(&self, profile: QemuVersion) -> Result<Option<u64>, Failure> {
        match self.sparse_size.last() {
            Some(_) if !self.exact => Err(Failure::usage("-S requires --exact.")),
            Some(_) if !self.size.is_empty() => Err(Failure::usage("-S requires a filename argument.")),
            Some(text) => sparse_size(text, profile).map(Some),
            None => Ok(self.exact.then_some(DEFAULT_SPARSE_SIZE)),
        }
    }

    /// The checks between options, in qemu-img's order, and the file they end at.
    fn subject<'a>(
        &self,
        speaker: Speaker,
        operands: &[&'a OsStr],
        deadline: Instant,
    ) -> Result<Subject<'a>, Failure> {
        let name = match operands {
            [] => None,
            [name] => Some(*name),
            _ => return Err(Failure::usage("At most one filename argument is allowed.")),
        };
        let about_a_file = self.image_opts || !self.format.is_empty() || !self.snapshot.is_empty();
        match (name, self.size.last()) {
            (None, _) if about_a_file => {
                Err(Failure::usage("--image-opts, -f, and -l require a filename argument."))
            }
            (Some(_), Some(_)) => Err(Failure::usage("--size N cannot be used together with a filename.")),
            (None, None) => Err(Failure::usage("Either --size N or one filename must be specified.")),
            (None, Some(text)) => {
                let subject = MeasureSubject::Size(size(text, speaker.profile)?);
                Ok(Subject { subject, name: None, disks: Vec::new(), bytes: 0 })
            }
            (Some(name), None) => self.open(speaker, name, deadline),
        }
    }

    fn open<'a>(&self, speaker: Speaker, name: &'a OsStr, deadline: Instant) -> Result<Subject<'a>, Failure> {
        let format = self.format.last();
        if self.image_opts {
            return Err(match format {
                Some(_) => Failure::usage("--image-opts and --format are mutually exclusive"),
                None => Failure::new(ErrorKind::Unsupported, "--image-opts is not supported"),
            });
        }
        let lock = match format.map(String::as_str) {
            _ if self.force_share => None,
            Some("raw") => Some(source::Format::Raw),
            _ => Some(source::Format::Structured),
        };
        // Only a qcow2 target is as long as there is data; the others are as long as the disk.
        let extents = self.target() == "qcow2";
        let options = SourceOptions { serial: SOURCE, lock, extents, deadline };
        let Source { file, facts, extents } =
            source::open(name, options).map_err(|error| could_not_open(name, &error, speaker))?;

        let mut disks =
            vec![Disk { serial: facts.disk.clone(), file, length: facts.length, writable: false }];
        if let (Some(file), protocol::ExtentMap::Disk { disk, count }) = (extents, &facts.extents) {
            disks.push(Disk { serial: disk.clone(), file, length: count * 16, writable: false });
        }
        let snapshot = snapshot::choose(&self.snapshot).cloned();
        // All the data is read, or only tables.
        let bytes = facts.allocated / if self.exact { 1 } else { DATA_PER_TABLE };
        let subject =
            MeasureSubject::Image { source: Box::new(ImageSource::new(facts, format.cloned())), snapshot };
        Ok(Subject { subject, name: Some(name), disks, bytes })
    }
}

fn could_not_open(name: &OsStr, error: &SourceError, speaker: Speaker) -> Failure {
    let name = escape_name(name);
    let hint = match error {
        SourceError::Locked(_) => format!("\n{HINT}Is another process using the image [{name}]?"),
        _ => String::new(),
    };
    let text = error.text(speaker.profile);
    Failure::new(error.kind(), format!("Could not open '{name}': {text}{hint}"))
}

/// What the guest says, with the name it does not know.
fn refusal(record: ErrorRecord, name: Option<&OsStr>) -> Failure {
    let message = match (record.disk.as_deref(), name) {
        (Some(SOURCE), Some(name)) => format!("Could not open '{}': {}", escape_name(name), record.message),
        _ => record.message,
    };
    Failure::new(record.kind, message).field(record.field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{MAX_MEMORY, MIN_MEMORY};

    #[test]
    fn the_help_tells_defaults_and_limits() {
        let speaker = Speaker { as_qemu_img: false, profile: QemuVersion::default() };
        let help = super::super::help::<Measure>(speaker, Some(NAME));
        let plain = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.starts_with("Usage: instar measure "), "{help}");
        assert!(plain.contains(&format!("(default: {})", Duration::from(common::DEFAULT_TIMEOUT).as_secs())));
        assert!(plain.contains(&format!("(default: {}M)", common::DEFAULT_MEMORY.bytes() >> 20)));
        assert!(plain.contains(&format!("(default: {})", QemuVersion::default().name())));
        for version in QemuVersion::ALL {
            assert!(plain.contains(version.name()));
        }
        for (option, low, high) in [("timeout", "1", "86400"), ("memory", "16M", "3070M")] {
            assert!(plain.contains(&format!("{low} to {high} (default")), "{option}");
            let takes = |value: &str| Measure::from_args(&["x"], &[&format!("--{option}"), value]).is_ok();
            assert!(takes(low) && takes(high) && !takes("0") && !takes("86401M"), "{option}");
        }
        assert_eq!((MIN_MEMORY, MAX_MEMORY), (16 << 20, 3070 << 20));
    }
}
