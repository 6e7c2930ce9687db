//! `measure` against the real `qemu-img`, hosted: target formats, their options, sizes, and the errors of all three.
//!
//! `qemu-img` is taken from `QEMU_IMG` or the path; its version selects the release that is followed. Without it the
//! test fails.

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use formats::{Region, Storage, StorageError};
use protocol::{
    ErrorRecord, ExtentMap, FileFacts, ImageSource, MeasureAnswer, MeasureRequest, MeasureSubject,
    QemuVersion, Secret, options, size,
};
use unikernel::{files::Standalone, ops::measure};

/// One command line: target, `-o` lists, and a size or a raw file.
#[derive(Clone, Debug)]
struct Row {
    target: String,
    lists: Vec<String>,
    subject: Subject,
    secret: bool,
}

#[derive(Clone, Debug)]
enum Subject {
    Size(String),
    /// A raw file of this many bytes, none of them in a hole.
    File(usize),
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    exit: i32,
    stdout: String,
    stderr: String,
}

struct Reference {
    program: PathBuf,
    profile: QemuVersion,
    directory: PathBuf,
}

impl Reference {
    fn find() -> Self {
        let program = PathBuf::from(std::env::var_os("QEMU_IMG").unwrap_or_else(|| "qemu-img".into()));
        let output = Command::new(&program).arg("--version").output().expect("qemu-img runs");
        let text = String::from_utf8(output.stdout).unwrap();
        let version = text.split_whitespace().nth(2).expect("a version");
        let profile = match version.split('.').next().and_then(|major| major.parse().ok()) {
            Some(..=5) => QemuVersion::V5_2,
            Some(6..=7) => QemuVersion::V7_2,
            Some(8..=10) => QemuVersion::V10_0,
            _ => QemuVersion::V11_1,
        };
        let directory = std::env::temp_dir().join(format!(
            "measure-options-{}-{:?}",
            std::process::id(),
            thread::current().id()
        ));
        fs::create_dir_all(&directory).unwrap();
        for &length in FILES {
            fs::write(directory.join(format!("{length}.raw")), content(length)).unwrap();
        }
        Self { program, profile, directory }
    }

    fn file(&self, length: usize) -> PathBuf {
        self.directory.join(format!("{length}.raw"))
    }

    fn measure(&self, row: &Row) -> Outcome {
        let mut command = Command::new(&self.program);
        command.arg("measure");
        if row.secret {
            command.args(["--object", "secret,id=s,data=x"]);
        }
        command.args(["-O", &row.target]);
        for list in &row.lists {
            command.args(["-o", list]);
        }
        match &row.subject {
            Subject::Size(size) => command.arg(format!("--size={size}")),
            Subject::File(length) => command.args(["-f", "raw"]).arg(self.file(*length)),
        };
        // Some releases give up on their key derivation benchmark at random.
        for _ in 0..20 {
            let output = command.output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            if !stderr.contains("Unable to get accurate CPU usage") {
                let stdout = String::from_utf8(output.stdout).unwrap();
                return Outcome { exit: output.status.code().unwrap_or(-1), stdout, stderr };
            }
        }
        panic!("qemu-img never measured its CPU usage: {row:?}");
    }
}

/// Bytes that are all data.
struct Memory(Vec<u8>);

impl Storage for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        buf.fill(0);
        let stored = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let length = stored.len().min(buf.len());
        buf[..length].copy_from_slice(&stored[..length]);
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: self.len() - offset, hole: false })
    }
}

fn content(length: usize) -> Vec<u8> {
    vec![0xa5; length]
}

/// What the command line, the guest's operation and the report make of a row together.
fn ours(row: &Row, profile: QemuVersion) -> Outcome {
    match answer(row, profile) {
        Ok(MeasureAnswer { required, fully_allocated, bitmaps }) => {
            let mut stdout = format!("required size: {required}\nfully allocated size: {fully_allocated}\n");
            if let Some(bitmaps) = bitmaps {
                writeln!(stdout, "bitmaps size: {bitmaps}").unwrap();
            }
            Outcome { exit: 0, stdout, stderr: String::new() }
        }
        Err(message) => {
            let mut stderr = String::new();
            for line in message.lines() {
                match line.strip_prefix(options::HINT) {
                    Some(hint) => writeln!(stderr, "{hint}").unwrap(),
                    None => writeln!(stderr, "qemu-img: {line}").unwrap(),
                }
            }
            Outcome { exit: 1, stdout: String::new(), stderr }
        }
    }
}

fn answer(row: &Row, profile: QemuVersion) -> Result<MeasureAnswer, String> {
    if let Some(list) = row.lists.iter().find(|list| !options::is_valid_list(list)) {
        return Err(format!("Invalid option list: {list}"));
    }
    let subject = match &row.subject {
        Subject::Size(text) => MeasureSubject::Size(
            size::parse(text, profile).map_err(|error| error.explain("image size", text, profile))?,
        ),
        Subject::File(length) => MeasureSubject::Image {
            source: Box::new(ImageSource::new(
                FileFacts {
                    disk: "source".into(),
                    length: *length as u64,
                    allocated: *length as u64,
                    extents: ExtentMap::Inline(vec![]),
                    named_dmg: false,
                },
                Some("raw".into()),
            )),
            snapshot: None,
        },
    };
    let request = MeasureRequest {
        profile,
        target_format: row.target.clone(),
        options: (!row.lists.is_empty()).then(|| row.lists.join(",")),
        secrets: if row.secret { vec![Secret::unread("s")] } else { vec![] },
        beyond: false,
        exact: None,
        compress: false,
        subject,
    };
    let open = |file: &FileFacts| -> Result<Memory, ErrorRecord> {
        Ok(Memory(content(usize::try_from(file.length).unwrap())))
    };
    measure::run(&request, &mut Standalone(open)).map_err(|error| error.message)
}

/// Pseudo-random choices, the same in every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound as u64).unwrap()
    }

    fn pick(&mut self, of: &'static str) -> &'static str {
        each(of).nth(self.below(each(of).count())).unwrap()
    }
}

// Lists of choices, a bar between two.

const SIZES: &str = "\
    0|1|511|512|1k|65535|65536|65537|1M|1.5M|100M|1G|10G|127G|128G|128.1G|1T|2T|8T|8.5T|64T|65T|128T|\
    129T|1P|1025T|2P|2049T|1E|2E|3E|7.5E|9223372036854774784|9223372036854774785|9223372036854775807";
const BAD_SIZES: &str = "\
    8E|16E|-1|-1k||x|1kk|1.5|.5|.5k|1e3|1 ";
const QCOW2: &str = "\
    cluster_size=512|cluster_size=1k|cluster_size=4k|cluster_size=0x2000|cluster_size=16384|\
    cluster_size=64K|cluster_size=256k|cluster_size=2M|refcount_bits=1|refcount_bits=2|refcount_bits=8|\
    refcount_bits=020|refcount_bits=0x20|refcount_bits=64|extended_l2=on|extended_l2|noextended_l2|\
    compat=0.10|compat=1.1|preallocation=off|preallocation=metadata|preallocation=falloc|\
    preallocation=full|backing_file=a,,b|lazy_refcounts=on|compression_type=foo|data_file=x|size=1G|\
    id=x|encrypt.format=aes|nocow=on|extent_size_hint=1M";
const QCOW2_ERRORS: &str = "\
    cluster_size=0|cluster_size=3|cluster_size=4M|cluster_size=-1|cluster_size=16E|cluster_size=foo|\
    cluster_size|cluster_size=4k,,|refcount_bits=3|refcount_bits=0|refcount_bits=-1|refcount_bits=8k|\
    refcount_bits=18446744073709551616|refcount_bits=0b1|compat=v3|compat|preallocation=foo|\
    extended_l2=foo|foo|nofoo|nocow|a,,b|=1|help|keep_data_file=on|encryption=x|size=3P|\
    size=18446744073709551615|size=18446744073709486080|size=-1|\
    encrypt.format=luks,encrypt.key-secret=t|encrypt.format=luks,encrypt.cipher-alg=foo|encrypt.foo=1||\
    ,|,a|a,|a,,|a,,,";
const LUKS_ERRORS: &str = "\
    key-secret=t|key-secret|detached-header=on|detached-header=x|cipher-alg=foo|cipher-mode=x|\
    ivgen-alg=x|ivgen-hash-alg=x|hash-alg=x|iter-time=x|iter-time=18446744073709551615|\
    hash-alg=x,cipher-mode=x|cipher-alg=sm4,key-secret=t|cipher-alg=des-rfb,key-secret=t|foo|\
    key-secret=s,cipher-alg=des|key-secret=s,cipher-alg=3des|key-secret=s,cipher-alg=cast5-128|\
    key-secret=s,cipher-alg=sm4|key-secret=s,cipher-alg=sm4,cipher-mode=cbc,ivgen-alg=essiv|\
    key-secret=s,ivgen-alg=essiv,ivgen-hash-alg=sha1|\
    key-secret=s,cipher-alg=serpent-192,ivgen-alg=essiv,ivgen-hash-alg=sha512|\
    key-secret=s,cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv";
/// Each costs `qemu-img` seconds of key derivation.
const LUKS: &str = "key-secret=s|key-secret=s,cipher-alg=aes-128,cipher-mode=cbc|\
    key-secret=s,cipher-alg=twofish-192,hash-alg=sha1";
const OTHERS: &str = "\
    vmdk|vpc|vhdx|vdi|qcow|qed|parallels|file|nbd|host_device|nvme|bochs|cloop|dmg|compress|\
    copy-before-write|quorum|throttle|vvfat|null-co|nosuch|QCOW2|";
const OTHER_OPTIONS: &str = "\
    |foo=1|size=x|size=1M|preallocation=foo|subformat=x|static=on|static=x|block_size=0|toolsversion=1|\
    table_size=x|cluster_size=1M|force_size|encryption=x|compat6=on|log_size=q|zeroed_grain=maybe|\
    adapter_type=x|hwversion=1|block_state_zero=off";
const FILES: &[usize] = &[1, 512, 70_000, 1 << 20];

fn each(choices: &'static str) -> impl Iterator<Item = &'static str> {
    choices.split('|')
}

fn row(target: &str, lists: &[&str], subject: Subject) -> Row {
    Row {
        target: target.into(),
        lists: lists.iter().map(|list| (*list).into()).collect(),
        subject,
        secret: target == "luks",
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let by_size = |size: &str| Subject::Size(size.into());
    for size in each(SIZES).chain(each(BAD_SIZES)) {
        rows.push(row("raw", &[], by_size(size)));
        rows.extend(each(QCOW2).map(|list| row("qcow2", &[list], by_size(size))));
    }
    for list in each(QCOW2_ERRORS) {
        rows.push(row("qcow2", &[list], by_size("1M")));
        rows.push(row("qcow2", &["cluster_size=4k", list], by_size("3P")));
        rows.push(row("raw", &[list], by_size("1")));
        rows.push(row("qcow2", &[list], Subject::File(512)));
    }
    for target in each(OTHERS) {
        rows.push(row(target, &[], by_size("1M")));
        rows.extend(each(OTHER_OPTIONS).map(|list| row(target, &[list], by_size("1M"))));
    }
    rows.extend(each(LUKS_ERRORS).chain(each(LUKS)).map(|list| row("luks", &[list], by_size("1"))));
    let mut inside =
        row("qcow2", &["encrypt.format=luks,encrypt.key-secret=s,cluster_size=512"], by_size("1G"));
    inside.secret = true;
    rows.push(inside);
    let mut choices = Choices(1);
    for number in 0..1600 {
        let mut lists = Vec::new();
        for _ in 0..=choices.below(4) {
            let of = if choices.below(12) == 0 { QCOW2_ERRORS } else { QCOW2 };
            lists.push(choices.pick(of));
        }
        let subject = match number % 4 {
            0 => Subject::File(FILES[choices.below(FILES.len())]),
            _ => by_size(choices.pick(SIZES)),
        };
        rows.push(row(if number % 16 == 1 { "raw" } else { "qcow2" }, &lists, subject));
    }
    rows
}

/// The rows on which the two disagree.
fn differences(reference: &Reference, rows: &[Row]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut different = Vec::new();
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (theirs, ours) = (reference.measure(row), ours(row, reference.profile));
            if theirs != ours {
                different.push(format!("{row:?}\n  qemu-img {theirs:?}\n  instar   {ours:?}"));
            }
        }
        different
    };
    thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

impl Drop for Reference {
    fn drop(&mut self) {
        // What is left behind is a few files in a directory for such.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn every_answer_and_every_error_is_that_of_qemu_img() {
    let reference = Reference::find();
    let rows = rows();
    assert!(rows.len() >= 3000, "{} rows", rows.len());
    let different = differences(&reference, &rows);
    assert!(different.is_empty(), "{} of {} rows:\n{}", different.len(), rows.len(), different.join("\n"));
}

#[test]
fn a_hexadecimal_number_with_a_suffix_is_read_as_the_release_reads_it_but_never_warned_of() {
    let reference = Reference::find();
    for text in ["0x1k", "0x1p3", "0x1G"] {
        let row = row("raw", &[], Subject::Size(text.into()));
        let mut theirs = reference.measure(&row);
        let warning =
            format!("qemu-img: warning: Using a multiplier suffix on hex numbers is deprecated: {text}\n");
        let unwarned = theirs.stderr.strip_prefix(&warning).map(String::from);
        assert_eq!(unwarned.is_some(), reference.profile == QemuVersion::V7_2, "{theirs:?}");
        theirs.stderr = unwarned.unwrap_or(theirs.stderr);
        assert_eq!(ours(&row, reference.profile), theirs, "{text}");
    }
}
