//! Questions about files: every image with some targets, and command lines that name files wrongly.

use super::{Question, SECRET, sources};

/// Targets for every image: name and options.
const ALWAYS: [(&str, &str); 3] = [("raw", ""), ("qcow2", ""), ("qcow2", "cluster_size=512")];

/// Targets that the images take in turn.
const IN_TURN: [(&str, &str); 20] = [
    ("qcow2", "compat=0.10"),
    ("qcow2", "cluster_size=4k"),
    ("qcow2", "cluster_size=2M"),
    ("qcow2", "refcount_bits=1,cluster_size=1k"),
    ("qcow2", "refcount_bits=64"),
    ("qcow2", "extended_l2=on,cluster_size=128k"),
    ("qcow2", "preallocation=falloc"),
    ("qcow2", "backing_file=x"),
    ("qcow2", "size=1G,preallocation=metadata"),
    ("raw", "size=1G"),
    ("qcow2", "lazy_refcounts=on,compression_type=zstd"),
    ("qcow2", "data_file=d,data_file_raw=on"),
    ("qcow2", "size=3P"),
    ("qcow2", "cluster_size=3k"),
    ("qcow2", "foo=bar"),
    ("raw", "foo=bar"),
    ("qcow2", "encrypt.format=luks,encrypt.key-secret=nosuch"),
    ("luks", "key-secret=nosuch"),
    ("vmdk", ""),
    ("nosuch", ""),
];

/// How many of those each image takes.
const TURNS: usize = 6;

/// An image that each kind of command line is about.
const IMAGE: &str = "v3-64k.qcow2";

/// All of them.
pub fn questions() -> Vec<Question> {
    let mut turns = IN_TURN.iter().cycle();
    let mut questions = vec![];
    for (index, name) in sources::names().iter().enumerate() {
        let format = name.rsplit('.').next().unwrap();
        // docs/quirks.md: Debian's 5.2 is built without zstd and Parallels.
        let since = if format == "parallels" || name.starts_with("zstd-") { "7.2" } else { "5.2" };
        for (number, &(target, options)) in ALWAYS.iter().chain(turns.by_ref().take(TURNS)).enumerate() {
            let mut arguments = vec!["-O", target];
            // A raw image is not probed: whatever is in it, that is what it is.
            if (index + number) % 2 == 0 || format == "raw" {
                arguments.extend(["-f", format]);
            }
            if !options.is_empty() {
                arguments.extend(["-o", options]);
            }
            arguments.push(name);
            questions.push(Question::new(arguments).since(since));
        }
        questions.push(Question::new(["-f", format, name]).since(since));
        questions.push(Question::new(["-O", "qcow2", "-f", "raw", name]));
    }
    questions.extend(lines());
    questions.push(slow());
    questions
}

/// What may stand on a command line, rightly and wrongly.
fn lines() -> Vec<Question> {
    let mut questions: Vec<Question> = [
        &[][..],
        &["a", "b"],
        &["--size", "1G", "a", "b"],
        &["--size", "1G", IMAGE],
        &[IMAGE, "--size", "1G"],
        &["--size", "1G", "--size", "2G"],
        &["--size", "x", "--size", "1G"],
        &["--size", "1G", "--size", "x"],
        &["-f", "qcow2"],
        &["-f", "qcow2", "--size", "1G"],
        &["-l", "x"],
        &["-l", "x", "--size", "1G"],
        &["-U", IMAGE],
        &["-U", "--size", "1G"],
        &["--force-share", "-O", "qcow2", IMAGE],
        &["-f", "nosuch", IMAGE],
        &["-f", "vmdk", IMAGE],
        &["-f", "vpc", IMAGE],
        &["-f", "vdi", IMAGE],
        &["-f", "qcow", IMAGE],
        &["-f", "qed", IMAGE],
        &["-f", "luks", IMAGE],
        &["-O", "qcow2", "-O", "raw", IMAGE],
        &["-O", "qcow2", "-o", "cluster_size=4k", "-o", "compat=0.10", IMAGE],
        &["-O", "qcow2", "-o", "cluster_size=4k", "-o", "cluster_size=1M", IMAGE],
        &["-O", "qcow2", "-o", ",cluster_size=4k", IMAGE],
        &["-O", "qcow2", "-o", "cluster_size=4k,", IMAGE],
        &["-O", "qcow2", "-o", "", "--size", "1G"],
        &["-O", "qcow2", "-o", "help", "--size", "1G"],
        &["-o", "help"],
        &["-O", "qcow2", "-l", "nosuch", IMAGE],
        &["-O", "qcow2", "-l", "snapshot.id=7", IMAGE],
        &["-O", "qcow2", "-l", "snapshot.id=7,snapshot.name=x", IMAGE],
        &["-O", "qcow2", "-l", "snapshot.foo=7", IMAGE],
        &["-O", "qcow2", "-l", "snapshot.id", IMAGE],
        &["-O", "qcow2", "-l", "snapshot.id=7,foo", IMAGE],
        &["-O", "nosuch", "-l", "nosuch", IMAGE],
        &["-f", "raw", "-l", "nosuch", IMAGE],
        &["-l", "nosuch", "dynamic.vpc"],
        &["-l", "nosuch", "sparse.vmdk"],
        &["missing"],
        &["-O", "nosuch", "missing"],
        &["-O", "qcow2", "-o", "foo=bar", "missing"],
        &[""],
        &["."],
        &["file:missing"],
        &["file:v3-64k.qcow2"],
        &["nosuch:v3-64k.qcow2"],
        &["v3-64k.qcow2/x"],
        &["--", IMAGE],
        &["--object", SECRET, IMAGE],
        &["--object", SECRET, "-O", "raw", "--size", "1G"],
        &["--object", "secret,id=a,data=x", "--object", "secret,id=a,data=y", "--size", "1G"],
        &["--object", "secret,id=a", "--size", "1G"],
        &["--object", "secret,id=1a,data=x", "--size", "1G"],
        &["--object", "secret,id=a,data=x,file=y", "--size", "1G"],
        &["--object", "secret,id=a,data=x,foo=y", "--size", "1G"],
        &["--object", "foo,id=a", "--size", "1G"],
        &["--object", "id=a", "--size", "1G"],
        &["--output", "xml", "--size", "1G"],
        &["--output", "", IMAGE],
        &["--output=", IMAGE],
        &["--output", "xml", "--size", "x"],
        &["--size", "x", "--output", "xml"],
    ]
    .map(|arguments| Question::new(arguments.iter().copied()))
    .into();
    let known_later: [(&str, &[&str]); 19] = [
        ("7.2", &["-f", "parallels", IMAGE]),
        ("10.0", &["--no-such-option"]),
        ("10.0", &["--no-such-option=3"]),
        ("10.0", &["-x"]),
        ("10.0", &["--size"]),
        ("10.0", &["-f"]),
        ("10.0", &["--force-share=3", IMAGE]),
        ("10.0", &["--format", "qcow2", IMAGE]),
        ("10.0", &["--snapshot", "nosuch", IMAGE]),
        ("10.0", &["--target-format", "qcow2", IMAGE]),
        ("10.0", &["--target-format=qcow2", "--options", "cluster_size=4k", IMAGE]),
        ("10.0", &["--source-format", "qcow2", IMAGE]),
        ("10.0", &["--fo", "qcow2"]),
        ("10.0", &["-s", "1G"]),
        ("10.0", &["-s1G"]),
        ("10.0", &["-O", "qcow2", "-s", "x"]),
        ("10.0", &["--s", "1G"]),
        ("10.0", &["--source-f=qcow2", IMAGE]),
        ("10.0", &["-T", "nosuch"]),
    ];
    questions
        .extend(known_later.map(|(since, arguments)| Question::new(arguments.iter().copied()).since(since)));
    questions
}

/// A file in LUKS: it takes qemu-img seconds.
fn slow() -> Question {
    let arguments = ["--object", SECRET, "-O", "luks", "-o", "key-secret=sec0,iter-time=10", IMAGE];
    Question::new(arguments).slow()
}
