//! Images upon images against `qemu-img`: what its map says of each run, and the bytes it reads.

mod support;

use std::path::{Path, PathBuf};

use formats::qcow2::SnapshotName;
use formats::{Chain, ExtentKind, FileIndex, Format, Image, Storage};
use support::{FileStorage, Memory, Random, qemu_img_ok, qemu_io, text};

/// One run, neighbours of one kind joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    length: u64,
    depth: usize,
    present: bool,
    zero: bool,
    data: bool,
    offset: Option<u64>,
}

fn push(runs: &mut Vec<Run>, run: Run) {
    if let Some(last) = runs.last_mut() {
        assert_eq!(last.start + last.length, run.start, "a gap in the map");
        let alike =
            (last.depth, last.present, last.zero, last.data) == (run.depth, run.present, run.zero, run.data);
        let goes_on = match (last.offset, run.offset) {
            (Some(first), Some(next)) => first + last.length == next,
            (first, next) => first == next,
        };
        if alike && goes_on {
            last.length += run.length;
            return;
        }
    }
    runs.push(run);
}

/// Opens the images of a chain that names its files by absolute paths.
fn open(path: &Path) -> Chain<FileStorage> {
    let layer = |path: &Path, format: Option<&[u8]>| {
        let format = format.map(|name| Format::from_name(std::str::from_utf8(name).unwrap()).unwrap());
        let mut image = Image::open(FileStorage::open(path), format).unwrap();
        if let Some(name) = image.data_file().map(|data_file| data_file.name.clone().unwrap()) {
            let name = String::from_utf8(name).unwrap();
            image.attach_data_file(FileStorage::open(Path::new(&name))).unwrap();
        }
        image
    };
    let mut chain = Chain::new(layer(path, None));
    while let Some(backing) = chain.layers().last().unwrap().backing().cloned() {
        let name = String::from_utf8(backing.name).unwrap();
        chain.push(layer(Path::new(&name), backing.format.as_deref()));
    }
    chain
}

/// The map as `qemu-img` would print it.
fn map(chain: &mut Chain<FileStorage>) -> Vec<Run> {
    let (mut runs, mut offset, size) = (Vec::new(), 0, chain.virtual_size());
    while offset < size {
        let mapping = chain.status_at(offset).unwrap();
        let extent = mapping.extent;
        assert_eq!(extent.start, offset);
        assert!(extent.length >= 1 && extent.length <= size - offset);
        let layer = &chain.layers()[mapping.layer];
        let (zero, data, place) = match extent.kind {
            ExtentKind::Zero { offset } => (true, false, offset),
            ExtentKind::Hole { offset } => (true, true, Some(offset)),
            ExtentKind::Data { offset } => (false, true, layer.reports_block_status().then_some(offset)),
            ExtentKind::Compressed { .. } => (false, true, None),
            ExtentKind::Unallocated { .. } => panic!("some layer decides"),
        };
        let (depth, present) = (mapping.layer, mapping.allocated);
        let run = Run { start: offset, length: extent.length, depth, present, zero, data, offset: place };
        push(&mut runs, run);
        offset += extent.length;
    }
    runs
}

fn qemu_map(path: &Path) -> Vec<Run> {
    let output = qemu_img_ok(&["map", "--output=json", text(path)]);
    let mut runs = Vec::new();
    for entry in output.lines().filter(|line| line.contains("\"start\"")) {
        let number = |key: &str| -> Option<u64> {
            let rest = entry.split_once(&format!("\"{key}\": "))?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let flag = |key: &str| entry.contains(&format!("\"{key}\": true"));
        push(
            &mut runs,
            Run {
                start: number("start").unwrap(),
                length: number("length").unwrap(),
                depth: usize::try_from(number("depth").unwrap()).unwrap(),
                present: flag("present"),
                zero: flag("zero"),
                data: flag("data"),
                offset: number("offset"),
            },
        );
    }
    runs
}

/// The bytes of the disk as far as they are stored uncompressed; what is compressed stays as it is in `expected`.
fn bytes(chain: &mut Chain<FileStorage>, expected: &[u8]) -> Vec<u8> {
    let size = usize::try_from(chain.virtual_size()).unwrap();
    let (mut bytes, mut offset, mut steps) = (vec![0; size], 0, 0);
    while offset < size {
        let mapping = chain.extent_at(offset as u64).unwrap();
        let next = offset + usize::try_from(mapping.extent.length).unwrap();
        match mapping.extent.kind {
            ExtentKind::Data { offset: place } => {
                let file = chain.layers_mut()[mapping.layer].file_mut(mapping.extent.file).unwrap();
                file.read_at(place, &mut bytes[offset..next]).unwrap();
            }
            ExtentKind::Compressed { .. } => bytes[offset..next].copy_from_slice(&expected[offset..next]),
            _ => {}
        }
        (offset, steps) = (next, steps + 1);
    }
    assert!(steps <= chain.max_extents() + 64, "{steps} steps");
    bytes
}

fn converted(path: &Path, options: &[&str]) -> Vec<u8> {
    let raw = path.with_extension("converted");
    qemu_img_ok(&[&["convert", "-O", "raw"], options, &[text(path), text(&raw)]].concat());
    std::fs::read(raw).unwrap()
}

fn agree(path: &Path) {
    let mut chain = open(path);
    assert_eq!(map(&mut chain), qemu_map(path), "{}", path.display());
    let expected = converted(path, &[]);
    assert!(bytes(&mut chain, &expected) == expected, "{}", path.display());
}

const FORMATS: [(&str, &str); 7] = [
    ("qcow2", ""),
    ("qcow2", "cluster_size=4k,extended_l2=off"),
    ("qcow2", "extended_l2=on"),
    ("qcow2", "data_file"),
    ("qed", ""),
    ("qcow", ""),
    ("vmdk", ""),
];

/// Creates an image with random writes.
fn create(path: &Path, format: &str, options: &str, below: Option<(&Path, &str)>, random: &mut Random) {
    let size = (random.below(40) + 8) * (128 << 10);
    let data_file = format!("data_file={}.data", text(path));
    let options = if options == "data_file" { &data_file } else { options };
    let mut args = vec!["create", "-q", "-f", format];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    if let Some((below, format)) = below {
        args.extend(["-b", text(below), "-F", format]);
    }
    let size_text = size.to_string();
    args.push(text(path));
    // A disk that is as long as its parent is all that VMDK knows.
    if format != "vmdk" || below.is_none() {
        args.push(&size_text);
    }
    qemu_img_ok(&args);
    let size = Image::open(FileStorage::open(path), Format::from_name(format)).unwrap().virtual_size();
    let mut commands = Vec::new();
    for number in 1..=random.below(10) {
        let offset = random.below(size / 4096) * 4096;
        let length = ((random.below(64) + 1) * 4096).min(size - offset);
        let zero = format.starts_with('q') && format != "qcow" && random.below(4) == 0;
        commands.push(match zero {
            true => format!("write -z {offset} {length}"),
            false => format!("write -P {number} {offset} {length}"),
        });
    }
    qemu_io(format, path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn random_chains_map_and_read_as_in_qemu_img() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let bases = [("raw", ""), ("vdi", ""), ("vhdx", ""), ("qcow2", "preallocation=metadata"), ("vpc", "")];
    for (format, options) in bases.into_iter().cycle().take(15) {
        let directory = tempfile::tempdir().unwrap();
        let path = |depth: u64| directory.path().join(format!("{depth}.img"));
        create(&path(0), format, options, None, &mut random);
        let mut below: (PathBuf, &str) = (path(0), format);
        for depth in 1..=random.below(4) + 1 {
            let mut choice = FORMATS[usize::try_from(random.below(7)).unwrap()];
            if choice.0 == "vmdk" && below.1 != "vmdk" {
                choice = FORMATS[0];
            }
            create(&path(depth), choice.0, choice.1, Some((&below.0, below.1)), &mut random);
            below = (path(depth), choice.0);
            agree(&below.0);
        }
    }
}

#[test]
fn a_snapshot_decides_above_what_is_below() {
    let directory = tempfile::tempdir().unwrap();
    let (base, top) = (directory.path().join("base.raw"), directory.path().join("top.qcow2"));
    qemu_img_ok(&["create", "-q", "-f", "raw", text(&base), "2M"]);
    qemu_io("raw", &base, &["write -P 9 0 2M"]);
    let options = ["-o", "cluster_size=512", "-b", text(&base), "-F", "raw", text(&top), "4M"];
    qemu_img_ok(&[&["create", "-q", "-f", "qcow2"][..], &options].concat());
    qemu_io("qcow2", &top, &["write -P 1 0 64k", "write -z 1M 64k", "write -P 2 3M 64k"]);
    qemu_img_ok(&["snapshot", "-c", "one", text(&top)]);
    qemu_io("qcow2", &top, &["write -P 3 0 2M"]);
    qemu_img_ok(&["snapshot", "-c", "two", text(&top)]);
    qemu_img_ok(&["resize", "-q", text(&top), "8M"]);
    qemu_io("qcow2", &top, &["write -P 4 7M 64k"]);
    for (id, name) in [(Some("1"), None), (None, Some("two")), (Some("2"), Some("two"))] {
        let mut chain = open(&top);
        let wanted = SnapshotName { id: id.map(str::as_bytes), name: name.map(str::as_bytes) };
        assert_eq!(chain.layers_mut()[0].load_snapshot(wanted), Ok(true));
        let expected = converted(&top, &["-l", name.or(id).unwrap()]);
        assert_eq!(expected.len(), 8 << 20);
        assert!(bytes(&mut chain, &expected) == expected, "{wanted:?}");
    }
    let mut image = open(&top);
    for (id, name) in [(Some("1"), Some("two")), (None, None), (None, Some("1")), (Some(""), None)] {
        let wanted = SnapshotName { id: id.map(str::as_bytes), name: name.map(str::as_bytes) };
        assert_eq!(image.layers_mut()[0].load_snapshot(wanted), Ok(false));
    }
}

#[test]
fn a_data_file_is_a_file_of_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = (directory.path().join("a.qcow2"), directory.path().join("a.raw"));
    let options = format!("data_file={}", text(&data));
    qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", &options, text(&path), "1M"]);
    qemu_io("qcow2", &path, &["write 0 64k"]);
    let mut image = Image::open(FileStorage::open(&path), None).unwrap();
    assert_eq!(image.extent_at(0).unwrap().file, FileIndex::DATA_FILE);
    assert!(image.file_mut(FileIndex::DATA_FILE).is_none());
    image.attach_data_file(FileStorage::open(&data)).unwrap();
    assert_eq!(image.file(FileIndex::DATA_FILE).unwrap().len(), 1 << 20);
    let mut raw = Image::open(Memory::new(vec![0; 512]), None).unwrap();
    let error = raw.attach_data_file(Memory::new(vec![])).unwrap_err();
    assert_eq!(error.message, "'data-file' can only be set for images with an external data file");
}
