//! What tests of whole images need: files of a directory as the files of a command, and the reference tools.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use formats::{Region, Storage, StorageError};
use protocol::{
    ErrorKind, ErrorRecord, ExtentMap, FileFacts, ImageSource, MeasureAnswer, MeasureRequest, MeasureSubject,
    Need, QemuVersion,
};
use rustix::fs::{SeekFrom, seek};
use unikernel::{files::Files, ops::measure};

/// A file of the host.
pub struct Disk(File);

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

/// Files that may be anywhere: what an image names is beside it.
#[derive(Default)]
pub struct Beside {
    paths: BTreeMap<String, PathBuf>,
    /// What was asked for, in order.
    pub needs: Vec<Need>,
}

impl Beside {
    /// Gives a file a serial.
    pub fn add(&mut self, path: &Path) -> FileFacts {
        let disk = format!("disk.{}", self.paths.len());
        self.paths.insert(disk.clone(), path.to_owned());
        FileFacts { disk, length: 0, allocated: 0, extents: ExtentMap::Inline(vec![]), named_dmg: false }
    }
}

impl Files for Beside {
    type Storage = Disk;

    fn open(&mut self, facts: &FileFacts) -> Result<Disk, ErrorRecord> {
        Ok(Disk(File::open(&self.paths[&facts.disk]).unwrap()))
    }

    fn need(&mut self, need: &Need) -> Result<FileFacts, ErrorRecord> {
        self.needs.push(need.clone());
        let name = need.name.strip_prefix("file:").unwrap_or(&need.name);
        let path = self.paths[&need.of].parent().unwrap().join(name);
        match File::open(&path) {
            Ok(_) => Ok(self.add(&path)),
            Err(_) => {
                let message = format!("Could not open '{}': No such file or directory", path.display());
                Err(ErrorRecord::new(ErrorKind::Io, message))
            }
        }
    }
}

/// What is measured, for the target qcow2 with `options`.
pub fn request(source: ImageSource, options: &str, snapshot: Option<&str>) -> MeasureRequest {
    MeasureRequest {
        profile: profile(),
        target_format: "qcow2".into(),
        options: (!options.is_empty()).then(|| options.into()),
        secrets: vec![],
        beyond: false,
        exact: None,
        compress: false,
        subject: MeasureSubject::Image { source: Box::new(source), snapshot: snapshot.map(Into::into) },
    }
}

/// The answer about the image at `path`.
pub fn measure(path: &Path, options: &str, snapshot: Option<&str>) -> Result<MeasureAnswer, ErrorRecord> {
    let mut files = Beside::default();
    let source = ImageSource::new(files.add(path), None);
    measure::run(&request(source, options, snapshot), &mut files)
}

/// The answer as `qemu-img` prints it, behind its name.
pub fn printed(answer: Result<MeasureAnswer, ErrorRecord>, image: &str) -> Result<String, String> {
    match answer {
        Ok(MeasureAnswer { required, fully_allocated, bitmaps }) => {
            let bitmaps = bitmaps.map_or(String::new(), |bitmaps| format!("bitmaps size: {bitmaps}\n"));
            Ok(format!("required size: {required}\nfully allocated size: {fully_allocated}\n{bitmaps}"))
        }
        Err(error) => {
            let file = error.disk.map_or(String::new(), |_| format!("Could not open '{image}': "));
            Err(format!("qemu-img: {file}{}\n", error.message))
        }
    }
}

/// What `qemu-img` says of it.
pub fn qemu_measure(image: &[&str], options: &str) -> Result<String, String> {
    let mut args = vec!["measure", "-O", "qcow2"];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend(image);
    let output = tool("QEMU_IMG", "qemu-img", &args);
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

const OPTIONS: [&str; 3] = ["", "cluster_size=512", "cluster_size=2M,compat=0.10"];

/// Whether both say the same of the image, probed, with some options of the target.
pub fn agree(path: &Path) {
    for options in OPTIONS {
        let theirs = qemu_measure(&[text(path)], options);
        assert_eq!(printed(measure(path, options, None), text(path)), theirs, "{path:?} {options}");
    }
}

/// Whether both find the same fault in the image.
pub fn agree_on_fault(path: &Path) -> String {
    let ours = printed(measure(path, "", None), text(path));
    assert_eq!(ours, qemu_measure(&[text(path)], ""), "{path:?}");
    ours.unwrap_err()
}

/// Whether both say the same of a snapshot of the image.
pub fn agree_on_snapshot(path: &Path, snapshot: &str) -> Result<String, String> {
    let ours = printed(measure(path, "", Some(snapshot)), text(path));
    assert_eq!(ours, qemu_measure(&["-l", snapshot, text(path)], ""), "{path:?} {snapshot}");
    ours
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tool(variable: &str, name: &str, args: &[&str]) -> Output {
    let program = std::env::var_os(variable).unwrap_or_else(|| name.into());
    Command::new(program).args(args).output().expect("the reference tools run")
}

/// Runs `qemu-img`, which must succeed.
pub fn qemu_img(args: &[&str]) {
    let output = tool("QEMU_IMG", "qemu-img", args);
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Runs commands of `qemu-io` on an image, which must succeed.
pub fn qemu_io(format: &str, path: &Path, commands: &[&str]) {
    let mut args = vec!["-f", format];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    args.push(text(path));
    let output = tool("QEMU_IO", "qemu-io", &args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    File::open(path).unwrap().sync_all().unwrap();
}

/// The release that is followed.
pub fn profile() -> QemuVersion {
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
