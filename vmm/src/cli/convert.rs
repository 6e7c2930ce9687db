//! `convert`: an image out of others.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use argh::{ArgsInfo, FromArgs};
use protocol::{Answer, ConvertRequest, ConvertTarget, NewTarget, Op, QemuVersion, options::is_valid_list};

use super::{
    argv::{Item, Reader, Table},
    common::{self, Memory, Seconds, Terms},
    create,
    image::{How, Image},
    secret,
};
use crate::{
    launch::{Command, IoMode},
    report::{self, Failure, Speaker, escape, escape_name},
    target::{NewImage, TargetError, Targets},
};

/// The command's name.
pub const NAME: &str = "convert";

/// Serial of the disk that is written.
const TARGET: &str = "target";

/// Make an image OUTPUT that holds what FILE holds.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "convert",
    help_triggers("-h", "--help"),
    usage = "[-f FMT] [-O OUTPUT_FMT] [-o OPTIONS] [--object OBJDEF] [--timeout SECONDS] FILE OUTPUT"
)]
pub struct Convert {
    /// format of FILE (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    format: Vec<String>,

    /// format of OUTPUT (default: raw)
    #[argh(option, short = 'O', arg_name = "OUTPUT_FMT")]
    target_format: Vec<String>,

    /// options of OUTPUT's format, as in cluster_size=2M; may be given several times
    #[argh(option, short = 'o', arg_name = "OPTIONS")]
    options: Vec<String>,

    /// compress OUTPUT
    #[argh(switch, short = 'c')]
    compress: bool,

    /// a secret that options or FILE refer to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

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

/// Reads the command line behind `convert` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let started = Instant::now();
    if let Some(profile) = common::profile_of_line::<Convert>(&common::OWN, arguments)? {
        speaker.profile = profile;
    }
    let speaker = *speaker;
    let table = Table::of::<Convert>(&common::OWN, speaker.profile);
    let mut reader = Reader::new(&table, arguments);
    let mut secrets = secret::Secrets::default();
    for item in reader.by_ref() {
        let item = item.map_err(|error| common::grammar(NAME, &error, speaker.profile))?;
        if item.option == "help" {
            return report::print(&super::help::<Convert>(speaker, Some(NAME)));
        }
        check(&item, speaker, &mut secrets)?;
    }
    let options = Convert::from_args(&[speaker.name(), NAME], &reader.canonical())
        .map_err(|exit| Failure::usage(escape(exit.output.trim_end())))?;
    let timeout = common::value(&options.timeout, "INSTAR_TIMEOUT", common::DEFAULT_TIMEOUT)?;
    let memory = common::value(&options.memory, "INSTAR_MEMORY", common::DEFAULT_MEMORY)?;
    let terms = Terms { speaker, started, timeout, memory, no_sandbox: options.no_sandbox };
    let [name, target] = reader.operands() else {
        return Err(Failure::usage("Must specify image file name"));
    };
    let how = How {
        room: None,
        format: options.format.last().map(String::as_str),
        image_opts: false,
        force_share: false,
        allow_references: &options.allow_references,
        extents: true,
        deadline: started + Duration::from(timeout),
        speaker,
    };
    let Image { source, mut disks, references, .. } = Image::open(name, how)?;
    let io = IoMode::for_reading(source.file.allocated);
    let failed = |error: &TargetError| {
        let format = options.target_format.last().map_or("raw", String::as_str);
        let message = format!("{}: error while converting {}: {error}", escape_name(target), escape(format));
        Failure::new(error.kind(), message)
    };
    let mut targets = Targets::default();
    let new = NewImage { serial: TARGET, capacity: 1 << 62 };
    let file = create::reply(targets.create(target, new));
    let format = options.target_format.last().map_or("raw", String::as_str);
    if format == "vmdk" {
        targets.allow_parts(target, 1 << 62).map_err(|error| failed(&error))?;
    }
    disks.extend(io.for_all(targets.take_disks()));
    let request = ConvertRequest {
        profile: speaker.profile,
        secrets: secrets.for_keys(&source.keys())?,
        sources: vec![source],
        snapshot: None,
        target: ConvertTarget::New(Box::new(NewTarget {
            name: target.to_string_lossy().into_owned(),
            file,
            data_file: None,
            format: format.to_owned(),
            options: (!options.options.is_empty()).then(|| options.options.join(",")),
            backing_file: None,
            backing_format: None,
            chance: create::chance()?,
        })),
        sparse: 4096,
        compress: options.compress,
        backing: false,
        salvage: false,
        bitmaps: None,
        progress: false,
    };
    let command = common::command(Op::Convert, &request)?;
    let command = Command { disks, references, targets, ..command };
    let finished = terms.launch(command, name, &mut |_, _| Ok(()))?;
    let Answer::Convert(_) = &finished.answer else { return Err(common::another_operation()) };
    finished.into_targets().commit().map_err(|error| failed(&error))
}

/// What qemu-img checks about an option when it comes to it, before the options behind it.
fn check(item: &Item, speaker: Speaker, secrets: &mut secret::Secrets) -> Result<(), Failure> {
    match item.option {
        "options" if !is_valid_list(&item.value) => {
            Err(Failure::usage(format!("Invalid option list: {}", escape(&item.value))))
        }
        "object" => secrets.add(&item.value, speaker.profile),
        _ => Ok(()),
    }
}
