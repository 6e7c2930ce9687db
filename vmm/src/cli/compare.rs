//! `compare`: whether two images have the same content.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use argh::{ArgsInfo, FromArgs};
use protocol::{Answer, CompareAnswer, CompareFault, ComparePart, CompareRequest, Op, Part, QemuVersion};

use super::{
    argv::Exception,
    common::{self, Memory, Seconds, Terms},
    image::{How, Image, SOURCE},
    line::{self, Own, Subcommand},
    secret,
};
use crate::{
    devices::Cache,
    launch::{self, Command, IoMode},
    records::StreamError,
    report::{self, Failure, Speaker, escape, escape_name, progress::Shown},
};

/// The command's name.
pub const NAME: &str = "compare";

/// Serial of the disk with the second image.
const SECOND: &str = "second";

/// Exit codes: something differs; an image does not open, or something else failed; it is not known what is allocated;
/// the content cannot be read.
const DIFFERENT: u8 = 1;
const FAILED: u8 = 2;
const UNMAPPED: u8 = 3;
const UNREAD: u8 = 4;

/// Compare the content of the images FILE1 and FILE2, their whole backing chains considered.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "compare",
    help_triggers("-h", "--help"),
    usage = "[[-f FMT] [-F FMT] | --image-opts] [-s] [-T CACHE] [-U] [-p] [-q]\n    [--object OBJDEF] [--allow-references DIR] [--timeout SECONDS] [--memory SIZE]\n    [--qemu-version X.Y] [--no-sandbox] FILE1 FILE2",
    note = "Where one image is longer than the other, it is the same if zeros follow.",
    note = "Options may stand behind the files, be abbreviated, and be written --cache=none or",
    note = "-fqcow2. Of an option given twice the last counts, but for --object.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0 if the images are the same, 1 if they are not or the command line is",
    note = "wrong, 2 if one does not open or anything else fails, 3 if it is not known what is",
    note = "allocated, 4 if the content cannot be read."
)]
pub struct Compare {
    /// format of FILE1 (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    a_format: Vec<String>,

    /// format of FILE2 (default: probed)
    #[argh(option, short = 'F', arg_name = "FMT")]
    b_format: Vec<String>,

    /// FILE1 and FILE2 are lists of options instead of names, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// the lengths of the images must be the same, too, and what is allocated
    #[argh(switch, short = 's')]
    strict: bool,

    /// how the images are cached: none (not at all), writeback, writethrough, directsync or unsafe
    #[argh(option, short = 'T', arg_name = "CACHE")]
    cache: Vec<String>,

    /// read the images even while another process writes to them
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// tell how far it has come: by a bar on a terminal, else in qemu-img's words; --progress=bar, =text or =json (on stderr, an object a line) choose
    #[argh(switch, short = 'p')]
    #[expect(dead_code, reason = "looked at while the line is read")]
    progress: bool,

    /// print nothing but failures
    #[argh(switch, short = 'q')]
    quiet: bool,

    /// a secret that an image refers to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// open the files that the images name (backing files, data files, extents) if they are beneath DIR; may be given several times (default: none)
    #[argh(option, arg_name = "DIR")]
    allow_references: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60, and one more for each 4M of disk space that the images take)
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
const HISTORY: [Exception; 6] = [
    Exception::LongSince("a-format", QemuVersion::V10_0),
    Exception::LongSince("b-format", QemuVersion::V10_0),
    Exception::LongSince("strict", QemuVersion::V10_0),
    Exception::LongSince("cache", QemuVersion::V10_0),
    Exception::LongSince("progress", QemuVersion::V10_0),
    Exception::LongSince("quiet", QemuVersion::V10_0),
];

impl Subcommand for Compare {
    const NAME: &'static str = NAME;

    fn exceptions(speaker: Speaker) -> Vec<Exception> {
        let own = (!speaker.as_qemu_img).then_some(Exception::Attachable("progress"));
        HISTORY.into_iter().chain(own).collect()
    }

    /// That of qemu-img.
    fn bad_object(profile: QemuVersion) -> u8 {
        match profile {
            QemuVersion::V5_2 | QemuVersion::V11_1 => 1,
            QemuVersion::V7_2 | QemuVersion::V8_0 | QemuVersion::V10_0 => FAILED,
        }
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `compare` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let mut shown = Shown::default();
    let line = line::read::<Compare>(speaker, arguments, |item, speaker| {
        if item.option == "progress" {
            shown = Shown::parse(&item.value, speaker)?;
        }
        Ok(())
    })?;
    let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
    let [first, second] = *line.operands else {
        return Err(line.wrong_operands("Expecting two image file names"));
    };
    let shown = if line.options.quiet { Shown::default() } else { shown };
    shown.prepare()?;
    let compared = line.options.compare([first, second], line.terms, &line.secrets, shown);
    shown.end()?;
    compared.map(ExitCode::from)
}

impl Compare {
    /// Opens the images, has the guest compare them and prints what it found; answers the exit code.
    fn compare(
        &self,
        names: [&OsStr; 2],
        terms: Terms,
        secrets: &secret::Secrets,
        shown: Shown,
    ) -> Result<u8, Failure> {
        let failed = |failure: Failure| failure.exits_with(FAILED);
        let cache = common::cache(&self.cache, "source cache").map_err(Failure::usage).map_err(failed)?;
        let first = self.open(SOURCE, names[0], (&self.a_format, cache), terms).map_err(failed)?;
        let second = self.open(SECOND, names[1], (&self.b_format, cache), terms);
        let (second, missing) = match second {
            Ok(second) => (Some(second), None),
            Err(failure) => (None, Some(failure)),
        };
        let outcome = self.ask(names, first, second, terms, secrets, shown);
        // It makes room for the verdict. The line of qemu-img ends behind that.
        report::bar::end(false);
        match (outcome, missing) {
            (Err(failure), _) | (Ok(_), Some(failure)) => Err(failed(failure)),
            (Ok(answer), None) => self.tell(&answer, names),
        }
    }

    fn open(
        &self,
        serial: &str,
        name: &OsStr,
        (format, cache): (&[String], Cache),
        terms: Terms,
    ) -> Result<Image, Failure> {
        let how = How {
            format: format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            extents: true,
            cache,
            ..How::on(&terms)
        };
        Image::open_as(serial, name, how)
    }

    /// Has the guest compare the images, or open the first one if that is all there is.
    fn ask(
        &self,
        names: [&OsStr; 2],
        first: Image,
        second: Option<Image>,
        terms: Terms,
        secrets: &secret::Secrets,
        shown: Shown,
    ) -> Result<CompareAnswer, Failure> {
        let sources = || [&first].into_iter().chain(&second).map(|image| &image.source);
        let keys: Vec<&str> = sources().flat_map(|source| source.keys()).collect();
        let (secrets, cpu) = secrets.for_keys(&keys)?;
        let bytes = |image: &Image| image.files.iter().map(|file| file.size.1).sum::<u64>();
        let (less, all) = match &second {
            Some(second) => (bytes(&first).min(bytes(second)), bytes(&first) + bytes(second)),
            None => (0, 0),
        };
        let timeout = common::value(&self.timeout, "INSTAR_TIMEOUT", Seconds::for_moving(all))?;
        let terms = Terms { timeout, ..terms };

        let Image { source: first, mut disks, mut references, .. } = first;
        let second = second.map(|image| {
            // One disk is read while the guest waits, the other one beside it.
            disks.extend(IoMode::for_reading(less).for_all(image.disks));
            references.join(image.references);
            Box::new(image.source)
        });
        let profile = terms.speaker.profile;
        let request = CompareRequest {
            profile,
            first: Box::new(first),
            second,
            secrets,
            strict: self.strict,
            progress: shown.pace(),
        };
        let workers = launch::workers_for(all, &references);
        let command = Command { disks, cpu, references, workers, ..common::command(Op::Compare, &request)? };
        let name_of = |serial: &str| names[usize::from(serial == SECOND)];
        let finished = terms.launch_naming(command, &name_of, &mut |part, _| match part {
            Part::Compare(ComparePart::Progress(progress)) => shown.tell(progress),
            Part::Compare(ComparePart::LengthsDiffer) if self.quiet => Ok(()),
            Part::Compare(ComparePart::LengthsDiffer) => report::say("Warning: Image size mismatch!\n"),
            _ => Err(StreamError::Operation.into()),
        })?;
        let Answer::Compare(answer) = &finished.answer else { return Err(common::another_operation()) };
        let answer = answer.clone();
        finished.leave_standing();
        Ok(answer)
    }

    /// Prints what was found; answers the exit code.
    fn tell(&self, answer: &CompareAnswer, names: [&OsStr; 2]) -> Result<u8, Failure> {
        let failure = |fault: &CompareFault, message: String, code| {
            Failure::new(fault.kind, message).field(Some(fault.field.clone())).exits_with(code)
        };
        let name = |fault: &CompareFault| escape_name(names[usize::from(fault.second)]);
        let (text, code) = match answer {
            CompareAnswer::Identical => ("Images are identical.\n".to_owned(), 0),
            CompareAnswer::Content { offset } => {
                (format!("Content mismatch at offset {offset}!\n"), DIFFERENT)
            }
            CompareAnswer::Allocation { offset } => {
                (format!("Strict mode: Offset {offset} block status mismatch!\n"), DIFFERENT)
            }
            CompareAnswer::Lengths => ("Strict mode: Image size mismatch!\n".to_owned(), DIFFERENT),
            CompareAnswer::Unmapped(fault) => {
                let message = format!("Sector allocation test failed for {}", name(fault));
                return Err(failure(fault, message, UNMAPPED));
            }
            CompareAnswer::Unread { offset, fault } => {
                let message =
                    format!("Error while reading offset {offset} of {}: {}", name(fault), escape(&fault.why));
                return Err(failure(fault, message, UNREAD));
            }
        };
        if !self.quiet {
            report::print(&text)?;
        }
        Ok(code)
    }
}
