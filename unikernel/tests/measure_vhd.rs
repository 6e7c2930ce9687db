//! `measure` of VHD and VHDX images against the real `qemu-img`, hosted: every subformat, sparse and not, into qcow2 and
//! raw; and what is refused.

#[path = "../../formats/tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use images::build::vhdx::{Builder, Change, FULL, locator, log_entry, put_log};
use protocol::{
    ErrorKind, ErrorRecord, ExtentMap, FileFacts, ImageSource, MeasureAnswer, MeasureRequest, MeasureSubject,
    QemuVersion,
};
use support::{FileStorage, Random, qemu_img, qemu_img_ok, qemu_io, text};
use unikernel::{files::Standalone, ops::measure};

fn ours(
    path: &Path,
    format: Option<&str>,
    target: &str,
    options: &str,
) -> Result<MeasureAnswer, ErrorRecord> {
    let file = FileFacts {
        disk: "source".into(),
        length: 0,
        allocated: 0,
        extents: ExtentMap::Inline(vec![]),
        named_dmg: false,
    };
    let request = MeasureRequest {
        profile: QemuVersion::V10_0,
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
    measure::run(&request, &mut Standalone(|_: &FileFacts| Ok(FileStorage::open(path))))
}

fn theirs(path: &Path, format: Option<&str>, target: &str, options: &str) -> (u64, u64) {
    let mut args = vec!["measure", "-O", target];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    if let Some(format) = format {
        args.extend(["-f", format]);
    }
    args.push(text(path));
    let output = qemu_img_ok(&args);
    let numbers: Vec<u64> =
        output.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers.len(), 2, "{output}");
    (numbers[0], numbers[1])
}

fn create(directory: &Path, format: &str, options: &str, size: &str) -> PathBuf {
    let path = directory.join(format!("{options}{size}.{format}"));
    let mut args = vec!["create", "-q", "-f", format];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend([text(&path), size]);
    qemu_img_ok(&args);
    path
}

#[test]
fn images_measure_as_they_do_for_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(41);
    let mut images = 0;
    let kinds: [(&str, &[&str]); 2] = [
        ("vpc", &["", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on"]),
        ("vhdx", &["", "subformat=fixed", "block_size=1M", "block_state_zero=off"]),
    ];
    for (format, all_options) in kinds {
        for options in all_options {
            for size in ["512", "1M", "3000320", "17M", "64M", "200G"] {
                if size == "200G" && options.contains("fixed") {
                    continue;
                }
                let path = create(directory.path(), format, options, size);
                for written in [false, true] {
                    if written {
                        let room = if size == "512" { 1 } else { 2048 };
                        let write = |sector: u64| format!("write -P 1 {} 512", sector * 512);
                        let commands = [write(0), write(random.below(room)), write(random.below(room))];
                        qemu_io(format, &path, &commands.each_ref().map(String::as_str));
                    }
                    std::fs::File::open(&path).unwrap().sync_all().unwrap();
                    images += 1;
                    // Without a format a fixed VHD is a raw file.
                    for format in [Some(format), None] {
                        for (target, list) in [("qcow2", ""), ("qcow2", "cluster_size=4k"), ("raw", "")] {
                            let expected = theirs(&path, format, target, list);
                            let found = ours(&path, format, target, list).unwrap();
                            let what = format!("{} {format:?} {target} {list}", path.display());
                            assert_eq!((found.required, found.fully_allocated), expected, "{what}");
                            assert_eq!(found.bitmaps, None);
                        }
                    }
                }
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    assert!(images >= 60, "{images} images");
}

/// `qemu-img` measures it as if there were no parent.
#[test]
fn a_differencing_vhd_is_refused_by_the_name_of_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "vpc", "", "1M");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[63] = 4;
    bytes[64..68].fill(0);
    let sum = !bytes[..512].iter().map(|&byte| u32::from(byte)).sum::<u32>();
    bytes[64..68].copy_from_slice(&sum.to_be_bytes());
    bytes[576..582].copy_from_slice(b"\0a\0\n\0b");
    std::fs::write(&path, bytes).unwrap();
    let error = ours(&path, None, "qcow2", "").unwrap_err();
    assert_eq!(error.kind, ErrorKind::ReferenceDenied);
    assert_eq!(error.message, "backing file 'a\\nb' is a reference to another file and was not followed");
    assert_eq!(error.field.as_deref(), Some("parent locator"));
    theirs(&path, None, "qcow2", "");
}

/// `qemu-img` opens neither a VHDX that has a parent nor, read-only, one with a dirty log, nor one of 4096-byte sectors.
#[test]
fn vhdx_images_that_qemu_img_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vhdx");
    let write = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        assert!(!qemu_img(&["measure", "-O", "qcow2", text(&path)]).status.success());
    };
    let parent = Some(locator(&[("relative_path", "..\\p.vhdx")]));
    write(&Builder { parent, ..Builder::default() }.build());
    let error = ours(&path, None, "qcow2", "").unwrap_err();
    assert_eq!(error.kind, ErrorKind::ReferenceDenied);
    assert!(error.message.starts_with("backing file '../p.vhdx' "), "{}", error.message);
    let clean = Builder { bat: vec![(0, (5 << 20) | FULL)], ..Builder::default() }.build();
    let mut dirty = clean.clone();
    let zero = [Change::Zero { at: 2 << 20, length: 4096 }];
    put_log(&mut dirty, 0, &log_entry(7, 0, &zero, 1 << 20, 1 << 20));
    write(&dirty);
    let measured = ours(&path, None, "qcow2", "").unwrap();
    std::fs::write(&path, &clean).unwrap();
    assert_eq!((measured.required, measured.fully_allocated), theirs(&path, None, "qcow2", ""));
    write(&Builder { sector_size: 4096, ..Builder::default() }.build());
    assert_eq!(ours(&path, None, "qcow2", ""), Ok(measured));
}

#[test]
fn a_snapshot_of_such_an_image_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for format in ["vpc", "vhdx"] {
        let path = create(directory.path(), format, "", "1M");
        let file = FileFacts {
            disk: "source".into(),
            length: 0,
            allocated: 0,
            extents: ExtentMap::Inline(vec![]),
            named_dmg: false,
        };
        let request = MeasureRequest {
            profile: QemuVersion::V10_0,
            target_format: "qcow2".into(),
            options: None,
            secrets: vec![],
            beyond: false,
            exact: None,
            compress: false,
            subject: MeasureSubject::Image {
                source: Box::new(ImageSource::new(file, None)),
                snapshot: Some("x".into()),
            },
        };
        let error = measure::run(&request, &mut Standalone(|_: &FileFacts| Ok(FileStorage::open(&path))))
            .unwrap_err();
        let why = format!(
            "Failed to load snapshot: Block format '{format}' used by device '' does not support temporarily loading internal snapshots"
        );
        assert_eq!(error.message, why);
    }
}
