//! `inspect`: its verdict on images that are sound and on the hostile corpus, as docs/inspect.md has them, and what its
//! options make of it.

mod common;

use std::{collections::BTreeMap, env, fs, path::Path, sync::Mutex};

use common::{Bench, Said, assert_none, corpus, differences};
use images::{
    hostile::{Row, Verdict, rows},
    sound,
};
use protocol::{Code, Weight};
use serde_json::Value;

const DOCUMENTATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/inspect.md");
/// The line behind which the documentation is made by these tests.
const MADE: &str = "## Verdicts\n";

/// An image that must not be refused: its name, and what stands before it on the command line.
struct Legitimate {
    name: String,
    options: Vec<&'static str>,
}

impl Legitimate {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: Vec::new() }
    }
}

/// What `inspect` says in JSON of a file within the limits that callers set.
fn inspect(bench: &Bench, options: &[&str], file: &str) -> (Said, Option<Value>) {
    let mut command = bench.command("prlimit");
    command.args(["--as=1073741824", "--cpu=2"]).arg(env!("CARGO_BIN_EXE_instar"));
    let said = Said::by(command.args(["inspect", "--output", "json"]).args(options).arg(file));
    let value = serde_json::from_str(&said.stdout).ok();
    (said, value)
}

/// The codes in a list of findings, each once.
fn codes(value: &Value, list: &str) -> Vec<String> {
    let mut codes: Vec<String> = Vec::new();
    for finding in value[list].as_array().unwrap() {
        let code = finding["code"].as_str().unwrap().to_owned();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    codes
}

/// Makes sound images of all kinds.
fn legitimate(bench: &Bench) -> Vec<Legitimate> {
    let mut images: Vec<Legitimate> = Vec::new();
    // qemu-img makes a VMDK without a byte that it does not read.
    let made = corpus(bench.directory(), "*").into_iter().filter(|name| name != "size-0.vmdk");
    for name in made {
        let options = match &*name {
            "size-300T-256k.qcow2" | "size-8P-2M.qcow2" => vec!["--max-virtual-size", "8P"],
            _ => Vec::new(),
        };
        images.push(Legitimate { name, options });
    }
    for image in sound::images() {
        image.file.write(&bench.path(&image.name)).unwrap();
        let options = image.format.map_or_else(Vec::new, |format| vec!["-f", format]);
        images.push(Legitimate { name: image.name, options });
    }
    for (name, line) in [
        ("vdi", "create -q -f vdi disk.vdi 10M"),
        ("vdi", "create -q -f vdi -o static=on static.vdi 10M"),
        ("vdi", "convert -O vdi sparse.vmdk data.vdi"),
        ("qed", "create -q -f qed disk.qed 10M"),
        ("qed", "convert -O qed sparse.vmdk data.qed"),
        ("qcow", "create -q -f qcow disk.qcow 10M"),
        ("qcow", "convert -O qcow sparse.vmdk data.qcow"),
        ("parallels", "create -q -f parallels disk.parallels 10M"),
        ("parallels", "convert -O parallels sparse.vmdk data.parallels"),
        ("vmdk", "convert -O vmdk -o adapter_type=lsilogic,hwversion=7 sparse.vmdk lsilogic.vmdk"),
        ("vmdk", "convert -O vmdk -o subformat=streamOptimized,compat6 sparse.vmdk stream-data.vmdk"),
        ("vhdx", "convert -O vhdx -o subformat=dynamic,log_size=2M sparse.vmdk data.vhdx"),
    ] {
        bench.make(&line.split(' ').collect::<Vec<_>>());
        let file = line.split(' ').rfind(|word| word.ends_with(name)).unwrap();
        images.push(Legitimate::new(file));
    }
    let secret = ["--object", "secret,id=key,data=key"];
    for (file, line) in [
        ("disk.luks", "create -q -f luks -o key-secret=key,iter-time=10 disk.luks 1M"),
        (
            "encrypted.qcow2",
            "create -q -f qcow2 -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 encrypted.qcow2 1M",
        ),
    ] {
        let (first, rest) = line.split_once(' ').unwrap();
        let words: Vec<&str> = [first].into_iter().chain(secret).chain(rest.split(' ')).collect();
        bench.make(&words);
        images.push(Legitimate { name: file.into(), options: vec!["--allow-encrypted"] });
    }
    // What only these programs make; both are in every Debian.
    for (file, program, options) in [("mkfs.ext4.raw", "mkfs.ext4", "-q -F"), ("mkswap.raw", "mkswap", "")] {
        fs::File::create(bench.path(file)).unwrap().set_len(4 << 20).unwrap();
        let line = format!("PATH=$PATH:/sbin:/usr/sbin exec {program} {options} {file}");
        let said = Said::by(bench.command("sh").args(["-c", &line]));
        assert_eq!(said.code, Some(0), "{program}: {said}");
        images.push(Legitimate::new(file));
    }
    images
}

/// A table of the documentation, its rows in the order of `rows`.
fn table(head: &str, rows: &BTreeMap<usize, String>) -> String {
    let columns = head.matches('|').count() - 1;
    let lines: String = rows.values().map(|row| format!("{row}\n")).collect();
    format!("{head}\n{}\n{lines}", "|---".repeat(columns) + "|")
}

/// What the sound ones are found to be; none is refused.
fn of_legitimate(images: &[Legitimate], bench: &Bench) -> (Vec<String>, String) {
    let lines = Mutex::new(BTreeMap::new());
    let found = differences(&(0..images.len()).collect::<Vec<_>>(), |&index| {
        let Legitimate { name, options } = &images[index];
        let (said, value) = inspect(bench, options, name);
        let value = value.filter(|value| said.code == Some(0) && value["verdict"] == "safe");
        let Some(value) = value.filter(|_| said.stderr.is_empty()) else {
            return Some(format!("{name}: {said}"));
        };
        let (format, notes) =
            (value["format"].as_str().unwrap().to_owned(), codes(&value, "notes").join(", "));
        let options = options.join(" ");
        lines.lock().unwrap().insert(index, format!("| {name} | {options} | {format} | safe | {notes} |"));
        None
    });
    let lines = lines.into_inner().unwrap();
    (found, table("| image | options | format | verdict | notes |", &lines))
}

/// What is wrong with what is said of a row.
fn complaint(row: &Row, said: &Said, value: Option<&Value>) -> Option<&'static str> {
    let verdict = value.and_then(|value| value["verdict"].as_str());
    match row.verdict() {
        _ if said.stdout.contains(|c: char| c.is_control() && c != '\n') => {
            Some("passes on what an image would write to a terminal")
        }
        Verdict::Failure => (said.code != Some(2) || value.is_some()).then_some("has a verdict"),
        _ if !said.stderr.is_empty() => Some("has something on stderr"),
        Verdict::Safe => ((said.code, verdict) != (Some(0), Some("safe"))).then_some("is refused"),
        Verdict::Refuse(expected) => {
            let reasons = value.map(|value| codes(value, "reasons")).unwrap_or_default();
            let fits = reasons.iter().any(|reason| expected.contains(&&**reason));
            ((said.code, verdict, fits) != (Some(1), Some("refuse"), true))
                .then_some("is not refused, or for another reason")
        }
    }
}

/// What the hostile corpus is found to be.
fn of_hostile(bench: &Bench) -> (Vec<String>, String) {
    let (rows, lines) = (rows(), Mutex::new(BTreeMap::new()));
    let found = differences(&(0..rows.len()).collect::<Vec<_>>(), |&index| {
        let row = &rows[index];
        row.write(bench.directory()).unwrap_or_else(|error| panic!("{}: {error}", row.id));
        let mut options = vec!["--max-virtual-size", "4T"];
        options.extend(row.format.into_iter().flat_map(|format| ["-f", format]));
        let (said, value) = inspect(bench, &options, &row.path());
        fs::remove_dir_all(bench.path(row.id)).unwrap();
        if let Some(wrong) = complaint(row, &said, value.as_ref()) {
            return Some(format!("{}: {}: {wrong}: {:?}\n{said}", row.id, row.trick, row.verdict()));
        }
        let (verdict, why) = match &value {
            Some(value) => {
                let (reasons, notes) = (codes(value, "reasons"), codes(value, "notes"));
                (value["verdict"].as_str().unwrap().to_owned(), [reasons, notes].concat().join(", "))
            }
            None => ("none".into(), "usage".into()),
        };
        lines.lock().unwrap().insert(index, format!("| {} | {verdict} | {why} | {} |", row.id, row.trick));
        None
    });
    let lines = lines.into_inner().unwrap();
    (found, table("| image | verdict | reasons, notes | trick |", &lines))
}

/// With `INSTAR_WRITE_DOCS` set, the documentation is made what it should be.
#[test]
fn every_image_has_its_verdict_and_the_documentation_says_so() {
    let bench = Bench::new();
    let images = legitimate(&bench);
    assert!(images.len() >= 60, "only {} images", images.len());
    let (found, legitimate) = of_legitimate(&images, &bench);
    assert_none(&found, images.len());
    let (found, hostile) = of_hostile(&bench);
    assert_none(&found, rows().len());

    let text = fs::read_to_string(DOCUMENTATION).unwrap();
    let (written, _) = text.split_once(MADE).expect("docs/inspect.md has a place for the verdicts");
    let expected = format!(
        "{written}{MADE}\nMade by `INSTAR_WRITE_DOCS=1 cargo test -p instar --test inspect`, which also holds them.\n\n### Sound images\n\nThose of `images/corpus.sh`, of `images/src/sound.rs` and of tools.\n\n{legitimate}\n### The hostile corpus\n\nThose of `images/src/hostile`, with `--max-virtual-size 4T` and, where the table of the corpus names a format, `-f`.\n\n{hostile}"
    );
    if env::var_os("INSTAR_WRITE_DOCS").is_some() {
        fs::write(DOCUMENTATION, &expected).unwrap();
    } else {
        let first = text.lines().zip(expected.lines()).find(|(old, new)| old != new);
        assert!(text == expected, "docs/inspect.md is not up to date: {first:?}");
    }
}

#[test]
fn every_code_is_documented_with_its_weight() {
    let text = fs::read_to_string(Path::new(DOCUMENTATION)).unwrap();
    let listed: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = Code::ALL
        .iter()
        .map(|&code| {
            let lifted = match code.weight() {
                Weight::Note => "only noted".to_owned(),
                Weight::Allowable if code == Code::Encrypted => {
                    "`--allow-encrypted`, `--allow encrypted`".to_owned()
                }
                Weight::Allowable => format!("`--allow {}`", code.name()),
                Weight::Limit => match code {
                    Code::FormatNotAllowed => "`--require-format`".to_owned(),
                    Code::VirtualSize => "`--max-virtual-size`".to_owned(),
                    _ => "`--max-file-size`".to_owned(),
                },
                Weight::Refusal => "nothing".to_owned(),
            };
            format!("| `{}` | {lifted} | {} |", code.name(), code.about())
        })
        .collect();
    let codes: Vec<&&str> = listed.iter().filter(|line| !line.starts_with("| `-")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(codes.into_iter().copied().collect::<Vec<_>>(), expected);
}

/// A bench with an image of each kind that an option is about.
fn bench() -> Bench {
    let bench = Bench::new();
    for line in [
        "create -q -f raw base.raw 1M",
        "create -q -f qcow2 plain.qcow2 1G",
        "create -q -f qcow2 -b base.raw -F raw over.qcow2",
        "create -q -f qcow2 -o data_file=data.raw data.qcow2 1M",
        "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M",
        "create -q --object secret,id=key,data=key -f luks -o key-secret=key,iter-time=10 disk.luks 1M",
        "create -q -f vpc -o subformat=fixed,force_size=on fixed.vhd 1M",
    ] {
        bench.make(&line.split(' ').collect::<Vec<_>>());
    }
    bench
}

/// Exit code and reasons.
fn verdict(bench: &Bench, line: &str) -> (Option<i32>, String) {
    let (options, file) = line.rsplit_once(' ').unwrap_or(("", line));
    let options: Vec<&str> = options.split(' ').filter(|word| !word.is_empty()).collect();
    let (said, value) = inspect(bench, &options, file);
    let reasons = value.map_or(said.stderr, |value| codes(&value, "reasons").join(","));
    (said.code, reasons)
}

#[test]
fn options_lift_what_they_say_and_nothing_else() {
    let bench = bench();
    for (line, code, reasons) in [
        ("plain.qcow2", 0, ""),
        ("--require-format raw,qcow2 plain.qcow2", 0, ""),
        ("--require-format raw --require-format qcow2 plain.qcow2", 0, ""),
        ("--require-format raw plain.qcow2", 1, "format-not-allowed"),
        ("-f raw --require-format raw plain.qcow2", 1, "ambiguous-format"),
        ("-f raw --allow ambiguous-format plain.qcow2", 0, ""),
        ("--max-virtual-size 1G plain.qcow2", 0, ""),
        ("--max-virtual-size 1023M plain.qcow2", 1, "virtual-size"),
        ("--max-virtual-size 1023M --max-file-size 1k plain.qcow2", 1, "virtual-size,file-size"),
        ("over.qcow2", 1, "backing-file"),
        ("--allow backing-file over.qcow2", 0, ""),
        ("--allow data-file over.qcow2", 1, "backing-file"),
        ("data.qcow2", 1, "data-file"),
        ("--allow backing-file,data-file data.qcow2", 0, ""),
        ("flat.vmdk", 1, "extent-file"),
        ("--allow backing-file --allow extent-file flat.vmdk", 0, ""),
        ("disk.luks", 1, "encrypted"),
        ("--allow-encrypted disk.luks", 0, ""),
        ("--allow encrypted disk.luks", 0, ""),
        ("fixed.vhd", 0, ""),
        ("-f vpc --require-format vpc fixed.vhd", 0, ""),
        ("-U plain.qcow2", 0, ""),
    ] {
        assert_eq!(verdict(&bench, line), (Some(code), reasons.to_owned()), "{line}");
    }
}

#[test]
fn what_is_no_verdict_exits_with_2() {
    let bench = bench();
    for (line, text) in [
        (
            "nosuch.raw",
            "instar: Could not open 'nosuch.raw': Could not open 'nosuch.raw': No such file or directory (io)\n",
        ),
        ("-f nosuch base.raw", "instar: Could not open 'base.raw': Unknown driver 'nosuch' (usage)\n"),
        ("--allow corrupt base.raw", "instar: 'corrupt' cannot be allowed (usage)\n"),
        ("--allow nosuch base.raw", "instar: Unknown code 'nosuch' (--allow) (usage)\n"),
        (
            "json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":\"file\",\"filename\":\"base.raw\"}}",
            "instar: A file can be inspected, not what a description makes of it (usage)\n",
        ),
    ] {
        assert_eq!(verdict(&bench, line), (Some(2), text.to_owned()), "{line}");
    }
    for line in
        ["inspect", "inspect a b", "inspect --nosuch base.raw", "inspect --max-virtual-size x base.raw"]
    {
        let said = bench.instar(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{line}: {said}");
    }
    let said = bench.drop_in(&["inspect", "base.raw"]);
    assert!(said.stderr.starts_with("qemu-img: Command not found: inspect\n"), "{said}");
}

#[test]
fn nothing_that_an_image_names_is_opened() {
    let bench = bench();
    for file in ["base.raw", "data.raw", "flat-flat.vmdk"] {
        fs::remove_file(bench.path(file)).unwrap();
    }
    for (file, role, name) in [
        ("over.qcow2", "backing-file", "base.raw"),
        ("data.qcow2", "data-file", "data.raw"),
        ("flat.vmdk", "extent-file", "flat-flat.vmdk"),
    ] {
        let (said, value) = inspect(&bench, &[], file);
        let reference = &value.unwrap()["references"][0];
        assert_eq!((said.code, said.stderr.as_str()), (Some(1), ""), "{file}");
        assert_eq!((&reference["role"], &reference["name"]), (&role.into(), &name.into()), "{file}");
    }
}

#[test]
fn every_name_of_a_parent_is_told() {
    let bench = Bench::new();
    let row = rows().into_iter().find(|row| row.id == "A24-vhd-several").unwrap();
    row.write(bench.directory()).unwrap();
    let (_, value) = inspect(&bench, &[], &row.path());
    let value = value.unwrap();
    let names: Vec<_> =
        value["references"].as_array().unwrap().iter().map(|reference| &reference["name"]).collect();
    assert_eq!(names, ["C:\\parent.vhd", "file:///etc/passwd"]);
}

#[test]
fn people_read_it_line_by_line() {
    let bench = bench();
    let said = bench.instar(&["inspect", "over.qcow2"]);
    let text = "image: over.qcow2\nverdict: refuse\nreason: backing-file (backing_file_offset): It is an overlay of another image\nfile format: qcow2\n";
    assert!(said.stdout.starts_with(text), "{said}");
    assert!(said.stdout.contains("\nreference: backing-file 'base.raw' (raw)\n"), "{said}");
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), ""));
}
