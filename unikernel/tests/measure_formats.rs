//! `measure` of existing images against the real `qemu-img`, hosted: every format with a few targets.
//!
//! `qemu-img` and `qemu-io` are taken from `QEMU_IMG` and `QEMU_IO` or the path; the version of the former selects the
//! release that is followed.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use formats::{Region, Storage, StorageError};
use protocol::{
    ErrorRecord, ExtentMap, FileFacts, ImageSource, MeasureAnswer, MeasureRequest, MeasureSubject,
    QemuVersion,
};
use rustix::fs::{SeekFrom, seek};
use unikernel::{files::Standalone, ops::measure};

struct Disk(File);

impl Storage for Disk {
    fn len(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn allocated(&self) -> u64 {
        self.0.metadata().unwrap().blocks() * 512
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        buf.fill(0);
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(_) => return Err(StorageError),
            }
        }
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        let at = |from| seek(&self.0, from).unwrap_or(self.len());
        let data = at(SeekFrom::Data(offset));
        Ok(match data > offset {
            true => Region { length: data - offset, hole: true },
            false => Region { length: at(SeekFrom::Hole(offset)) - offset, hole: false },
        })
    }
}

fn tool(variable: &str, name: &str, args: &[&str]) -> Output {
    let program = std::env::var_os(variable).unwrap_or_else(|| name.into());
    Command::new(program).args(args).output().expect("the reference tools run")
}

fn profile() -> QemuVersion {
    let output = tool("QEMU_IMG", "qemu-img", &["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(2).expect("a version").to_owned();
    match version.split('.').next().and_then(|major| major.parse().ok()) {
        Some(..=5) => QemuVersion::V5_2,
        Some(6..=7) => QemuVersion::V7_2,
        Some(8..=10) => QemuVersion::V10_0,
        _ => QemuVersion::V11_1,
    }
}

const TARGETS: [(&str, &str); 5] = [
    ("raw", ""),
    ("qcow2", ""),
    ("qcow2", "cluster_size=512"),
    ("qcow2", "compat=0.10"),
    ("qcow2", "cluster_size=2M"),
];

/// Compares all targets for one image, named by its format and probed.
fn compare(path: &Path, format: &str, profile: QemuVersion) {
    for (target, options) in TARGETS {
        for name in [Some(format), None] {
            // qemu-img may take anything for another format than raw.
            if name.is_none() && format == "raw" {
                continue;
            }
            let mut args = vec!["measure", "-O", target];
            args.extend(name.iter().flat_map(|name| ["-f", name]));
            if !options.is_empty() {
                args.extend(["-o", options]);
            }
            args.push(path.to_str().unwrap());
            let output = tool("QEMU_IMG", "qemu-img", &args);
            let theirs = match output.status.success() {
                true => Ok(String::from_utf8(output.stdout).unwrap()),
                false => Err(String::from_utf8(output.stderr).unwrap()),
            };
            let ours = answer(path, name, target, options, profile);
            match (&ours, &theirs) {
                (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{args:?}"),
                (Err(ours), Err(theirs)) => {
                    let line = theirs.lines().next().unwrap_or_default();
                    assert!(line.ends_with(&format!(": {ours}")), "{args:?}: {ours} / {line}");
                }
                _ => panic!("{args:?}: {ours:?} / {theirs:?}"),
            }
        }
    }
}

fn answer(
    path: &Path,
    format: Option<&str>,
    target: &str,
    options: &str,
    profile: QemuVersion,
) -> Result<String, String> {
    let file = FileFacts {
        disk: "source".into(),
        length: 0,
        allocated: 0,
        extents: ExtentMap::Inline(vec![]),
        named_dmg: path.extension().is_some_and(|ending| ending == "dmg"),
    };
    let request = MeasureRequest {
        profile,
        target_format: target.into(),
        options: (!options.is_empty()).then(|| options.into()),
        secrets: vec![],
        beyond: false,
        exact: None,
        compress: false,
        subject: MeasureSubject::Image {
            source: Box::new(ImageSource::new(file, format.map(Into::into))),
            snapshot: None,
        },
    };
    let open = |_: &FileFacts| -> Result<Disk, ErrorRecord> { Ok(Disk(File::open(path).unwrap())) };
    let MeasureAnswer { required, fully_allocated, bitmaps } =
        measure::run(&request, &mut Standalone(open)).map_err(|error| error.message)?;
    let bitmaps = bitmaps.map_or(String::new(), |bitmaps| format!("bitmaps size: {bitmaps}\n"));
    Ok(format!("required size: {required}\nfully allocated size: {fully_allocated}\n{bitmaps}"))
}

/// A directory that is gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("measure-formats-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left behind is a few files in a directory for such.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WRITES: [&[&str]; 3] = [
    &[],
    &["write -P 1 0 4k"],
    &["write -P 1 64k 100k", "write -P 2 1M 512", "write -z 300k 64k", "write -P 3 3000k 8k"],
];

#[test]
fn images_of_every_format_that_qemu_img_writes() {
    let (directory, profile) = (Directory::new("written"), profile());
    let mut images = 0;
    for (format, options) in [
        ("raw", ""),
        ("qcow2", "cluster_size=4k"),
        ("vdi", ""),
        ("vdi", "static=on"),
        ("qcow", ""),
        ("qed", ""),
        ("qed", "cluster_size=4096,table_size=2"),
        ("parallels", ""),
        ("parallels", "cluster_size=31744"),
    ] {
        for size in ["3145728", "10486272", "1073741824"] {
            for (number, writes) in WRITES.iter().enumerate() {
                let path = directory.0.join(format!("{images}.{format}"));
                let name = path.to_str().unwrap();
                let mut args = vec!["create", "-q", "-f", format];
                if !options.is_empty() {
                    args.extend(["-o", options]);
                }
                let output = tool("QEMU_IMG", "qemu-img", &[&args[..], &[name, size]].concat());
                assert!(output.status.success(), "{output:?}");
                if !writes.is_empty() && (size != "3145728" || number == 1) {
                    let mut args = vec!["-f", format];
                    args.extend(writes.iter().flat_map(|write| ["-c", write]));
                    args.push(name);
                    let output = tool("QEMU_IO", "qemu-io", &args);
                    assert!(output.status.success(), "{output:?}");
                }
                File::open(&path).unwrap().sync_all().unwrap();
                compare(&path, format, profile);
                fs::remove_file(&path).unwrap();
                images += 1;
            }
        }
    }
    assert!(images >= 60, "{images} images");
}

#[test]
fn an_encrypted_disk_needs_its_key() {
    let directory = Directory::new("luks");
    let path = directory.0.join("disk.luks");
    let mut header = vec![0; 4096];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    fs::write(&path, header).unwrap();
    compare(&path, "luks", profile());
}

/// What `qemu-img` says of a table that is none depends on the format.
#[test]
fn a_broken_table_is_an_error_of_the_format() {
    let (directory, profile) = (Directory::new("broken"), profile());
    for (format, at, entry) in
        [("qed", 0x1_0000, 1u64.to_le_bytes()), ("qcow", 48, (u64::MAX - 7).to_be_bytes())]
    {
        let path = directory.0.join(format);
        let output =
            tool("QEMU_IMG", "qemu-img", &["create", "-q", "-f", format, path.to_str().unwrap(), "1M"]);
        assert!(output.status.success(), "{output:?}");
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&entry, at).unwrap();
        compare(&path, format, profile);
    }
}

/// An Apple disk image of this many sectors, all of them one chunk of zeros.
fn apple_disk_image(sectors: u64) -> Vec<u8> {
    let mut chunk = [0; 244];
    chunk[..4].copy_from_slice(b"mish");
    chunk[220..228].copy_from_slice(&sectors.to_be_bytes());
    let mut bytes = vec![];
    // The resource fork: where its data is, where its end, how long it is; and how long the first resource is.
    for number in [16_u32, 264, 248, 0, 244] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(chunk);
    let mut trailer = [0; 512];
    trailer[..4].copy_from_slice(b"koly");
    trailer[0x30..0x38].copy_from_slice(&264_u64.to_be_bytes());
    trailer[0x1ec..0x1f4].copy_from_slice(&sectors.to_be_bytes());
    bytes.extend(trailer);
    bytes
}

/// `qemu-img` knows no zeros in these.
#[test]
fn where_the_status_is_not_known_all_is_data() {
    let (directory, profile) = (Directory::new("unknown"), profile());
    let mut bochs = vec![0; 512];
    for (at, field) in [
        (0, &b"Bochs Virtual HD Image"[..]),
        (32, b"Redolog"),
        (48, b"Growing"),
        (64, &0x2_0000_u32.to_le_bytes()),
        (68, &512_u32.to_le_bytes()),
        (72, &64_u32.to_le_bytes()),
        (76, &1_u32.to_le_bytes()),
        (80, &0x1_0000_u32.to_le_bytes()),
        (88, &0x2_0200_u32.to_le_bytes()),
    ] {
        bochs[at..at + field.len()].copy_from_slice(field);
    }
    bochs.resize(512 + 256, 0xff);
    let mut cloop =
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n".to_vec();
    cloop.resize(128, 0);
    cloop.extend(0x1_0200_u32.to_be_bytes());
    cloop.extend(5_u32.to_be_bytes());
    cloop.resize(cloop.len() + 48, 0);
    for (format, bytes) in [("bochs", bochs), ("cloop", cloop), ("dmg", apple_disk_image(2817))] {
        let path = directory.0.join(format!("disk.{format}"));
        fs::write(&path, bytes).unwrap();
        compare(&path, format, profile);
    }
}
