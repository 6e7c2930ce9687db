//! Broken and hostile qcow2 images through the real machine: each ends in an answer or in one typed line on stderr,
//! soon, and with the exit code of `qemu-img`.

mod common;

use std::{
    fs,
    os::unix::process::CommandExt,
    time::{Duration, Instant},
};

use common::{Bench, Said, assert_none, differences};

/// How long any of these may take on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

/// The kinds of failure that an image may cause; `usage`, if there is no key for it. Faults of the guest and deadlines
/// are not among them.
const KINDS: [&str; 7] =
    ["io", "invalid-format", "unsupported", "corrupt", "reference-denied", "limit", "usage"];

/// An image that is broken on purpose.
struct Hostile {
    name: String,
    bytes: Vec<u8>,
}

/// A number to be written, big-endian: file offset, length in bytes, value.
type Patch = (usize, usize, u64);

impl Hostile {
    fn new(name: impl Into<String>, base: &[u8], patches: &[Patch]) -> Self {
        let mut bytes = base.to_vec();
        for &(offset, length, value) in patches {
            if bytes.len() < offset + length {
                bytes.resize(offset + length, 0);
            }
            bytes[offset..offset + length].copy_from_slice(&value.to_be_bytes()[8 - length..]);
        }
        Self { name: name.into(), bytes }
    }

    /// What is wrong with instar's answer.
    fn complaint(&self, bench: &Bench) -> Option<String> {
        let file = format!("{}.qcow2", self.name.replace([' ', '/'], "-"));
        fs::write(bench.path(&file), &self.bytes).unwrap();
        let arguments = ["measure", "-f", "qcow2", "-O", "qcow2", &file];
        let begin = Instant::now();
        let ours = bench.instar(&arguments);
        let elapsed = begin.elapsed();
        let (drop_in, theirs) = (bench.drop_in(&arguments), bench.reference(&arguments));
        fs::remove_file(bench.path(&file)).unwrap();

        let wrong = |what: &str| Some(format!("{}: {what}\ninstar: {ours}\nqemu-img: {theirs}", self.name));
        if elapsed > SOON {
            return wrong("took too long");
        }
        if (ours.code, &ours.stdout) != (drop_in.code, &drop_in.stdout) {
            return wrong("depends on the program's name");
        }
        if let Some(fault) = untyped(&ours, &file) {
            return wrong(fault);
        }
        if ours.code == theirs.code {
            return if ours.stdout == theirs.stdout { None } else { wrong("has another answer") };
        }
        let deliberate = DELIBERATE.iter().any(|&(name, fields, _)| {
            let named =
                name.strip_suffix('*').map_or(self.name == name, |start| self.name.starts_with(start));
            named && fields.iter().any(|field| ours.stderr.ends_with(&format!("(corrupt: {field})\n")))
        });
        if deliberate && theirs.code == Some(0) { None } else { wrong("has another exit code") }
    }
}

/// Rows (by name, or the start of it) that instar refuses on purpose although `qemu-img` takes them, what it blames then,
/// and why. All of it is in docs/quirks.md: where a table is not to be found, or is something else as well, `qemu-img`
/// reads zeros or nonsense and measures less than there was.
const DELIBERATE: [(&str, &[&str], &str); 14] = [
    ("cut to *", &["l1_table_offset", "refcount_table_offset", "L1 table"], PAST_THE_END),
    ("v2 l1_table_offset*", &["l1_table_offset", "L1 table"], PAST_THE_END),
    ("v3 l1_table_offset*", &["l1_table_offset", "L1 table"], PAST_THE_END),
    ("lazy l1_table_offset*", &["l1_table_offset", "L1 table"], PAST_THE_END),
    ("v2 l1_size*", &["L1 table"], OVERLAP),
    ("v3 l1_size*", &["L1 table"], OVERLAP),
    ("lazy l1_size*", &["L1 table"], OVERLAP),
    ("v2 refcount_table_*", &["refcount_table_offset", "l1_table_offset"], PAST_THE_END),
    ("v3 refcount_table_*", &["refcount_table_offset", "l1_table_offset"], PAST_THE_END),
    ("lazy refcount_table_*", &["refcount_table_offset", "l1_table_offset"], PAST_THE_END),
    ("L1 entr*", &["L1 table"], OVERLAP),
    ("second L1 entry*", &["L1 table"], OVERLAP),
    ("snapshots past the end", &["snapshot table"], PAST_THE_END),
    ("many snapshots in zeros", &["snapshot table"], PAST_THE_END),
];

const PAST_THE_END: &str = "a table lies past the end of the file or over other metadata";
const OVERLAP: &str = "an L2 table lies past the end of the file or over other metadata";

/// What is wrong with the form of an answer: it is all on stdout, or one typed line on stderr.
fn untyped(said: &Said, file: &str) -> Option<&'static str> {
    if said.stderr.contains("panicked") {
        return Some("panicked");
    }
    match said.code {
        Some(0) if said.stderr.is_empty() && !said.stdout.is_empty() => None,
        Some(0) => Some("succeeded with words on stderr"),
        Some(1) if !said.stdout.is_empty() => Some("failed with words on stdout"),
        Some(1) => {
            let Some(line) = said.stderr.strip_suffix('\n').filter(|line| !line.contains('\n')) else {
                return Some("does not say why in one line");
            };
            let kind = line.rsplit_once(" (").and_then(|(_, kind)| kind.split([':', ')']).next());
            let blames = line.starts_with(&format!("instar: Could not open '{file}': "))
                || line.starts_with("instar: Unable to get block status: ");
            match kind {
                Some(kind) if blames && KINDS.contains(&kind) => None,
                _ => Some("has no typed error"),
            }
        }
        _ => Some("ended in another way than by exit code 0 or 1"),
    }
}

fn assert_hostile(rows: &[Hostile]) {
    let bench = Bench::new();
    let found = differences(rows, |row| row.complaint(&bench));
    assert_none(&found, rows.len());
    println!("{} images", rows.len());
}

/// An image of 4 MiB in clusters of 4 KiB, so that its L1 table has two entries, with data under both.
fn base(options: &str) -> Vec<u8> {
    let bench = Bench::new();
    let options = format!("cluster_size=4k,{options}");
    bench.make(&["create", "-q", "-f", "qcow2", "-o", options.trim_end_matches(','), "base.qcow2", "4M"]);
    let qemu_io = std::env::var_os("QEMU_IO").unwrap_or_else(|| "qemu-io".into());
    let mut command = bench.command(qemu_io);
    let said = Said::by(command.args(["-c", "write 0 64k", "-c", "write 3M 20k", "base.qcow2"]));
    assert_eq!(said.code, Some(0), "{said}");
    fs::read(bench.path("base.qcow2")).unwrap()
}

const CLUSTER: usize = 4096;

fn number(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// File offset in the lower bits of a table entry.
fn pointer(bytes: &[u8], offset: usize) -> usize {
    (number(bytes, offset) & 0x00ff_ffff_ffff_fe00) as usize
}

/// The header's fields: name, offset, length, and what to try besides the limits of the number.
const FIELDS: [(&str, usize, usize, &[u64]); 19] = [
    ("magic", 0, 4, &[0x5146_49fa, 0x5146_4900]),
    ("version", 4, 4, &[2, 3, 4]),
    ("backing_file_offset", 8, 8, &[112, 504, 4095, 4096, 4097]),
    ("backing_file_size", 16, 4, &[1023, 1024]),
    ("cluster_bits", 20, 4, &[8, 9, 10, 11, 13, 16, 21, 22, 31, 32, 63, 64]),
    ("size", 24, 8, &[511, 513, 2 << 20, (4 << 20) + 1, (4 << 20) + 512, 6 << 20, 1 << 40, (1 << 63) - 511]),
    ("crypt_method", 32, 4, &[2, 3]),
    ("l1_size", 36, 4, &[2, 3, 512, 513, 1 << 22, (1 << 22) + 1]),
    ("l1_table_offset", 40, 8, &[512, 4096, 8192, 4097, 1 << 20, 1 << 40, (1 << 63) - 4096, 1 << 56]),
    ("refcount_table_offset", 48, 8, &[512, 4097, 8192, 12288, 1 << 20, 1 << 40, (1 << 63) - 4096, 1 << 56]),
    ("refcount_table_clusters", 56, 4, &[2, 3, 2048, 2049, 4096]),
    ("nb_snapshots", 60, 4, &[2, 65535, 65536, 65537]),
    ("snapshots_offset", 64, 8, &[1, 512, 4096, 1 << 40]),
    ("incompatible_features", 72, 8, &[2, 4, 8, 16, 32, 1 << 62]),
    ("compatible_features", 80, 8, &[2, 1 << 62]),
    ("autoclear_features", 88, 8, &[2, 3, 4, 1 << 62]),
    ("refcount_order", 96, 4, &[2, 3, 4, 5, 6, 7, 63, 64]),
    ("header_length", 100, 4, &[72, 103, 104, 105, 108, 111, 112, 113, 120, 4095, 4096, 4097]),
    ("compression_type", 104, 1, &[1, 2]),
];

#[test]
fn every_header_field_at_its_limits() {
    let mut rows = vec![];
    for (version, options) in [("v2", "compat=0.10"), ("v3", ""), ("lazy", "lazy_refcounts=on")] {
        let base = base(options);
        for (field, offset, length, more) in FIELDS {
            if version == "v2" && offset >= 72 {
                continue;
            }
            let bits = 8 * length as u32;
            let most = u64::MAX >> (64 - bits);
            let mut values = vec![0, 1, most, most - 1, most >> 1, (most >> 1) + 1];
            values.extend(more);
            values.sort();
            values.dedup();
            for value in values {
                rows.push(Hostile::new(
                    format!("{version} {field} {value:#x}"),
                    &base,
                    &[(offset, length, value)],
                ));
            }
        }
    }
    assert!(rows.len() >= 300, "only {} rows", rows.len());
    assert_hostile(&rows);
}

#[test]
fn fields_that_are_wrong_together() {
    let base = base("");
    let rows = [
        ("snapshots past the end", &[(60, 4, 1), (64, 8, 1 << 40)][..]),
        ("snapshots in the header", &[(60, 4, 1), (64, 8, 0)]),
        ("snapshots in the L1 table", &[(60, 4, 1), (64, 8, number(&base, 40))]),
        ("many snapshots in zeros", &[(60, 4, 65536), (64, 8, 1 << 30)]),
        ("a huge disk with a huge L1 table", &[(24, 8, 1 << 43), (36, 4, 1 << 22)]),
        ("a huge disk with clusters of 2M", &[(20, 4, 21), (24, 8, 1 << 60), (36, 4, 1 << 21), (40, 8, 0)]),
        ("all incompatible features", &[(72, 8, u64::MAX)]),
        ("dirty and corrupt", &[(72, 8, 3)]),
        ("a data file without a name", &[(72, 8, 4), (88, 8, 2)]),
        ("zstd without its feature", &[(104, 1, 1)]),
        ("zlib with zstd's feature", &[(72, 8, 8)]),
        ("zstd with its feature", &[(72, 8, 8), (104, 1, 1)]),
        ("subclusters of 128 bytes", &[(72, 8, 16)]),
        ("a backing file name over the header", &[(8, 8, 0), (16, 4, 8)]),
        ("a backing file name over the end of the cluster", &[(8, 8, 4090), (16, 4, 100)]),
        ("a backing file name of zeros", &[(8, 8, 2000), (16, 4, 10)]),
        ("an endless extension", &[(112, 4, 0x6803_f857), (116, 4, 0xffff_ffff)]),
        ("an extension over the end of the cluster", &[(112, 4, 0x1234_5678), (116, 4, 4000)]),
        ("a backing format that is too long", &[(112, 4, 0xe279_2aca), (116, 4, 16)]),
        ("a table of feature names of odd length", &[(112, 4, 0x6803_f857), (116, 4, 47)]),
        ("a pointer to a LUKS header of odd length", &[(112, 4, 0x0537_be77), (116, 4, 8)]),
        (
            "LUKS past the end",
            &[(32, 4, 2), (112, 4, 0x0537_be77), (116, 4, 16), (120, 8, 1 << 40), (128, 8, 4096)],
        ),
        ("bitmaps of odd length", &[(88, 8, 1), (112, 4, 0x2385_2875), (116, 4, 8)]),
        ("no bitmaps", &[(88, 8, 1), (112, 4, 0x2385_2875), (116, 4, 24), (120, 4, 0)]),
        (
            "too many bitmaps",
            &[
                (88, 8, 1),
                (112, 4, 0x2385_2875),
                (116, 4, 24),
                (120, 4, 65536),
                (128, 8, 65536 * 24),
                (136, 8, 8192),
            ],
        ),
        (
            "bitmaps past the end",
            &[
                (88, 8, 1),
                (112, 4, 0x2385_2875),
                (116, 4, 24),
                (120, 4, 1),
                (124, 4, 0),
                (128, 8, 32),
                (136, 8, 1 << 40),
            ],
        ),
        (
            "a bitmap directory of 64 MiB",
            &[
                (88, 8, 1),
                (112, 4, 0x2385_2875),
                (116, 4, 24),
                (120, 4, 65535),
                (124, 4, 0),
                (128, 8, 64 << 20),
                (136, 8, 8192),
            ],
        ),
    ];
    assert_hostile(&rows.map(|(name, patches)| Hostile::new(name, &base, patches)));
}

#[test]
fn tables_that_lie() {
    let base = base("");
    let l1 = number(&base, 40) as usize;
    let refcounts = number(&base, 48);
    let refcount_block = pointer(&base, refcounts as usize) as u64;
    let (l2, other_l2) = (pointer(&base, l1), pointer(&base, l1 + 8));
    let data = pointer(&base, l2);
    let end = base.len().next_multiple_of(CLUSTER) as u64;
    let copied = 1_u64 << 63;
    let compressed = 1_u64 << 62;
    let mut rows = vec![];

    // Where an L1 entry must not lead, and where it may.
    for (what, target) in [
        ("the header", 0),
        ("the L1 table", l1 as u64),
        ("the refcount table", refcounts),
        ("a refcount block", refcount_block),
        ("data", data as u64),
        ("the other L2 table", other_l2 as u64),
        ("the end", end),
        ("far past the end", 1 << 50),
        ("the last offset", 0x00ff_ffff_ffff_f000),
        ("an unaligned place", l2 as u64 + 512),
        ("an unaligned table in the header", 512),
        ("reserved low bits", l2 as u64 | 0x1ff),
        ("reserved high bits", l2 as u64 | 0x7f << 56),
    ] {
        rows.push(Hostile::new(format!("L1 entry to {what}"), &base, &[(l1, 8, target)]));
        rows.push(Hostile::new(format!("L1 entry to {what} and copied"), &base, &[(l1, 8, copied | target)]));
        rows.push(Hostile::new(format!("second L1 entry to {what}"), &base, &[(l1 + 8, 8, copied | target)]));
        rows.push(Hostile::new(
            format!("L1 entries to {what}"),
            &base,
            &[(l1, 8, target), (l1 + 8, 8, target)],
        ));
    }
    // The same for an L2 entry, which has more to say.
    for (what, entry) in [
        ("the header", copied),
        ("the L1 table", copied | l1 as u64),
        ("its own table", copied | l2 as u64),
        ("the refcount table", copied | refcounts),
        ("the end", copied | end),
        ("far past the end", copied | 1 << 50),
        ("the last offset", copied | 0x00ff_ffff_ffff_f000),
        ("an unaligned place", copied | (data as u64 + 512)),
        ("zeros at an unaligned place", (data as u64 + 512) | 1),
        ("zeros with space", data as u64 | 1),
        ("zeros", 1),
        ("reserved bits", data as u64 | 0x1fe),
        ("reserved high bits", data as u64 | 0x3f << 56),
        ("all bits", u64::MAX),
        ("compressed data", compressed | data as u64),
        ("compressed data and copied", copied | compressed | data as u64),
        ("the most compressed data", compressed | 0x3fff_ffff_ffff_ffff),
        ("compressed data past the end", compressed | 1 << 50),
        ("no compressed data", compressed),
    ] {
        rows.push(Hostile::new(format!("L2 entry to {what}"), &base, &[(l2, 8, entry)]));
        let every: Vec<Patch> = (0..CLUSTER / 8).map(|index| (l2 + 8 * index, 8, entry)).collect();
        rows.push(Hostile::new(format!("L2 entries to {what}"), &base, &every));
    }
    for (what, entry) in
        [("zero", 0), ("to the header", 1), ("past the end", 1 << 50), ("unaligned", refcount_block + 512)]
    {
        rows.push(Hostile::new(
            format!("refcount table entry {what}"),
            &base,
            &[(refcounts as usize, 8, entry)],
        ));
    }
    assert_hostile(&rows);
}

#[test]
fn tables_of_subclusters_that_lie() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=16k", "a.qcow2", "1M"]);
    let mut base = fs::read(bench.path("a.qcow2")).unwrap();
    let l1 = number(&base, 40) as usize;
    // A table and a cluster behind what is there.
    let l2 = base.len().next_multiple_of(16 << 10);
    let data = (l2 + (16 << 10)) as u64;
    base.resize(l2 + (32 << 10), 0);
    let at_table = [(l1, 8, 1 << 63 | l2 as u64)];
    let rows: Vec<Hostile> = [
        ("both zero and allocated", data, u64::MAX),
        ("allocated without a cluster", 0, 0xffff_ffff),
        ("zero without a cluster", 0, 0xffff_ffff << 32),
        ("the first is allocated, the rest zero", data, 0xffff_fffe_0000_0001),
        ("compressed with a bitmap", 1 << 62 | data, 1),
        ("the zero bit of plain entries", data | 1, 0xffff_ffff),
        ("an unaligned cluster", data + 512, 0xffff_ffff),
        ("a cluster past the end", 1 << 40, 0xffff_ffff),
        ("every other one", data, 0x5555_5555),
        ("nothing of a cluster", data, 0),
    ]
    .into_iter()
    .map(|(name, entry, bitmap)| {
        Hostile::new(name, &base, &[at_table[0], (l2, 8, entry), (l2 + 8, 8, bitmap)])
    })
    .collect();
    assert_hostile(&rows);
}

#[test]
fn an_image_cut_anywhere() {
    let base = base("");
    let mut lengths: Vec<usize> = (0..128).chain((128..1024).step_by(24)).collect();
    for cluster in 1..=base.len() / CLUSTER {
        lengths.extend([
            cluster * CLUSTER - 1,
            cluster * CLUSTER,
            cluster * CLUSTER + 8,
            cluster * CLUSTER + 1000,
        ]);
    }
    let rows: Vec<Hostile> = lengths
        .into_iter()
        .filter(|&length| length <= base.len())
        .map(|length| Hostile::new(format!("cut to {length}"), &base[..length], &[]))
        .collect();
    assert!(rows.len() >= 200, "only {} rows", rows.len());
    assert_hostile(&rows);
}

/// An image whose every L1 entry leads to one L2 table, every other entry of which is data: a walk of 2^28 steps.
fn one_table_everywhere(bench: &Bench) -> &'static str {
    let name = "endless.qcow2";
    bench.make(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", name, "128G"]);
    let mut bytes = fs::read(bench.path(name)).unwrap();
    let (l1, entries) = (number(&bytes, 40) as usize, number(&bytes, 36) as usize >> 32);
    let l2 = (l1 + 8 * entries).next_multiple_of(512);
    // qemu-img leaves the end of the refcount table to the imagination.
    bytes.resize(l2 + (1 << 20), 0);
    for index in 0..entries {
        bytes[l1 + 8 * index..][..8].copy_from_slice(&(1 << 63 | l2 as u64).to_be_bytes());
    }
    for index in (0..64).step_by(2) {
        bytes[l2 + 8 * index..][..8].copy_from_slice(&(1_u64 << 63 | 512).to_be_bytes());
    }
    fs::write(bench.path(name), bytes).unwrap();
    name
}

/// docs/quirks.md: qemu-img walks it, for minutes.
#[test]
fn more_tables_than_fit_into_the_file_are_refused() {
    let bench = Bench::new();
    let file = one_table_everywhere(&bench);
    let begin = Instant::now();
    let said = bench.instar(&["measure", "-O", "qcow2", file]);
    assert!(begin.elapsed() < SOON && said.code == Some(1), "{said}");
    assert!(said.stderr.ends_with("(corrupt: L1 table)\n"), "{said}");
}

/// A hole behind it all: now there could be as many tables, but the file does not store them.
#[test]
fn more_tables_than_the_file_stores_are_refused() {
    let bench = Bench::new();
    let file = one_table_everywhere(&bench);
    fs::File::options().write(true).open(bench.path(file)).unwrap().set_len(4 << 30).unwrap();
    let begin = Instant::now();
    let said = bench.instar(&["measure", "-O", "qcow2", file]);
    assert!(begin.elapsed() < SOON && said.code == Some(1), "{said}");
    assert!(said.stderr.ends_with("(corrupt: L1 table)\n"), "{said}");
}

#[test]
fn long_work_is_stopped_at_the_deadline() {
    let bench = Bench::new();
    let row = images::hostile::rows().into_iter().find(|row| row.id == "G07-luks-iterations-2-26").unwrap();
    row.write(bench.directory()).unwrap();
    let options = format!("driver=luks,key-secret=key,file.filename={}", row.path());
    let secret = "secret,id=key,data=x";
    let begin = Instant::now();
    let said = bench.instar(&["measure", "--timeout", "1", "--object", secret, "--image-opts", &options]);
    assert!(begin.elapsed() < SOON, "{said}");
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.lines().count()), (Some(1), "", 1), "{said}");
    assert!(said.stderr.contains("within 1 seconds (see --timeout) (timeout)"), "{said}");
}

/// The limits that cloud services set for `qemu-img`: 1 GiB of address space, 2 seconds of processor time.
#[test]
fn a_gibibyte_and_two_seconds_are_enough() {
    let bench = Bench::new();
    bench.make(&["create", "-q", "-f", "qcow2", "a.qcow2", "1T"]);
    for arguments in [
        &["measure", "-O", "qcow2", "--size", "1T"][..],
        &["measure", "-O", "qcow2", "a.qcow2"],
        &["measure", "-O", "raw", "--output=json", "a.qcow2"],
    ] {
        let mut command = bench.command(env!("CARGO_BIN_EXE_instar"));
        command.args(arguments);
        let limit = |resource, value| {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            // SAFETY: the pointer is to a local of the right type.
            match unsafe { libc::setrlimit(resource, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec, the closure makes system calls and nothing else.
        unsafe {
            command.pre_exec(move || {
                limit(libc::RLIMIT_AS, 1 << 30)?;
                limit(libc::RLIMIT_CPU, 2)
            });
        }
        let said = Said::by(&mut command);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{arguments:?}: {said}");
    }
}
