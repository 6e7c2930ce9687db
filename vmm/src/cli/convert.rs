//! `convert`: an image out of others.

mod preset;
mod run;

use std::ffi::OsString;

use argh::{ArgsInfo, FromArgs};
use protocol::{
    QemuVersion,
    options::{asks_for_help, is_valid_list},
    size,
};

use self::preset::Preset;
use super::{
    argv::{Exception, Item},
    common::{self, Memory, Seconds, Terms},
    line::{self, Line, Own, Subcommand},
    option_help,
    secret::Secrets,
    snapshot,
};
use crate::{
    devices::Cache,
    report::{Failure, Speaker, escape, progress::Shown},
};

/// The command's name.
pub const NAME: &str = "convert";

/// Most coroutines of `-m`.
const MAX_COROUTINES: usize = 16;

/// Make an image OUTPUT that holds what FILE holds, or several FILEs one behind the other.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "convert",
    help_triggers("-h", "--help"),
    usage = "[-f FMT | --image-opts] [-O FMT | --target-image-opts] [-o OPTIONS] [-c] [-p] [-q]\n    [-l SNAPSHOT] [-S SIZE] [-b BACKING_FILE [-F FMT]] [-n [--target-is-zero]]\n    [-t CACHE] [-T CACHE] [-m NUMBER] [-W] [-C] [-r RATE] [-U] [--object OBJDEF]\n    [--preset NAME] [--max-output SIZE] [--allow-references DIR] [--timeout SECONDS]\n    [--memory SIZE] [--qemu-version X.Y] [--no-sandbox] FILE... OUTPUT",
    note = "An OUTPUT that is not there appears when it is complete. One that is there is overwritten.",
    note = "Sizes are in bytes, or have a suffix: k, M, G, T, P or E (powers of 1024).",
    note = "Options may stand behind FILE, be abbreviated, and be written --parallel=4 or -Oqcow2.",
    note = "Of an option given twice the last counts, but for -o and --object.",
    note = "INSTAR_ALLOW_REFERENCES (DIR[:DIR...]), INSTAR_TIMEOUT, INSTAR_MEMORY and",
    note = "INSTAR_QEMU_VERSION in the environment are defaults for the options of those names.",
    note = "The exit code is 0, or 1 after any failure."
)]
pub struct Convert {
    /// format of the FILEs (default: probed)
    #[argh(option, short = 'f', arg_name = "FMT")]
    source_format: Vec<String>,

    /// the FILEs are lists of options instead of names, as in driver=qcow2,file.filename=NAME
    #[argh(switch)]
    image_opts: bool,

    /// read this internal snapshot: its id or name, or snapshot.id=ID,snapshot.name=NAME
    #[argh(option, short = 'l', arg_name = "SNAPSHOT")]
    snapshot: Vec<String>,

    /// format of OUTPUT (default: raw)
    #[argh(option, short = 'O', arg_name = "FMT")]
    target_format: Vec<String>,

    /// OUTPUT is a list of options instead of a name; with -n
    #[argh(switch)]
    target_image_opts: bool,

    /// options of OUTPUT's format, as in cluster_size=2M; may be given several times; help lists them
    #[argh(option, short = 'o', arg_name = "OPTIONS")]
    target_format_options: Vec<String>,

    /// the image below OUTPUT: what FILE has from there is not copied (also -B)
    #[argh(option, short = 'B', arg_name = "BACKING_FILE")]
    backing: Vec<String>,

    /// format of BACKING_FILE
    #[argh(option, short = 'F', arg_name = "FMT")]
    backing_format: Vec<String>,

    /// compress OUTPUT
    #[argh(switch, short = 'c')]
    compress: bool,

    /// leave out zeros inside of data from this many bytes on: multiples of 512 up to 16M, 0 to write all (default: 4k)
    #[argh(option, short = 'S', arg_name = "SIZE")]
    sparse_size: Vec<String>,

    /// OUTPUT is an image that is there and long enough
    #[argh(switch, short = 'n')]
    no_create: bool,

    /// OUTPUT is all zeros; with -n
    #[argh(switch)]
    target_is_zero: bool,

    /// copy persistent bitmaps, too
    #[argh(switch)]
    bitmaps: bool,

    /// leave out bitmaps that are broken; with --bitmaps
    #[argh(switch)]
    skip_broken_bitmaps: bool,

    /// go on where FILE cannot be read, with zeros in its place
    #[argh(switch)]
    salvage: bool,

    /// how FILE is cached: none (not at all), writeback, writethrough, directsync or unsafe
    #[argh(option, short = 'T', arg_name = "CACHE")]
    source_cache: Vec<String>,

    /// how OUTPUT is cached: none (not at all), writeback, writethrough (each write is on the disk), directsync (both) or unsafe (nobody waits for the disk)
    #[argh(option, short = 't', arg_name = "CACHE")]
    target_cache: Vec<String>,

    /// most clusters that are compressed at once, 1 to 16; with 1, FILE is not read while OUTPUT is written (default: 16)
    #[argh(option, short = 'm', arg_name = "NUMBER")]
    parallel: Vec<String>,

    /// taken and not needed
    #[argh(switch, short = 'W')]
    #[expect(dead_code, reason = "it makes no difference to what is written")]
    oob_writes: bool,

    /// taken and not needed
    #[argh(switch, short = 'C')]
    copy_range_offloading: bool,

    /// most bytes that are written to OUTPUT in a second (default: no limit)
    #[argh(option, short = 'r', arg_name = "RATE")]
    rate_limit: Vec<String>,

    /// read the FILEs even while another process writes to them
    #[argh(switch, short = 'U')]
    force_share: bool,

    /// tell how far it has come: by a bar on a terminal, else in qemu-img's words; --progress=bar, =text or =json (on stderr, an object a line) choose
    #[argh(switch, short = 'p')]
    #[expect(dead_code, reason = "looked at while the line is read")]
    progress: bool,

    /// print nothing but failures
    #[argh(switch, short = 'q')]
    quiet: bool,

    /// a secret that options or images refer to: secret,id=ID,file=NAME (or data=TEXT); may be given several times
    #[argh(option, arg_name = "OBJDEF")]
    #[expect(dead_code, reason = "taken one by one while the line is read")]
    object: Vec<String>,

    /// format and options that an importer takes: azure, esxi, gcp or hyperv
    #[argh(option, arg_name = "NAME")]
    preset: Vec<Preset>,

    /// fail where OUTPUT would become longer than this (default: no limit)
    #[argh(option, arg_name = "SIZE")]
    max_output: Vec<String>,

    /// open the files that the FILEs name (backing files, data files, extents) if they are beneath DIR; may be given several times (default: none)
    #[argh(option, arg_name = "DIR")]
    allow_references: Vec<String>,

    /// stop after this many seconds, 1 to 86400 (default: 60, and one more for each 4M of disk space that the FILEs take)
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
const HISTORY: [Exception; 19] = [
    Exception::LongSince("source-format", QemuVersion::V10_0),
    Exception::LongSince("snapshot", QemuVersion::V10_0),
    Exception::LongSince("target-format", QemuVersion::V11_1),
    Exception::LongSince("target-format-options", QemuVersion::V11_1),
    Exception::LongSince("backing", QemuVersion::V10_0),
    Exception::ShortAlias('b', "backing", QemuVersion::V11_1),
    Exception::LongSince("backing-format", QemuVersion::V10_0),
    Exception::ShortSince('F', QemuVersion::V7_2),
    Exception::Nameless("compress"),
    Exception::LongSince("sparse-size", QemuVersion::V10_0),
    Exception::LongSince("no-create", QemuVersion::V11_1),
    Exception::LongSince("source-cache", QemuVersion::V10_0),
    Exception::LongSince("target-cache", QemuVersion::V11_1),
    Exception::LongSince("parallel", QemuVersion::V10_0),
    Exception::LongSince("oob-writes", QemuVersion::V10_0),
    Exception::LongSince("copy-range-offloading", QemuVersion::V10_0),
    Exception::LongSince("rate-limit", QemuVersion::V11_1),
    Exception::LongSince("progress", QemuVersion::V11_1),
    Exception::LongSince("quiet", QemuVersion::V10_0),
];

/// Names of 10.0 alone.
const OF_10_0: [Exception; 5] = [
    Exception::Alias("source-image-opts", "image-opts", QemuVersion::V10_0),
    Exception::Alias("output-format", "target-format", QemuVersion::V10_0),
    Exception::Alias("options", "target-format-options", QemuVersion::V10_0),
    Exception::Alias("output-cache", "target-cache", QemuVersion::V10_0),
    Exception::Alias("rate", "rate-limit", QemuVersion::V10_0),
];

/// Options of instar's that there are not under the name `qemu-img`.
const OWN: [&str; 2] = ["preset", "max-output"];

impl Subcommand for Convert {
    const NAME: &'static str = NAME;

    fn exceptions(speaker: Speaker) -> Vec<Exception> {
        let own = OWN.map(if speaker.as_qemu_img { Exception::Absent } else { Exception::Own });
        let attachable = (!speaker.as_qemu_img).then_some(Exception::Attachable("progress"));
        let mut all: Vec<Exception> = HISTORY.into_iter().chain(own).chain(attachable).collect();
        if speaker.profile == QemuVersion::V5_2 {
            all.push(Exception::Absent("skip-broken-bitmaps"));
        }
        if speaker.profile == QemuVersion::V10_0 {
            all.extend(OF_10_0);
        }
        all
    }

    fn own(&self) -> Own<'_> {
        Own { timeout: &self.timeout, memory: &self.memory, no_sandbox: self.no_sandbox }
    }
}

/// What was found out while the line was read.
struct Context {
    secrets: Secrets,
    cache: Cache,
    shown: Shown,
    terms: Terms,
}

/// Reads the command line behind `convert` and runs it.
pub fn run(speaker: &mut Speaker, arguments: &[OsString]) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let line = line::read::<Convert>(speaker, arguments, |item, speaker| {
        match item.option {
            "progress" => shown = Shown::parse(&item.value, speaker)?,
            _ => check(item, speaker)?,
        }
        Ok(())
    })?;
    let Some(Line { options, operands, secrets, terms }) = line else { return Ok(()) };
    options.check_together()?;
    if options.target_format_options.iter().any(|list| asks_for_help(list)) {
        return option_help::print_for(options.format(), operands.len() > 1, terms);
    }
    let Some((target, sources)) = operands.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(Failure::usage("Must specify image file name"));
    };
    let cache = common::cache(&options.source_cache, "source cache").map_err(Failure::usage)?;
    let shown = if options.quiet { Shown::default() } else { shown };
    let context = Context { secrets, cache, shown, terms };
    context.shown.prepare()?;
    context.shown.begin()?;
    let converted = options.convert(sources, target, &context);
    if converted.is_ok() {
        context.shown.complete()?;
    }
    context.shown.end()?;
    converted
}

/// What qemu-img checks about an option when it comes to it, before the options behind it.
fn check(item: &Item, speaker: Speaker) -> Result<(), Failure> {
    let profile = speaker.profile;
    match item.option {
        "target-format-options" if !is_valid_list(&item.value) => {
            Err(Failure::usage(format!("Invalid option list: {}", escape(&item.value))))
        }
        "snapshot" => snapshot::check(&item.value, speaker),
        "sparse-size" => common::sparse_size(&item.value, profile).map(drop),
        "parallel" => coroutines(&item.value, profile).map(drop),
        "rate-limit" => common::bytes("rate limit", &item.value, profile).map(drop),
        "max-output" => common::bytes("output limit", &item.value, profile).map(drop),
        _ => Ok(()),
    }
}

/// The number of `-m`.
fn coroutines(text: &str, profile: QemuVersion) -> Result<usize, Failure> {
    let number = size::parse_signed(text, profile);
    let valid = number.ok().and_then(|number| usize::try_from(number).ok());
    if let Some(number) = valid.filter(|number| (1..=MAX_COROUTINES).contains(number)) {
        return Ok(number);
    }
    let what = "Invalid number of coroutines";
    Err(Failure::usage(match (number, profile) {
        (_, QemuVersion::V5_2 | QemuVersion::V7_2 | QemuVersion::V8_0) => {
            format!("{what}. Allowed number of coroutines is between 1 and {MAX_COROUTINES}")
        }
        (Err(size::SizeError::Invalid), QemuVersion::V10_0) => {
            format!("{what} specified: '{}'.", escape(text))
        }
        (Err(size::SizeError::Invalid), QemuVersion::V11_1) => {
            format!("{what} specified: '{}'", escape(text))
        }
        _ => format!("{what} specified. Must be between 1 and {MAX_COROUTINES}."),
    }))
}

impl Convert {
    /// Name of OUTPUT's format.
    fn format(&self) -> &str {
        match (self.target_format.last(), self.preset.last()) {
            (Some(format), _) => format,
            (None, Some(preset)) => preset.format(),
            (None, None) => "raw",
        }
    }

    /// What qemu-img checks about options together, in its order.
    fn check_together(&self) -> Result<(), Failure> {
        let lists = !self.target_format_options.is_empty();
        let wrong = [
            (self.skip_broken_bitmaps && !self.bitmaps, "Use of --skip-broken-bitmaps requires --bitmaps"),
            (self.compress && self.copy_range_offloading, "Cannot enable copy offloading when -c is used"),
            (
                !self.sparse_size.is_empty() && self.copy_range_offloading,
                "Cannot enable copy offloading when -S is used",
            ),
            (self.target_image_opts && !self.no_create, "--target-image-opts requires use of -n flag"),
            (self.no_create && lists, "-o has no effect when skipping image creation"),
            (self.target_is_zero && !self.no_create, "--target-is-zero requires use of -n flag"),
            (
                !self.preset.is_empty() && (self.no_create || !self.target_format.is_empty()),
                "--preset says what the format of a new image is, and goes with neither -n nor -O",
            ),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, message)) => Err(Failure::usage(message)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_coroutines_is_checked_in_each_releases_words() {
        let words = |text, profile| {
            let speaker = Speaker { as_qemu_img: true, profile };
            coroutines(text, profile).map_err(|failure| failure.render(speaker))
        };
        for (text, number) in [("1", 1), ("16", 16), ("0x2", 2), ("02", 2), (" 3", 3)] {
            assert_eq!(words(text, QemuVersion::V11_1), Ok(number), "{text}");
        }
        for text in ["0", "17", "-1", "99999999999999999999"] {
            let message = words(text, QemuVersion::V10_0).unwrap_err();
            assert_eq!(
                message,
                "qemu-img: Invalid number of coroutines specified. Must be between 1 and 16.\n"
            );
        }
        let message = words("x", QemuVersion::V10_0).unwrap_err();
        assert_eq!(message, "qemu-img: Invalid number of coroutines specified: 'x'.\n");
        let message = words("x", QemuVersion::V7_2).unwrap_err();
        assert!(message.ends_with("Allowed number of coroutines is between 1 and 16\n"), "{message}");
    }
}
