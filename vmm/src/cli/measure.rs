//! `measure`: the length of a new image.

use std::ffi::{OsStr, OsString};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, MeasureRequest, MeasureSubject, Op, QemuVersion,
    options::{asks_for_help, is_valid_list},
};

use super::{
    argv::{Exception, Item},
    common::{self, Memory, Seconds, Terms},
    image::{How, Image},
    line::{self, Own, Subcommand},
    option_help,
    output::Output,
    secret::Secrets,
    snapshot,
};
use crate::{
    launch::{self, Command, DATA_PER_TABLE, Disk, IoMode},
    references::References,
    report::{self, Failure, Speaker, escape},
};

/// The command's name.
pub const NAME: &str = "measure";

/// Calculate the length of a new image: an empty one of SIZE bytes, or one that holds what FILE holds.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "measure",
    help_triggers("-h", "--help"),
    usage = "[-f FMT | --image-opts] [-l SNAPSHOT] [-U] [-O TARGET_FMT] [-o OPTIONS]\n    [--output human|json] [--object OBJDEF] [--allow-references DIR]\n    [--exact [-c] [-S SIZE]] [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y] [--no-sandbox]\n    (--size SIZE | FILE)",
    note = "Options may stand behind FILE, be abbreviated, and be written --output=json or",
    note = "-fqcow2. Of an option given twice the last counts, but for -o and --object.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Measure {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// FILE is a list of options instead of a name, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// measure this internal snapshot of FILE: an id, a name, or snapshot.id=ID,snapshot.name=NAME
    #[argh(option, short = 'l', arg_name = "SNAPSHOT")]
    snapshot: Vec<String>,

    /// format of the new image (default: raw)
    #[argh(option, short = 'O', arg_name = "TARGET_FMT")]
    target_format: Vec<String>,

    /// options of the new image's format, as in cluster_size=2M,preallocation=full; may be given several times; help lists them
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

    /// with --exact: the length when convert -c writes it
    #[argh(switch, short = 'c')]
    compress: bool,

    /// with --exact: zeros in data that are left out, from this many bytes on, as for convert; 0 writes all (default: 4k)
    #[argh(option, short = 'S', arg_name = "SIZE")]
    sparse_size: Vec<String>,

    /// open the files that FILE names (backing files, data files, extents) if they are beneath DIR; may be given several times (default: none)
    #[argh(option, arg_name = "DIR")]
    allow_references: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60)
    #[argh(option, arg_name = "SECONDS")]
    timeout: Vec<Seconds>,

    /// memory of the virtual machine, 16M to 3070M (default: 64M)
    #[argh(option, arg_name = "SIZE")]
    memory: Vec<Memory>,

    /// follow this release of qemu-img: 5.2, 7.2, 8.0, 10.0 or 11.1 (default: 11.1)
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
const OWN: [&str; 3] = ["compress", "exact", "sparse-size"];

impl Subcommand for Measure {
    const NAME: &'static str = NAME;
    const GETOPT_SPEAKS: bool = true;

    fn exceptions(speaker: Speaker) -> Vec<Exception> {
        let own = OWN.map(if speaker.as_qemu_img { Exception::Absent } else { Exception::Own });
        HISTORY.into_iter().chain(own).collect()
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `measure` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let Some(line) = line::read::<Measure>(speaker, arguments, check)? else { return Ok(()) };
    let (options, terms) = (&line.options, line.terms);
    let speaker = terms.speaker;
    if !speaker.as_qemu_img && options.options.iter().any(|list| asks_for_help(list)) {
        return option_help::print(options.target(), terms);
    }
    let name = match *line.operands {
        [] => None,
        [name] => Some(name),
        _ => return Err(Failure::usage("At most one filename argument is allowed.")),
    };
    options.measure(name, &line.secrets, terms)
}

/// What qemu-img checks about an option when it comes to it, before the options behind it.
fn check(item: &Item, speaker: Speaker) -> Result<(), Failure> {
    match item.option {
        "options" if !is_valid_list(&item.value) => {
            Err(Failure::usage(format!("Invalid option list: {}", escape(&item.value))))
        }
        "snapshot" => snapshot::check(&item.value, speaker),
        "output" => Output::check(&item.value, NAME, speaker.profile),
        "size" => size(&item.value, speaker.profile).map(drop),
        "sparse-size" => common::sparse_size(&item.value, speaker.profile).map(drop),
        _ => Ok(()),
    }
}

fn size(text: &str, profile: QemuVersion) -> Result<u64, Failure> {
    common::bytes("image size", text, profile)
}

/// What is measured, and the file for it.
struct Subject {
    subject: MeasureSubject,
    disks: Vec<Disk>,
    references: References,
    /// About how many bytes there are to read.
    bytes: u64,
}

impl Measure {
    fn target(&self) -> &str {
        self.target_format.last().map_or("raw", String::as_str)
    }

    /// Has the guest measure the image `name`, or what `--size` says, and prints the answer.
    fn measure(&self, name: Option<&OsStr>, secrets: &Secrets, terms: Terms) -> Result<(), Failure> {
        let speaker = terms.speaker;
        let Subject { subject, disks, references, bytes } = self.subject(name, &terms)?;
        let keys = match &subject {
            MeasureSubject::Size(_) => Vec::new(),
            MeasureSubject::Image { source, .. } => source.keys(),
        };
        let (secrets, cpu) = secrets.for_keys(&keys)?;
        let request = MeasureRequest {
            profile: speaker.profile,
            target_format: self.target().to_owned(),
            options: (!self.options.is_empty()).then(|| self.options.join(",")),
            secrets,
            beyond: !speaker.as_qemu_img,
            exact: self.exact(speaker.profile)?,
            compress: self.compress,
            subject,
        };
        let io = IoMode::for_reading(bytes);
        let command = common::command(Op::Measure, &request)?;
        let command = Command { disks: io.for_all(disks), cpu, references, ..command };
        let finished = terms.launch(command, name.unwrap_or_default(), &mut launch::no_parts)?;
        let Answer::Measure(answer) = &finished.answer else { return Err(common::another_operation()) };
        let printed = report::print(&match Output::of(&self.output) {
            Output::Json => report::measure::json(answer),
            Output::Human => report::measure::human(answer),
        });
        finished.leave_standing();
        printed
    }

    /// From how many bytes on zeros are left out, if the exact length is asked for.
    fn exact(&self, profile: QemuVersion) -> Result<Option<u64>, Failure> {
        if self.compress && !self.exact {
            return Err(Failure::usage("-c requires --exact."));
        }
        match self.sparse_size.last() {
            Some(_) if !self.exact => Err(Failure::usage("-S requires --exact.")),
            Some(_) if !self.size.is_empty() => Err(Failure::usage("-S requires a filename argument.")),
            Some(text) => common::sparse_size(text, profile).map(Some),
            None => Ok(self.exact.then_some(common::DEFAULT_SPARSE_SIZE)),
        }
    }

    /// The checks between options, in qemu-img's order, and the file they end at.
    fn subject(&self, name: Option<&OsStr>, terms: &Terms) -> Result<Subject, Failure> {
        let about_a_file = self.image_opts || !self.format.is_empty() || !self.snapshot.is_empty();
        match (name, self.size.last()) {
            (None, _) if about_a_file => {
                Err(Failure::usage("--image-opts, -f, and -l require a filename argument."))
            }
            (Some(_), Some(_)) => Err(Failure::usage("--size N cannot be used together with a filename.")),
            (None, None) => Err(Failure::usage("Either --size N or one filename must be specified.")),
            (None, Some(text)) => {
                let subject = MeasureSubject::Size(size(text, terms.speaker.profile)?);
                let references = References::denied();
                Ok(Subject { subject, disks: Vec::new(), references, bytes: 0 })
            }
            (Some(name), None) => self.open(name, terms),
        }
    }

    fn open(&self, name: &OsStr, terms: &Terms) -> Result<Subject, Failure> {
        let how = How {
            format: self.format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            // These are as long as the disk; the others are as long as there is data.
            extents: !matches!(self.target(), "raw" | "luks"),
            ..How::on(terms)
        };
        let Image { source, disks, references, .. } = Image::open(name, how)?;
        let snapshot = snapshot::choose(&self.snapshot).cloned();
        // All the data is read, or only tables.
        let bytes = source.file.allocated / if self.exact { 1 } else { DATA_PER_TABLE };
        let subject = MeasureSubject::Image { source: Box::new(source), snapshot };
        Ok(Subject { subject, disks, references, bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
