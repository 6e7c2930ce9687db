//! Descriptors: which lines count, and what is refused, held against `qemu-img`.

mod support;

use std::path::{Path, PathBuf};

use formats::ErrorKind::{self, InvalidFormat, Limit, ReferenceDenied, Unsupported};
use formats::{Error, ExtentKind, Format, Image, probe};
use support::vmdk::{self, complaint, descriptor};
use support::{FileStorage, Memory, qemu_img, text, walk};

struct Sample(tempfile::TempDir);

impl Sample {
    /// A directory with a flat file of 100 sectors.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("flat"), vec![1; 51200]).unwrap();
        Self(directory)
    }

    fn write(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join("text.vmdk");
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn size_or_fault(path: &Path) -> Result<u64, String> {
    let image = vmdk::open(path).map_err(|error| error.message)?;
    Ok(image.virtual_size())
}

/// The same by `qemu-img`.
fn theirs(path: &Path) -> Result<u64, String> {
    if let Some(complaint) = complaint(path) {
        return Err(complaint);
    }
    let output = qemu_img(&["measure", "-f", "vmdk", "-O", "raw", text(path)]);
    let said = String::from_utf8(output.stdout).unwrap();
    Ok(said.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap())
}

fn refused(text: &str) -> (ErrorKind, String) {
    let opened = Image::open(Memory::new(text.as_bytes().to_vec()), Some(Format::Vmdk));
    let error = opened.map(|_| ()).unwrap_err();
    (error.kind, error.message)
}

#[test]
fn lines_that_count_and_lines_that_do_not() {
    let sample = Sample::new();
    for line in [
        "",
        "RW 100 FLAT \"flat\" 0",
        "RW 100 FLAT \"flat\" 0\r",
        "  RW\t100   FLAT\t\"flat\"   0 and more",
        "RW +100 FLAT \"flat\" +5",
        "RW 100 FLAT \"flat\" 0\nRW 50 VMFS \"flat\"\nRW 1 FLAT \"flat\" 99",
        "RW 100 FLAT \"flat\" 99999999",
        "RW 0 FLAT \"flat\" 0",
        "rw 100 FLAT \"flat\" 0",
        "RWX 100 FLAT \"flat\" 0",
        "# RW 100 FLAT \"flat\" 0",
        "RW 100 VMFS \"flat",
        "RW 100 VMFS \"flat\" x",
        "RW 36028797018963967 VMFS \"flat\"",
        "RW 18014398507384832 VMFS \"flat\"",
        "RW 18014398507384833 VMFS \"flat\"",
        "RW 99999999999999999999 VMFS \"flat\"",
        "RW 18014398507384832 VMFS \"flat\"\nRW 1 VMFS \"flat\"",
        "RW 100 FLAT \"flat\"",
        "RW 100 FLAT \"flat\" -1",
        "RW 100 FLAT \"flat\" x",
        "RW 100 FLAT \"flat",
        "RW 100 VMFS \"flat\" 0",
        "RW 100 SPARSE \"flat\" 0",
        "RW 100 SESPARSE \"flat\" 0",
        "RW 100 NOSUCH \"flat\" 0",
        "RW 100 ZERO \"flat\" 0",
        "RW 100 SPARSE \"flat\"",
        "RW 100 VMFSSPARSE \"flat\"",
        "RW 100 SESPARSE \"flat\"",
        "RW 100 SPARSE \"text.vmdk\"",
    ] {
        let path = sample.write(descriptor("vmfs", line));
        assert_eq!(size_or_fault(&path), theirs(&path), "{line}");
    }
}

#[test]
fn texts_that_are_descriptors_and_texts_that_are_not() {
    let sample = Sample::new();
    let all = |create_type: &str, cid: &str, parent: &str| {
        format!("version=1\n{create_type}\n{cid}\n{parent}\nRW 100 FLAT \"flat\" 0\n")
    };
    let good = "createType=\"vmfs\"";
    for text in [
        String::new(),
        "x".into(),
        "version=1\n".into(),
        all(good, "CID=1", "parentCID=2"),
        all("createType=vmfs", "CID=1", "parentCID=2"),
        all("createType = \"vmfs\"", "CID=1", "parentCID=2"),
        all("createtype=\"vmfs\"", "CID=1", "parentCID=2"),
        all("createType=\"VMFS\"", "CID=1", "parentCID=2"),
        all("createType=\"monolithicSparse\"", "CID=1", "parentCID=2"),
        all("createType=\"streamOptimized\"", "CID=1", "parentCID=2"),
        all("createType=\"custom\"", "CID=1", "parentCID=2"),
        all("createType=\"\"", "CID=1", "parentCID=2"),
        all(&format!("createType=\"{}\"", "a".repeat(127)), "CID=1", "parentCID=2"),
        all(&format!("createType=\"{}\"", "a".repeat(128)), "CID=1", "parentCID=2"),
        // Of two, the first counts, wherever it is.
        all("#createType=\"vmfs\"\ncreateType=\"custom\"", "CID=1", "parentCID=2"),
        all("createType=\"custom\"\ncreateType=\"vmfs\"", "CID=1", "parentCID=2"),
        all(good, "", "parentCID=2"),
        format!("{good}\nCID=1\nparentCID=2\n\0RW 100 FLAT \"flat\" 0"),
        format!("{good}\nCID=1\nparentCID=2\nRW 100 FLAT \"flat\" 0"),
        format!("{good}\nCID=1\nparentCID=2\nRW 100 FLAT \"flat\" 0\n\0\u{1}\u{2}binary"),
    ] {
        let path = sample.write(&text);
        assert_eq!(size_or_fault(&path), theirs(&path), "{text}");
    }
    for (text, field) in [
        (all(good, "CID=zz", "parentCID=2"), "CID"),
        (all(good, "CID=1\0", "parentCID=2"), "parentCID"),
        (all(good, "CID=1", ""), "parentCID"),
        (all(good, "CID=1", "parentCID=x"), "parentCID"),
        (format!("{good}\nCID=1\nparentCID=2\nparentFileNameHint=\"a"), "parentFileNameHint"),
    ] {
        // No words in qemu-img, but for the number of the error.
        let path = sample.write(&text);
        let invalid = format!("Could not open '{}': Invalid argument", path.display());
        assert_eq!(theirs(&path), Err(invalid), "{text}");
        assert_eq!(vmdk::open(&path).err().unwrap().field, field, "{text}");
    }
}

/// `qemu-img` leaves these parts of the disk out, so that all behind them moves.
#[test]
fn parts_of_a_disk_are_never_left_out() {
    let sample = Sample::new();
    let invalid = |line: &str| (InvalidFormat, format!("Invalid extent line: {line}"));
    let access = |name| (Unsupported, format!("Unsupported extent access '{name}'"));
    for (line, expected) in [
        ("RDONLY 100 FLAT \"flat\" 0", access("RDONLY")),
        ("NOACCESS 100 FLAT \"flat\" 0", access("NOACCESS")),
        ("RW 100 VMFSRDM \"flat\"", (Unsupported, "Unsupported extent type 'VMFSRDM'".into())),
        ("RW 100 VMFSRAW \"flat\"", (Unsupported, "Unsupported extent type 'VMFSRAW'".into())),
        ("RW 0x10 VMFS \"flat\"", invalid("RW 0x10 VMFS \"flat\"")),
        ("RW -5 VMFS \"flat\"", invalid("RW -5 VMFS \"flat\"")),
        ("RW 100 VMFS flat", invalid("RW 100 VMFS flat")),
        ("RW 100 VMFS \"\"", invalid("RW 100 VMFS \"\"")),
        ("RW", invalid("RW")),
    ] {
        let text = descriptor("vmfs", line);
        assert_eq!(refused(&text), expected, "{line}");
        assert_eq!(theirs(&sample.write(text)), Ok(0), "{line}");
    }
}

#[test]
fn extents_of_zeros_are_part_of_the_disk() {
    let sample = Sample::new();
    let lines = "RW 8 ZERO\nRW 100 FLAT \"flat\" 0\nRW 16 ZERO\n";
    let path = sample.write(descriptor("vmfs", lines));
    let mut image = vmdk::open(&path).unwrap();
    assert_eq!(image.references(), [b"flat"]);
    let mut at = |sector: u64| image.extent_at(sector * 512).unwrap();
    assert_eq!(at(0).kind, ExtentKind::Zero { offset: None });
    assert_eq!((at(8).kind, at(8).length), (ExtentKind::Data { offset: 0 }, 51200));
    assert_eq!((at(108).kind, at(108).length), (ExtentKind::Zero { offset: None }, 8192));
    assert_eq!((size_or_fault(&path), theirs(&path)), (Ok(124 * 512), Ok(51200)));
}

/// To `qemu-img` white space is white space, be it the end of a line.
#[test]
fn a_line_is_an_extent_once_and_whole() {
    let sample = Sample::new();
    let path = sample.write(descriptor("vmfs", "\n\nRW 100 VMFS \"flat\""));
    assert_eq!((size_or_fault(&path), theirs(&path)), (Ok(51200), Ok(3 * 51200)));
    let text = descriptor("vmfs", "RW\n100\nVMFS\n\"flat\"");
    assert_eq!(refused(&text), (InvalidFormat, "Invalid extent line: RW".into()));
    assert_eq!(theirs(&sample.write(text)), Ok(51200));
    let text = descriptor("vmfs", "RW 100 FLAT \"flat\"\n0");
    assert_eq!(refused(&text).0, InvalidFormat);
    assert_eq!(theirs(&sample.write(text)), Ok(51200));
}

#[test]
fn long_descriptors_are_refused_and_not_cut() {
    let sample = Sample::new();
    let max = (1 << 20) - 1;
    let start = descriptor("vmfs", "RW 100 VMFS \"flat\"");
    let filled = |length: usize| start.clone() + &"#".repeat(length - start.len());
    let path = sample.write(filled(max));
    assert_eq!((size_or_fault(&path), theirs(&path)), (Ok(51200), Ok(51200)));
    let path = sample.write(filled(max + 1));
    assert_eq!(theirs(&path), Ok(51200));
    assert_eq!(vmdk::open(&path).err().unwrap().kind, Limit);
    // What follows a NUL is not text.
    let path = sample.write(filled(max - 1) + "\0" + &"x".repeat(1 << 20));
    assert_eq!((size_or_fault(&path), theirs(&path)), (Ok(51200), Ok(51200)));
}

#[test]
fn a_disk_of_ten_thousand_extents_is_refused() {
    let text = descriptor("vmfs", &"RW 1 VMFS \"flat\"\n".repeat(10_000));
    assert_eq!(refused(&text), (Limit, "Disk has more than 1024 extents".into()));
}

/// The parent's name is found where `qemu-img` does not look any more.
#[test]
fn a_parent_behind_ten_kilobytes_counts() {
    let sample = Sample::new();
    let late = descriptor("vmfs", &format!("#{}\nparentFileNameHint=\"base\"", "x".repeat(10_240)));
    let path = sample.write(late);
    assert_eq!(theirs(&path), Ok(0));
    assert_eq!(vmdk::open(&path).unwrap().backing().unwrap().name, b"base");
}

#[test]
fn names_are_handed_out_as_they_are_and_never_opened() {
    let names =
        ["/etc/hostname", "../../x", "/proc/self/mem", "json:{}", "nbd://x", "a\u{1b}[31m", "text.vmdk"];
    let lines: String = names.iter().map(|name| format!("RW 8 FLAT \"{name}\" 0\n")).collect();
    let text = descriptor("monolithicFlat", &lines).into_bytes();
    let mut image = Image::open(Memory::new(text), None).unwrap();
    let found: Vec<_> = image.references().iter().map(|name| String::from_utf8_lossy(name)).collect();
    assert_eq!(found, names);
    assert_eq!(image.virtual_size(), 7 * 4096);
    let error = image.extent_at(0).unwrap_err();
    assert_eq!((error.kind, error.file.reference()), (ReferenceDenied, Some(0)));
    assert_eq!(image.attach(Vec::new()).unwrap_err().kind, ReferenceDenied);
    assert_eq!(image.extent_at(5 * 4096).unwrap_err().file.reference(), Some(5));
    let files = || (0..7).map(|_| Memory::new(vec![1; 4096])).collect::<Vec<_>>();
    image.attach(files()).unwrap();
    assert_eq!(walk(&mut image).unwrap().len(), 7);
}

/// A name inside a file that was handed in is not looked at: neither a descriptor nor a header in front of one.
#[test]
fn an_extent_is_no_descriptor() {
    let text = descriptor("vmfs", "RW 8 SPARSE \"x\"");
    let mut header = b"KDMV".to_vec();
    header.resize(512, 0);
    vmdk::patch(&mut header, &[(4, 4, 1), (28, 8, 1)]);
    header.extend(text.bytes());
    for (file, message) in [
        (text.clone().into_bytes(), "Image not in VMDK format"),
        (header, "Sparse header without capacity stands before a descriptor"),
        (Vec::new(), "File is too small, not a valid image"),
    ] {
        let mut image = Image::open(Memory::new(text.clone().into_bytes()), None).unwrap();
        let error = image.attach(vec![Memory::new(file)]).unwrap_err();
        assert_eq!((error.message.as_str(), error.file.reference()), (message, Some(0)));
        let Error { kind, .. } = image.extent_at(0).unwrap_err();
        assert_eq!(kind, ReferenceDenied);
    }
}

#[test]
fn descriptors_are_told_by_their_first_lines() {
    let sample = Sample::new();
    let rest = "createType=\"vmfs\"\nCID=1\nparentCID=2\nRW 8 VMFS \"flat\"\n";
    for start in [
        "version=1\n",
        "version=2\r\n",
        "version=3\n",
        "version=4\n",
        "version=1 \n",
        "Version=1\n",
        "# Disk DescriptorFile\n",
        "# Disk DescriptorFile\nversion=1\n",
        "# Disk DescriptorFile\r\nversion=1\r\n",
        "# Disk DescriptorFile\n\nversion=1\n",
        "# Disk DescriptorFile\n  \nversion=1\n",
        "# Disk DescriptorFile\n \r\nversion=1\n",
        "#\n\r\nversion=1\n",
        "\nversion=1\n",
        " \nversion=1\n",
        " version=1\n",
        "\tversion=1\n",
        "\u{feff}# Disk DescriptorFile\nversion=1\n",
        &format!("#{}\nversion=1\n", "x".repeat(500)),
        &format!("#{}\nversion=1\n", "x".repeat(501)),
        &format!("#{}\nversion=1\r\n", "x".repeat(499)),
        &format!("#{}\nversion=1\r\n", "x".repeat(500)),
    ] {
        let path = sample.write(format!("{start}{rest}"));
        let format = probe(&mut FileStorage::open(&path)).unwrap();
        let output = qemu_img(&["info", text(&path)]);
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.starts_with("file format: "));
        assert_eq!(line, Some(format!("file format: {}", format.name()).as_str()), "{start:?}");
    }
    let wide: Vec<u8> =
        "# Disk DescriptorFile\nversion=1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(probe(&mut &wide[..]), Ok(Format::Raw));
}
