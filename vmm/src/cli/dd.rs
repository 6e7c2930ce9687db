//! `dd`: an image out of a part of another.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use argh::{ArgsInfo, FromArgs};
use protocol::{
    Answer, BelowNew, ConvertRequest, ConvertTarget, DiskPart, NewTarget, Op, QemuVersion,
    size::{self, SizeError},
};

use super::{
    argv::Exception,
    common::{self, Memory, Seconds, Terms},
    create,
    image::{How, Image},
    line::{self, Own, Subcommand},
    secret,
};
use crate::{
    launch::{self, Command, IoMode},
    report::{self, Failure, Speaker, escape_name, progress},
    target::{NewImage, TargetError, Targets},
};

/// The command's name.
pub const NAME: &str = "dd";

/// Serial of the disk that the image is made on.
const TARGET: &str = "target";

/// How long a file may become: as long as any.
const CAPACITY: u64 = i64::MAX as u64 & !511;

/// Largest block, in bytes.
const MAX_BLOCK: u64 = i32::MAX as u64;

/// Copy blocks of the disk in an image to a new image.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "dd",
    help_triggers("-h", "--help"),
    usage = "[-f FMT | --image-opts] [-O FMT] [-U] [--object OBJDEF]\n    [--allow-references DIR] [--timeout SECONDS] [--memory SIZE] [--qemu-version X.Y]\n    [--no-sandbox] [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
    note = "if=INPUT     the image that is read",
    note = "of=OUTPUT    the new one, which is as long as what is copied",
    note = "bs=SIZE      bytes of a block (default: 512)",
    note = "count=BLOCKS where to stop, in blocks from the start of INPUT's disk (default: at its end)",
    note = "skip=BLOCKS  where to begin (default: 0)",
    note = "Sizes and numbers may have suffixes: k, M, G, T, P or E (powers of 1024).",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Dd {
    /// format of INPUT (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// INPUT is a list of options instead of a name, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// format of OUTPUT (default: raw)
    #[argh(option, short = 'O', arg_name = "FMT")]
    output_format: Vec<String>,

    /// read INPUT even while another process writes to it
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// a secret that INPUT refers to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// open the files that INPUT names (backing files, data files, extents) if they are beneath DIR; may be given several times (default: none)
    #[argh(option, arg_name = "DIR")]
    allow_references: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60, and one more for each 4M of disk space that INPUT takes)
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
const HISTORY: [Exception; 2] = [
    Exception::LongSince("format", QemuVersion::V10_0),
    Exception::LongSince("output-format", QemuVersion::V10_0),
];

/// The operands.
struct Operands<'a> {
    input: Option<&'a OsStr>,
    output: Option<&'a OsStr>,
    block: u64,
    count: Option<u64>,
    skip: u64,
}

impl<'a> Operands<'a> {
    fn parse(operands: &[&'a OsStr], profile: QemuVersion) -> Result<Self, Failure> {
        let mut all = Self { input: None, output: None, block: 512, count: None, skip: 0 };
        for operand in operands {
            let bytes = operand.as_bytes();
            let equals = bytes.iter().position(|&byte| byte == b'=');
            let (name, value) = bytes.split_at(equals.unwrap_or(bytes.len()));
            let value = equals.map(|_| OsStr::from_bytes(&value[1..]));
            match (name, value) {
                (b"if", Some(value)) => all.input = Some(value),
                (b"of", Some(value)) => all.output = Some(value),
                (b"bs", Some(value)) => all.block = block(value, profile)?,
                (b"count", Some(value)) => all.count = Some(common::bytes("count", value, profile)?),
                (b"skip", Some(value)) => all.skip = common::bytes("skip", value, profile)?,
                _ => {
                    let name = escape_name(OsStr::from_bytes(name));
                    return Err(Failure::usage(format!("unrecognized operand {name}")));
                }
            }
        }
        Ok(all)
    }

    /// What is copied.
    fn part(&self) -> DiskPart {
        let end = self.count.map_or(u64::MAX, |count| count.saturating_mul(self.block));
        DiskPart { start: self.skip.saturating_mul(self.block), end }
    }
}

fn block(text: &OsStr, profile: QemuVersion) -> Result<u64, Failure> {
    match size::parse(text.to_str().unwrap_or_default(), profile) {
        Ok(bytes) if (1..=MAX_BLOCK).contains(&bytes) => Ok(bytes),
        Ok(_) | Err(SizeError::Range) => {
            Err(Failure::usage(format!("Invalid bs specified. Must be between 1 and {MAX_BLOCK}.")))
        }
        Err(error) => Err(Failure::usage(error.explain("bs", &escape_name(text), profile))),
    }
}

impl Subcommand for Dd {
    const NAME: &'static str = NAME;

    fn exceptions(_: Speaker) -> Vec<Exception> {
        HISTORY.into()
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// Reads the command line behind `dd` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let Some(line) = line::read::<Dd>(speaker, arguments, |_, _| Ok(()))? else { return Ok(()) };
    let operands = Operands::parse(&line.operands, line.terms.speaker.profile)?;
    let (Some(input), Some(output)) = (operands.input, operands.output) else {
        return Err(Failure::usage("Must specify both input and output files"));
    };
    progress::mind_requests()?;
    line.options.copy((input, output), operands.part(), line.terms, &line.secrets)
}

impl Dd {
    /// Copies a part of one image to another, which is made.
    fn copy(
        &self,
        (input, output): (&OsStr, &OsStr),
        part: DiskPart,
        terms: Terms,
        secrets: &secret::Secrets,
    ) -> Result<(), Failure> {
        let how = How {
            format: self.format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            extents: true,
            ..How::on(&terms)
        };
        let Image { source, mut disks, references, files, .. } = Image::open(input, how)?;
        let allocated = files.iter().map(|file| file.size.1).sum();
        let mut targets = Targets::default();
        let new = NewImage { serial: TARGET, capacity: CAPACITY };
        let target = match targets.create(output, new) {
            Err(error @ TargetError::Name(_)) => ConvertTarget::Refused(error.record()),
            opened => ConvertTarget::New(Box::new(NewTarget {
                name: output.to_string_lossy().into_owned(),
                file: create::reply(opened),
                data_file: None,
                format: self.output_format.last().map_or("raw", String::as_str).to_owned(),
                options: None,
                backing_file: None,
                backing_format: None,
                backing: BelowNew::Unopened,
                strict_stream: false,
                chance: create::chance(None)?,
            })),
        };
        disks.extend(IoMode::for_reading(allocated).for_all(targets.take_disks()));
        let (secrets, cpu) = secrets.for_keys(&source.keys())?;
        let request = ConvertRequest {
            profile: terms.speaker.profile,
            secrets,
            sources: vec![source],
            snapshot: None,
            target,
            refused: None,
            // All blocks are written, whatever is in them.
            sparse: 0,
            part: Some(part),
            align: None,
            compress: false,
            backing: false,
            salvage: false,
            bitmaps: None,
            progress: None,
        };
        let timeout = common::value(&self.timeout, "INSTAR_TIMEOUT", Seconds::for_moving(allocated))?;
        let terms = Terms { timeout, ..terms };
        let command = common::command(Op::Convert, &request)?;
        let workers = launch::workers_for(allocated, &references);
        let command = Command { disks, references, targets, cpu, workers, ..command };
        let finished = terms.launch(command, input, &mut launch::no_parts)?;
        let Answer::Convert(answer) = &finished.answer else { return Err(common::another_operation()) };
        let beyond = answer.beyond;
        finished.into_targets().commit().map_err(|error| {
            let message = format!("{}: error while creating output image: {error}", escape_name(output));
            Failure::new(error.kind(), message)
        })?;
        if beyond {
            // No failure to qemu-img.
            let name = terms.speaker.name();
            report::complain(&format!("{name}: {}: cannot skip to specified offset\n", escape_name(input)));
        }
        Ok(())
    }
}
