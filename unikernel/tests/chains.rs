//! `measure` of images upon images, hosted, against the real `qemu-img`.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use protocol::{Backing, ErrorKind, ImageSource, QemuVersion, Window};
use support::{
    Beside, agree, agree_on_fault, agree_on_snapshot, measure, printed, profile, qemu_img, qemu_io,
    qemu_measure, request, text,
};
use unikernel::ops;

/// Creates an image upon another.
fn create(path: &Path, format: &str, options: &str, below: Option<(&Path, &str)>, size: Option<&str>) {
    let mut args = vec!["create", "-q", "-f", format];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    if let Some((below, format)) = below {
        args.extend(["-b", text(below), "-F", format]);
    }
    args.push(text(path));
    args.extend(size);
    qemu_img(&args);
}

/// Writes a name for the backing file, and one for its format, into a new image of qcow2.
fn rename(path: &Path, name: &[u8], format: Option<&[u8]>) {
    let mut head = vec![0; 4096];
    if let Some(format) = format {
        head[..4].copy_from_slice(&0xe279_2aca_u32.to_be_bytes());
        head[4..8].copy_from_slice(&u32::try_from(format.len()).unwrap().to_be_bytes());
        head[8..8 + format.len()].copy_from_slice(format);
    }
    head[1024..1024 + name.len()].copy_from_slice(name);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&head, 112).unwrap();
    file.write_all_at(&(112 + 1024_u64).to_be_bytes(), 8).unwrap();
    file.write_all_at(&u32::try_from(name.len()).unwrap().to_be_bytes(), 16).unwrap();
}

/// The disks of a chain from the bottom up: format, options, length, what is written.
type Layer = (&'static str, &'static str, &'static str, &'static [&'static str]);

fn chain(directory: &Path, layers: &[Layer]) -> PathBuf {
    let mut below: Option<(PathBuf, &str)> = None;
    for (depth, (format, options, size, writes)) in layers.iter().enumerate() {
        let path = directory.join(format!("{depth}.{format}"));
        let backing = below.as_ref().map(|(path, format)| (path.as_path(), *format));
        create(&path, format, options, backing, Some(size));
        if !writes.is_empty() {
            qemu_io(format, &path, writes);
        }
        File::open(&path).unwrap().sync_all().unwrap();
        below = Some((path, format));
    }
    below.unwrap().0
}

const CHAINS: [&[Layer]; 11] = [
    &[("raw", "", "16M", &["write 1M 64k"]), ("qcow2", "", "16M", &["write 2M 64k", "write -z 1M 4k"])],
    // Shorter and longer ones below.
    &[("raw", "", "1M", &["write 0 1M"]), ("qcow2", "", "4M", &[]), ("qcow2", "", "16M", &["write 8M 64k"])],
    &[
        ("qcow2", "", "64M", &["write 60M 64k", "write 2M 1M"]),
        ("qcow2", "cluster_size=4k", "8M", &["write 0 4k"]),
    ],
    &[("raw", "", "1000k", &["write 900k 100k"]), ("qed", "", "16M", &["write 2M 64k"])],
    &[
        ("qcow2", "", "8M", &["write 1M 1M"]),
        ("qcow", "", "8M", &["write 0 4k"]),
        ("qed", "", "8M", &["write 4M 1k"]),
    ],
    &[("vmdk", "", "8M", &["write 1M 1M"]), ("qcow2", "", "12M", &["write 0 4k"])],
    &[("vmdk", "", "8M", &["write 1M 1M"]), ("vmdk", "", "8M", &["write 3M 64k"]), ("qcow2", "", "8M", &[])],
    // Formats that do not tell data from zeros, in whole and as a part.
    &[("vhdx", "", "8M", &["write 1M 1M"]), ("qcow2", "", "16M", &["write 0 4k", "write -z 2M 1M"])],
    &[("vdi", "", "8M", &["write 1M 1M"]), ("qcow2", "", "16M", &["write 0 4k"])],
    &[("vpc", "", "8M", &["write 1M 1M"]), ("qcow2", "extended_l2=on", "16M", &["write 0 4k"])],
    &[
        ("raw", "", "5M", &["write 4M 1M"]),
        ("qcow2", "", "6M", &["write 64k 64k"]),
        ("qed", "", "7M", &["write 128k 64k"]),
        ("qcow2", "preallocation=metadata,extended_l2=on", "8M", &["write 192k 64k"]),
        ("qcow2", "", "9M", &["write 256k 64k", "discard 64k 64k"]),
    ],
];

#[test]
fn chains_of_up_to_five_images_of_mixed_formats() {
    for layers in CHAINS {
        let directory = tempfile::tempdir().unwrap();
        agree(&chain(directory.path(), layers));
    }
}

#[test]
fn bitmaps_are_those_of_the_top() {
    let directory = tempfile::tempdir().unwrap();
    let path = chain(directory.path(), &[("qcow2", "", "8M", &["write 1M 1M"]), ("qcow2", "", "64M", &[])]);
    qemu_img(&["bitmap", "--add", text(&directory.path().join("0.qcow2")), "below"]);
    agree(&path);
    qemu_img(&["bitmap", "--add", "-g", "4k", text(&path), "top"]);
    agree(&path);
    assert_ne!(measure(&path, "", None).unwrap().bitmaps, Some(0));
}

/// The innermost fault comes with its way to it.
#[test]
fn what_is_missing_or_broken_below_is_told_as_by_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let layers: [Layer; 3] = [("qcow2", "", "8M", &[]), ("qcow2", "", "8M", &[]), ("qcow2", "", "8M", &[])];
    let path = chain(directory.path(), &layers);
    let (base, middle) = (directory.path().join("0.qcow2"), directory.path().join("1.qcow2"));
    let good = fs::read(&base).unwrap();
    fs::write(&base, vec![0; 4096]).unwrap();
    agree_on_fault(&path);
    fs::remove_file(&base).unwrap();
    let fault = agree_on_fault(&path);
    assert!(fault.contains("Could not open backing file: Could not open backing file: Could not open '"));
    fs::write(&base, good).unwrap();
    for format in [&b"nosuch"[..], b"vmdk", b"raw", b"file", b"", b"qed"] {
        rename(&middle, b"0.qcow2", Some(format));
        let theirs = qemu_measure(&[text(&path)], "");
        assert_eq!(printed(measure(&path, "", None), text(&path)), theirs, "{format:?}");
    }
    fs::remove_file(&middle).unwrap();
    agree_on_fault(&path);
}

#[test]
fn a_format_that_is_no_text_is_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let path = chain(directory.path(), &[("qcow2", "", "8M", &[]), ("qcow2", "", "8M", &[])]);
    rename(&path, b"0.qcow2", Some(b"\xff"));
    let error = measure(&path, "", None).unwrap_err();
    assert_eq!(error.message, "Could not open backing file: Unknown driver '\\xff'");
}

/// With relative names of files `qemu-img` would look beside itself.
#[test]
fn descriptions_of_files_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let layers: [Layer; 3] = [
        ("raw", "", "4M", &["write 1M 1M"]),
        ("qcow2", "", "8M", &["write 0 64k"]),
        ("qcow2", "", "8M", &[]),
    ];
    let path = chain(directory.path(), &layers);
    let (base, middle) = (directory.path().join("0.raw"), directory.path().join("1.qcow2"));
    let (base, middle) = (text(&base), text(&middle));
    for (description, format) in [
        (format!(r#"{{"driver":"qcow2","file.filename":"{middle}"}}"#), None),
        (format!(r#"{{"driver":"raw","file.filename":"{middle}"}}"#), Some(&b"qcow2"[..])),
        (format!(r#"{{"file":{{"driver":"file","filename":"{middle}"}},"backing":null}}"#), None),
        (
            format!(
                r#"{{"driver":"qcow2","file.filename":"{middle}","backing":{{"driver":"raw","file.filename":"{middle}"}}}}"#
            ),
            None,
        ),
        (
            format!(
                r#"{{"driver":"qcow2","file.filename":"{middle}","backing":{{"file.filename":"{middle}"}}}}"#
            ),
            None,
        ),
        (
            format!(
                r#"{{"driver":"raw","file.filename":"{middle}","backing":{{"file.filename":"{base}"}}}}"#
            ),
            None,
        ),
        (format!(r#"{{"driver":"nosuch","file.filename":"{middle}"}}"#), None),
        (r#"{"driver":"qcow2","file.filename":"nosuch"}"#.to_owned(), Some(b"nosuch")),
    ] {
        rename(&path, format!("json:{description}").as_bytes(), format);
        let theirs = qemu_measure(&[text(&path)], "");
        assert_eq!(printed(measure(&path, "", None), text(&path)), theirs, "{description}");
    }
    rename(&path, br#"json:{"file":{"filename":"1.qcow2"}}"#, None);
    assert!(measure(&path, "", None).is_ok());
    for description in
        [r#"{"driver":"nbd","host":"localhost"}"#, "{", r#"{"file.driver":"https","file.filename":"x"}"#]
    {
        rename(&path, format!("json:{description}").as_bytes(), None);
        let error = measure(&path, "", None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ReferenceDenied);
        let expected = format!("backing file 'json:{description}' is more than a file and was not followed");
        assert_eq!((error.message, error.field.as_deref()), (expected, Some("backing_file_offset")));
    }
}

#[test]
fn names_that_are_not_text_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = chain(directory.path(), &[("qcow2", "", "8M", &[]), ("qcow2", "", "8M", &[])]);
    rename(&path, b"a\xff\n", None);
    let error = measure(&path, "", None).unwrap_err();
    assert_eq!(error.message, "backing file 'a\\xff\\n' is not UTF-8 and was not followed");
    assert_eq!((error.kind, error.disk.as_deref()), (ErrorKind::ReferenceDenied, Some("disk.0")));
}

/// An image that leads to itself, and a chain that is too long: `qemu-img` has no end for either.
#[test]
fn a_chain_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = |depth: usize| directory.path().join(depth.to_string());
    create(&path(0), "qcow2", "", None, Some("8M"));
    create(&path(1), "qcow2", "", Some((&path(0), "qcow2")), None);
    for depth in 2..300 {
        fs::copy(path(1), path(depth)).unwrap();
        rename(&path(depth), (depth - 1).to_string().as_bytes(), Some(b"qcow2"));
    }
    rename(&path(1), b"0", Some(b"qcow2"));
    assert!(measure(&path(63), "", None).is_ok());
    let too_long = |path: &Path| {
        let error = measure(path, "", None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Limit);
        assert!(error.message.ends_with(": The chain of images is longer than 64"), "{}", error.message);
    };
    too_long(&path(64));
    too_long(&path(299));
    fs::copy(path(1), path(0)).unwrap();
    too_long(&path(0));
}

#[test]
fn what_the_command_line_says_of_the_image_below_counts() {
    let directory = tempfile::tempdir().unwrap();
    let layers: [Layer; 3] = [
        ("raw", "", "4M", &["write 1M 1M"]),
        ("qcow2", "", "8M", &["write 0 64k"]),
        ("qcow2", "", "8M", &[]),
    ];
    let top = chain(directory.path(), &layers);
    let (base, middle) = (directory.path().join("0.raw"), directory.path().join("1.qcow2"));
    let by_options = |path: &Path, format: &str, backing: Option<(&Path, Option<&str>)>| {
        let mut files = Beside::default();
        let mut source = ImageSource::new(files.add(path), Some(format.into()));
        let mut options = format!("driver={format},file.filename={}", text(path));
        if let Some((path, format)) = backing {
            source.backing =
                Some(Backing::Image(Box::new(ImageSource::new(files.add(path), format.map(Into::into)))));
            options += &format!(",backing.file.filename={}", text(path));
            options += &format.map_or(String::new(), |format| format!(",backing.driver={format}"));
        }
        let answer = ops::measure::run(&request(source, "", None), &mut files);
        assert_eq!(printed(answer, &options), qemu_measure(&["--image-opts", &options], ""), "{options}");
    };
    by_options(&top, "qcow2", None);
    by_options(&top, "qcow2", Some((&base, Some("raw"))));
    // What the image says of the format counts then, too.
    by_options(&top, "qcow2", Some((&middle, None)));
    by_options(&top, "qcow2", Some((&base, None)));
    by_options(&base, "raw", Some((&middle, None)));
    let mut files = Beside::default();
    let mut source = ImageSource::new(files.add(&top), None);
    source.backing = Some(Backing::None);
    let alone = ops::measure::run(&request(source, "", None), &mut files).unwrap();
    assert!(files.needs.is_empty());
    assert_eq!(alone.required, measure(&top, "", None).unwrap().required - (1 << 20) - (64 << 10));
}

#[test]
fn a_raw_image_may_be_a_part_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.raw");
    create(&path, "raw", "", None, Some("1M"));
    qemu_io("raw", &path, &["write 64k 64k", "write 512k 4k"]);
    let odd = directory.path().join("odd.raw");
    fs::write(&odd, [1; 1000]).unwrap();
    for (path, offset, size) in [
        (&path, 0, None),
        (&path, 512, None),
        (&path, 66048, Some(1024)),
        (&path, 8, Some(1_048_064)),
        (&path, 1 << 20, None),
        (&path, 1 << 20, Some(0)),
        (&path, 1, Some(0)),
        (&path, (1 << 20) + 1, None),
        (&path, 512, Some(1 << 20)),
        (&path, 0, Some(1000)),
        (&path, i64::MAX.unsigned_abs(), Some(512)),
        (&odd, 512, None),
        (&odd, 512, Some(512)),
        (&odd, 0, Some(1024)),
        (&odd, 1024, None),
    ] {
        let mut files = Beside::default();
        let mut source = ImageSource::new(files.add(path), Some("raw".into()));
        source.window = Some(Window { offset, size });
        let length = size.map_or(String::new(), |size| format!(",size={size}"));
        let options = format!("driver=raw,offset={offset}{length},file.filename={}", text(path));
        let answer = ops::measure::run(&request(source, "cluster_size=4k", None), &mut files);
        let mut theirs = qemu_measure(&["--image-opts", &options], "cluster_size=4k");
        if profile() == QemuVersion::V5_2 {
            // It has not taken them down yet when it tells of them.
            let (offset, size) = (format!("ffset ({offset})"), format!("size ({})", size.unwrap_or(0)));
            theirs = theirs.map_err(|text| text.replace("ffset (0)", &offset).replace("size (0)", &size));
        }
        assert_eq!(printed(answer, &options), theirs, "{options}");
    }
    let qcow2 = directory.path().join("a.qcow2");
    create(&qcow2, "qcow2", "", None, Some("1M"));
    let mut files = Beside::default();
    let mut source = ImageSource::new(files.add(&qcow2), Some("qcow2".into()));
    source.window = Some(Window { offset: 512, size: None });
    let options = format!("driver=qcow2,offset=512,file.filename={}", text(&qcow2));
    let answer = ops::measure::run(&request(source, "", None), &mut files);
    assert_eq!(printed(answer, &options), qemu_measure(&["--image-opts", &options], ""));
}

/// `qemu-img` never comes to an end with these.
#[test]
fn a_part_of_a_file_that_begins_within_a_sector_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.raw");
    fs::write(&path, vec![1; 4096]).unwrap();
    let mut files = Beside::default();
    let mut source = ImageSource::new(files.add(&path), Some("raw".into()));
    source.window = Some(Window { offset: 500, size: None });
    let answer = ops::measure::run(&request(source, "", None), &mut files).unwrap();
    assert_eq!(answer.required, answer.fully_allocated);
}

#[test]
fn snapshots_are_found_by_id_then_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = chain(
        directory.path(),
        &[("qcow2", "", "16M", &["write 9M 64k"]), ("qcow2", "", "16M", &["write 0 64k"])],
    );
    qemu_img(&["snapshot", "-c", "2", text(&path)]);
    qemu_io("qcow2", &path, &["write 1M 1M"]);
    qemu_img(&["snapshot", "-c", "a,b", text(&path)]);
    qemu_img(&["resize", "-q", text(&path), "2G"]);
    qemu_io("qcow2", &path, &["write 1000M 2M", "discard 0 64k"]);
    agree(&path);
    let required = |name| {
        let answer = agree_on_snapshot(&path, name).unwrap();
        answer.lines().next().unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (first, second) = (required("1"), required("2"));
    assert_eq!(second - first, 1 << 20);
    assert_eq!(required("a,b"), second);
    assert_eq!(required("snapshot.name=2"), first);
    assert_eq!(required("snapshot.id=2,snapshot.name=a,,b"), second);
    for none in
        ["", "3", "b", "snapshot.id=a,,b", "snapshot.id=2,snapshot.name=2", "snapshot.id=", "snapshot.name=x"]
    {
        agree_on_snapshot(&path, none).unwrap_err();
    }
}

#[test]
fn a_snapshot_s_table_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = chain(directory.path(), &[("qcow2", "", "16M", &["write 0 64k"])]);
    qemu_img(&["snapshot", "-c", "a", text(&path)]);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut field = [0; 8];
    file.read_exact_at(&mut field, 64).unwrap();
    let table = u64::from_be_bytes(field);
    let patched = |offset: u64, bytes: &[u8], name: &str| {
        let mut old = vec![0; bytes.len()];
        file.read_exact_at(&mut old, table + offset).unwrap();
        file.write_all_at(bytes, table + offset).unwrap();
        let answer = agree_on_snapshot(&path, name);
        file.write_all_at(&old, table + offset).unwrap();
        answer
    };
    patched(0, &0x200_u64.to_be_bytes(), "snapshot.id=1").unwrap_err();
    // The same by id is not there by name.
    patched(0, &0x200_u64.to_be_bytes(), "1").unwrap_err();
    patched(0, &0x200_u64.to_be_bytes(), "a").unwrap_err();
    patched(8, &0xffff_ffff_u32.to_be_bytes(), "1").unwrap_err();
    // A table of no entries knows nothing.
    let empty = patched(8, &0_u32.to_be_bytes(), "1").unwrap();
    assert_ne!(Ok(empty), agree_on_snapshot(&path, "1"));
    // Past the end of the file there is nothing to qemu-img.
    file.write_all_at(&0x4000_0000_u64.to_be_bytes(), table).unwrap();
    let error = measure(&path, "", Some("1")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert_eq!(error.field.as_deref(), Some("snapshot l1_table_offset"));
}

#[test]
fn formats_without_snapshots_say_so() {
    let directory = tempfile::tempdir().unwrap();
    for format in ["raw", "qcow", "qed", "vmdk", "vdi"] {
        let path = directory.path().join(format!("a.{format}"));
        create(&path, format, "", None, Some("1M"));
        if format != "raw" {
            agree_on_snapshot(&path, "x").unwrap_err();
        }
    }
}
