//! `measure` of VMDK images against the real `qemu-img`, hosted.
//!
//! `qemu-img` is taken from `QEMU_IMG` or the path; its version selects the release that is followed. Without it the
//! test fails.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use formats::{Region, Storage, StorageError};
use protocol::{
    ErrorKind, ErrorRecord, ExtentMap, FileFacts, ImageSource, MeasureAnswer, MeasureRequest, MeasureSubject,
    QemuVersion,
};
use unikernel::{files::Standalone, ops::measure};

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

/// A directory for the images of one test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("measure-vmdk-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// An image of `size` bytes with data in runs of many lengths, none if `runs` is 0.
    fn image(&self, name: &str, options: &str, size: u64, runs: u64) -> PathBuf {
        let raw = self.file("disk.raw");
        let file = fs::File::create(&raw).unwrap();
        file.set_len(size).unwrap();
        for run in 0..runs {
            let offset = run * run * 48_128 % size / 512 * 512;
            let length = usize::try_from((run * 7_168 + 512).min(size - offset)).unwrap();
            file.write_all_at(&vec![run.to_le_bytes()[0] | 1; length], offset).unwrap();
        }
        let path = self.file(name);
        let convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", options];
        assert!(qemu_img().args(convert).args([&raw, &path]).status().unwrap().success(), "{options}");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn qemu_img() -> Command {
    Command::new(std::env::var_os("QEMU_IMG").unwrap_or_else(|| "qemu-img".into()))
}

fn profile() -> QemuVersion {
    let output = qemu_img().arg("--version").output().expect("qemu-img runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(2).expect("a version");
    match version.split('.').next().and_then(|major| major.parse().ok()) {
        Some(..=5) => QemuVersion::V5_2,
        Some(6..=7) => QemuVersion::V7_2,
        Some(8..=10) => QemuVersion::V10_0,
        _ => QemuVersion::V11_1,
    }
}

fn theirs(path: &Path, format: Option<&str>, target: &str, options: &str) -> String {
    let mut command = qemu_img();
    command.args(["measure", "-O", target]);
    if let Some(format) = format {
        command.args(["-f", format]);
    }
    if !options.is_empty() {
        command.args(["-o", options]);
    }
    let output = command.arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ours(
    bytes: &[u8],
    format: Option<&str>,
    target: &str,
    options: &str,
) -> Result<MeasureAnswer, ErrorRecord> {
    let length = bytes.len() as u64;
    let extents = ExtentMap::Inline(vec![]);
    let file = FileFacts { disk: "source".into(), length, allocated: length, extents, named_dmg: false };
    let request = MeasureRequest {
        profile: profile(),
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
    measure::run(&request, &mut Standalone(|_: &FileFacts| Ok(Memory(bytes.to_vec()))))
}

#[test]
fn images_of_one_file_measure_as_they_do_for_qemu_img() {
    let directory = Directory::new("one");
    let mut images = 0;
    for subformat in [
        "subformat=monolithicSparse",
        "subformat=monolithicSparse,zeroed_grain=on",
        "subformat=streamOptimized",
    ] {
        for size in [512, 65_536, 1_000_448, 10 << 20, (64 << 20) + 512, 3 << 30] {
            for runs in [0, 1, 9, 40] {
                let path = directory.image("image.vmdk", subformat, size, runs);
                images += 1;
                for (format, target, options) in [
                    (None, "raw", ""),
                    (Some("vmdk"), "qcow2", ""),
                    (None, "qcow2", "cluster_size=512"),
                    (None, "qcow2", "cluster_size=2M"),
                    (None, "qcow2", "preallocation=full"),
                ] {
                    let answer = ours(&fs::read(&path).unwrap(), format, target, options).unwrap();
                    assert_eq!(answer.bitmaps, None);
                    let said = format!(
                        "required size: {}\nfully allocated size: {}\n",
                        answer.required, answer.fully_allocated
                    );
                    assert_eq!(
                        said,
                        theirs(&path, format, target, options),
                        "{subformat} {size} {runs} {options}"
                    );
                }
            }
        }
    }
    assert!(images >= 40, "{images} images");
}

#[test]
fn an_image_in_several_files_is_refused_by_the_first_of_their_names() {
    let directory = Directory::new("several");
    for (subformat, first) in [
        ("monolithicFlat", "image-flat.vmdk"),
        ("twoGbMaxExtentFlat", "image-f001.vmdk"),
        ("twoGbMaxExtentSparse", "image-s001.vmdk"),
    ] {
        let path = directory.image("image.vmdk", &format!("subformat={subformat}"), 1 << 20, 3);
        let error = ours(&fs::read(&path).unwrap(), None, "qcow2", "").unwrap_err();
        assert_eq!(error.kind, ErrorKind::ReferenceDenied);
        assert_eq!(
            error.message,
            format!("extent file '{first}' is a reference to another file and was not followed")
        );
        assert_eq!(
            (error.disk.as_deref(), error.field.as_deref()),
            (Some("source"), Some("extent description"))
        );
    }
}

#[test]
fn an_image_with_a_parent_is_refused_by_its_name() {
    let directory = Directory::new("parent");
    let base = directory.image("base.vmdk", "subformat=monolithicSparse", 1 << 20, 3);
    let path = directory.file("top.vmdk");
    let create = ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"];
    assert!(qemu_img().args(create).args([&base, &path]).status().unwrap().success());
    let error = ours(&fs::read(&path).unwrap(), None, "raw", "").unwrap_err();
    assert_eq!(error.kind, ErrorKind::ReferenceDenied);
    assert!(error.message.starts_with("backing file '") && error.message.contains("base.vmdk"), "{error}");
    assert_eq!(error.field.as_deref(), Some("parentFileNameHint"));
}

#[test]
fn a_disk_of_zeros_needs_no_file() {
    let text = "version=1\nCID=1\nparentCID=2\ncreateType=\"vmfs\"\nRW 2048 ZERO\n";
    let answer = ours(text.as_ref(), None, "qcow2", "").unwrap();
    assert_eq!((answer.required, answer.fully_allocated), (327_680, 1_376_256));
}
