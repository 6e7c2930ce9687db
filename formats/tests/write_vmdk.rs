//! VMDK images that are created and written: the files of `qemu-img create` and `qemu-img convert`, byte for byte with the
//! content id that is given.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use formats::vmdk::{self, Adapter, Create, Layout, Parent, Subformat, Target};
use formats::write::Writer;
use support::write::{
    Disk, FileStorage, assert_files, assert_holds, assert_same, converted, new_file, old_file,
};
use support::{Random, qemu_img_ok, text};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const GRAIN: u64 = 64 << 10;
const STREAM: Subformat = Subformat::StreamOptimized(Layout::TablesFirst);
const ONE_PASS: Subformat = Subformat::StreamOptimized(Layout::Stream);

fn new(size: u64, subformat: Subformat) -> Create<'static> {
    Create {
        size,
        subformat,
        adapter: Adapter::Ide,
        hardware_version: "4",
        tools_version: Some("2147483647"),
        zeroed_grains: false,
        parent: None,
        cid: 0x0123_4567,
        name: b"disk.vmdk",
    }
}

/// Options, and what they are here; without a size.
fn cases() -> Vec<(&'static str, Create<'static>)> {
    let of = |subformat| new(0, subformat);
    vec![
        ("", of(Subformat::MonolithicSparse)),
        (
            "zeroed_grain=on,adapter_type=lsilogic",
            Create { zeroed_grains: true, adapter: Adapter::LsiLogic, ..of(Subformat::MonolithicSparse) },
        ),
        (
            "compat6=on,adapter_type=buslogic",
            Create { hardware_version: "6", adapter: Adapter::BusLogic, ..of(Subformat::MonolithicSparse) },
        ),
        (
            "hwversion=10,toolsversion=12345,adapter_type=legacyESX",
            Create {
                hardware_version: "10",
                tools_version: Some("12345"),
                adapter: Adapter::LegacyEsx,
                ..of(Subformat::MonolithicSparse)
            },
        ),
        ("subformat=streamOptimized", of(STREAM)),
        ("subformat=streamOptimized,zeroed_grain=on", Create { zeroed_grains: true, ..of(STREAM) }),
        ("subformat=monolithicFlat", of(Subformat::MonolithicFlat)),
        ("subformat=twoGbMaxExtentSparse", of(Subformat::TwoGbMaxExtentSparse)),
        (
            "subformat=twoGbMaxExtentSparse,zeroed_grain=on",
            Create { zeroed_grains: true, ..of(Subformat::TwoGbMaxExtentSparse) },
        ),
        ("subformat=twoGbMaxExtentFlat", of(Subformat::TwoGbMaxExtentFlat)),
    ]
}

/// Folders for our image and the one of `qemu-img`: both are called `disk.vmdk`, and all of their files lie beside them.
struct Folders {
    _directory: tempfile::TempDir,
    ours: PathBuf,
    theirs: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| {
            let folder = directory.path().join(name);
            fs::create_dir(&folder).unwrap();
            folder.join("disk.vmdk")
        });
        Self { _directory: directory, ours, theirs }
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.contains(".vmdk")).collect();
        names.sort();
        names
    }

    fn clear(&self) {
        for path in [&self.ours, &self.theirs] {
            for name in Self::names(path) {
                fs::remove_file(path.with_file_name(name)).unwrap();
            }
        }
    }

    /// The content id of what `convert` makes, which is as long as one can be: `qemu-img` puts it into the place of another one, and
    /// behind a shorter one there are bytes left of that.
    fn converted(&self, convert: impl Fn()) -> u32 {
        loop {
            self.clear();
            convert();
            let cid = cid(&self.theirs);
            if cid >> 28 != 0 {
                return cid;
            }
        }
    }

    /// Whether the files are the same, up to the content id.
    fn compare(&self, what: &str) {
        assert_eq!(Self::names(&self.ours), Self::names(&self.theirs), "{what}");
        for name in Self::names(&self.ours) {
            let (ours, theirs) = (self.ours.with_file_name(&name), self.theirs.with_file_name(&name));
            assert_files(&ours, &theirs, &[], &format!("{what} {name}"));
        }
    }
}

/// The content id of an image.
fn cid(path: &Path) -> u32 {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"\nCID=").unwrap() + 5;
    let digits: String =
        bytes[at..].iter().take_while(|byte| **byte != b'\n').map(|&byte| char::from(byte)).collect();
    u32::from_str_radix(&digits, 16).unwrap()
}

fn create(path: &Path, create: &Create<'_>) -> Target<FileStorage> {
    let files = vmdk::extents(create).unwrap();
    let files =
        files.iter().map(|piece| new_file(&path.with_file_name(std::str::from_utf8(&piece.name).unwrap())));
    vmdk::create(new_file(path), files.collect(), create).unwrap()
}

fn open(path: &Path, cid: u32) -> Target<FileStorage> {
    let image = formats::Image::open_metadata(FileStorage::open(path), None).unwrap();
    let names = image.references().iter().map(|name| path.with_file_name(std::str::from_utf8(name).unwrap()));
    vmdk::open(old_file(path), names.map(|name| old_file(&name)).collect(), cid).unwrap()
}

#[test]
fn a_new_image_is_that_of_qemu_img() {
    let folders = Folders::new();
    for (options, case) in cases() {
        for size in [0, 512, MIB, 3 * MIB + 512, 33 * MIB, GIB, 4 * GIB, 5 * GIB + 512, 1000 * GIB, 66 << 40]
        {
            if size > 10 * GIB && !options.is_empty() {
                continue;
            }
            folders.clear();
            let options = format!("{options}{}nocow=off", if options.is_empty() { "" } else { "," });
            let theirs = text(&folders.theirs);
            qemu_img_ok(&["create", "-q", "-f", "vmdk", "-o", &options, theirs, &size.to_string()]);
            let cid = if size > 10 * GIB { head_cid(&folders.theirs) } else { cid(&folders.theirs) };
            let target = create(&folders.ours, &Create { size, cid, ..case });
            assert_eq!(target.virtual_size(), size.next_multiple_of(512));
            drop(target);
            folders.compare(&format!("{options} {size}"));
        }
    }
}

/// As [`cid`], of a long file.
fn head_cid(path: &Path) -> u32 {
    let head = path.with_extension("head");
    fs::write(&head, support::write::field::<20_000>(path, 0)).unwrap();
    let cid = cid(&head);
    fs::remove_file(head).unwrap();
    cid
}

#[test]
fn what_there_is_no_image_for() {
    let refused = |create: &Create<'_>, files| {
        vmdk::create(Vec::new(), vec![Vec::new(); files], create).unwrap_err().message
    };
    let too_large = "The image size is too large for file format 'vmdk'";
    assert_eq!(refused(&new(256 << 40, Subformat::MonolithicSparse), 0), too_large);
    assert_eq!(refused(&new((2 << 40) + 1, Subformat::TwoGbMaxExtentFlat), 0), too_large);
    let flat = new(MIB, Subformat::MonolithicFlat);
    assert_eq!(refused(&flat, 0), "0 files in place of 1");
    assert_eq!(refused(&Create { zeroed_grains: true, ..flat }, 1), "Flat image can't enable zeroed grain");
    let parent = Some(Parent { name: b"base", cid: 1 });
    assert_eq!(refused(&Create { parent, ..flat }, 1), "Flat image can't have backing file");
    let long = "x".repeat(10_240);
    let long = Create { hardware_version: &long, ..new(MIB, Subformat::MonolithicSparse) };
    assert_eq!(refused(&long, 0), "Descriptor is longer than the place for it");
}

/// Of an image with grains of another length, or that does not begin with one.
#[test]
fn grains_that_are_not_those_of_the_disk_are_not_written_to() {
    let sparse = |grain_sectors: u64| {
        let mut target =
            vmdk::create(Vec::new(), Vec::new(), &new(MIB, Subformat::MonolithicSparse)).unwrap();
        let mut file = std::mem::take(support::write::own(&mut target));
        file[20..28].copy_from_slice(&grain_sectors.to_le_bytes());
        file
    };
    let why = "Grains are no power of two, or not where those of the disk are";
    assert!(vmdk::open(sparse(64), Vec::new(), 1).is_ok());
    assert_eq!(vmdk::open(sparse(96), Vec::new(), 1).unwrap_err().message, why);
    let text = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n\
        RW 8 FLAT \"a\" 0\nRW 2048 SPARSE \"b\"\n";
    let files = vec![vec![0; 4096], sparse(128)];
    assert_eq!(vmdk::open(text.as_bytes().to_vec(), files, 1).unwrap_err().message, why);
}

/// Images that `qemu-img` does not write to either.
#[test]
fn images_that_are_only_read_are_not_written_to() {
    for subformat in [STREAM, ONE_PASS] {
        let mut target = vmdk::create(Vec::new(), Vec::new(), &new(MIB, subformat)).unwrap();
        target.finish().unwrap();
        let file = std::mem::take(support::write::own(&mut target));
        let refused = vmdk::open(file, Vec::new(), 1).unwrap_err();
        assert_eq!(refused.message, "Image with compressed grains is not written to");
    }
    let mut target = vmdk::create(Vec::new(), Vec::new(), &new(MIB, Subformat::MonolithicSparse)).unwrap();
    let mut file = std::mem::take(support::write::own(&mut target));
    file[4] = 3;
    let refused = vmdk::open(file, Vec::new(), 1).unwrap_err();
    assert_eq!(refused.message, "VMDK version 3 must be read only");
}

#[test]
fn a_written_image_is_that_of_qemu_img() {
    let folders = Folders::new();
    let mut random = Random(13);
    for size in [512, 35 * MIB + 512] {
        let disk = Disk::random(size, GRAIN, &mut random);
        for (options, case) in cases() {
            let theirs = folders.theirs.parent().unwrap();
            let cid = folders.converted(|| drop(converted(theirs, "disk.vmdk", "vmdk", options, &disk)));
            let mut target = create(&folders.ours, &Create { size, cid, ..case });
            disk.write(&mut target);
            let what = format!("{options} {size}");
            // What the compressed grains are is for who compresses them.
            if case.subformat != STREAM {
                folders.compare(&what);
            }
            let length = |path: &Path| fs::metadata(path).unwrap().len();
            assert_eq!(length(&folders.ours), length(&folders.theirs), "{what}");
            assert_holds(&folders.ours, "vmdk", &disk.bytes);
        }
    }
}

/// Data around the end of the first of several extents.
#[test]
fn a_disk_of_more_than_one_extent() {
    let folders = Folders::new();
    for (options, case) in cases() {
        if !matches!(case.subformat, Subformat::TwoGbMaxExtentFlat | Subformat::TwoGbMaxExtentSparse) {
            continue;
        }
        folders.clear();
        let size = 2 * GIB + 3 * MIB;
        let raw = folders.ours.with_extension("raw");
        let mut source = new_file(&raw);
        let (start, mut random) = (2 * GIB - 2 * GRAIN, Random(3));
        let data = Disk::random(4 * GRAIN, 4 * GRAIN, &mut Random(random.next() | 1));
        let bytes: Vec<u8> = (0..4 * GRAIN).map(|at| data.bytes[usize::try_from(at).unwrap()] | 1).collect();
        formats::StorageMut::set_length(&mut source, size).unwrap();
        formats::StorageMut::write_at(&mut source, start, &bytes).unwrap();
        let options = if options.is_empty() { "nocow=off" } else { options };
        let theirs = text(&folders.theirs);
        let line = ["convert", "-f", "raw", "-O", "vmdk", "-o", options, text(&raw), theirs];
        let cid = folders.converted(|| drop(qemu_img_ok(&line)));
        let mut target = create(&folders.ours, &Create { size, cid, ..case });
        let mut offset = start;
        while offset < start + 4 * GRAIN {
            let place = target.allocate(offset, start + 4 * GRAIN - offset).unwrap();
            assert_eq!(place.length, 2 * GRAIN);
            let from = usize::try_from(offset - start).unwrap();
            let file = target.file(place.file).unwrap();
            formats::StorageMut::write_at(
                file,
                place.offset,
                &bytes[from..from + usize::try_from(place.length).unwrap()],
            )
            .unwrap();
            offset += place.length;
        }
        target.finish().unwrap();
        folders.compare(options);
        qemu_img_ok(&["compare", "-f", "vmdk", "-F", "raw", text(&folders.ours), text(&raw)]);
    }
}

#[test]
fn any_order_will_do() {
    let folders = Folders::new();
    for (index, (options, case)) in cases().into_iter().enumerate() {
        if case.subformat == STREAM {
            continue;
        }
        folders.clear();
        let mut random = Random(30 + index as u64);
        let size = 35 * MIB + 512;
        let mut disk = Disk { bytes: vec![0; usize::try_from(size).unwrap()], unit: GRAIN };
        disk.scribble(&mut create(&folders.ours, &Create { size, ..case }), &mut random);
        assert_holds(&folders.ours, "vmdk", &disk.bytes);
        assert_eq!(cid(&folders.ours), case.cid, "{options}");
        disk.scribble(&mut open(&folders.ours, 0xf), &mut random);
        assert_holds(&folders.ours, "vmdk", &disk.bytes);
        assert_eq!(cid(&folders.ours), 0xf, "{options}");
        // Without a change it stays.
        open(&folders.ours, 0xe).finish().unwrap();
        assert_eq!(cid(&folders.ours), 0xf, "{options}");
    }
}

/// Grains in the order of the disk, each table behind them.
#[test]
fn a_stream_in_one_pass() {
    let folders = Folders::new();
    let mut random = Random(14);
    for size in [0, 512, 3 * MIB, 97 * MIB + 512] {
        folders.clear();
        let mut disk = Disk::random(size, GRAIN, &mut random);
        if size > 96 * MIB {
            // A table without grains, and one with the first alone.
            disk.bytes[32 << 20..64 << 20].fill(0);
            disk.bytes[(64 << 20) + 65_536..96 << 20].fill(0);
        }
        let mut target = create(&folders.ours, &new(size, ONE_PASS));
        assert!(target.codec().is_some() && target.allocate(0, 512).is_err());
        disk.write(&mut target);
        target.finish().unwrap();
        assert!(target.allocate_compressed(0, &mut vec![0]).is_err());
        let length = fs::metadata(&folders.ours).unwrap().len();
        assert!(length.is_multiple_of(512));
        let eos: [u8; 512] = support::write::field(&folders.ours, length - 512);
        assert_eq!(eos, [0; 512]);
        if size > 0 {
            assert_holds(&folders.ours, "vmdk", &disk.bytes);
        }
    }
}

/// Every stream-optimized image of one pass is what its specification says, read from its start to its end.
#[test]
fn a_stream_reads_as_a_stream() {
    let mut random = Random(15);
    let disk = Disk::random(70 * MIB, GRAIN, &mut random);
    let mut target = vmdk::create(Vec::new(), Vec::new(), &new(70 * MIB, ONE_PASS)).unwrap();
    disk.write(&mut target);
    let file = std::mem::take(support::write::own(&mut target));
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let half = |at: usize| usize::try_from(u32::from_le_bytes(file[at..at + 4].try_into().unwrap())).unwrap();
    assert_eq!(word(56), u64::MAX, "gdOffset");
    let (mut at, mut bytes) = (usize::try_from(word(64)).unwrap() * 512, vec![0; disk.bytes.len()]);
    let (mut tables, mut grains, mut last) = (vec![], vec![], None);
    loop {
        let (value, size, kind) = (word(at), half(at + 8), half(at + 12));
        if size > 0 {
            assert!(last.is_none_or(|last| last < value), "ascending");
            last = Some(value);
            let grain = miniz_oxide::inflate::decompress_to_vec_zlib(&file[at + 12..at + 12 + size]).unwrap();
            let start = usize::try_from(value).unwrap() * 512;
            bytes[start..start + grain.len()].copy_from_slice(&grain);
            grains.push((start / 65_536 % 512, at / 512));
            at = (at + 12 + size).next_multiple_of(512);
            continue;
        }
        at += 512;
        let metadata = at..at + usize::try_from(value).unwrap() * 512;
        match kind {
            0 => break,
            1 => {
                for &(index, sector) in &grains {
                    assert_eq!(half(at + index * 4), sector);
                }
                grains.clear();
                tables.push(at / 512);
            }
            2 => {
                let found: Vec<_> =
                    metadata.clone().step_by(4).map(half).filter(|&sector| sector != 0).collect();
                assert_eq!(found, tables);
            }
            3 => assert_eq!(word(at + 56) * 512 + 1024, at as u64, "directory, marker of the footer"),
            other => panic!("marker {other}"),
        }
        at = metadata.end;
    }
    assert_eq!(at, file.len());
    assert!(grains.is_empty());
    assert_same(&bytes, &disk.bytes, Path::new("stream"));
}

/// Over another image, zeros are said.
#[test]
fn zeros_over_a_parent() {
    let folders = Folders::new();
    let base = folders.ours.with_file_name("base.img");
    let mut random = Random(16);
    let size = 35 * MIB + 512;
    let below = Disk::random(size, GRAIN, &mut random);
    below.write(&mut create(
        &base,
        &Create { name: b"base.img", cid: 0x77, ..new(size, Subformat::MonolithicSparse) },
    ));
    let parent = Some(Parent { name: b"base.img", cid: 0x77 });
    for subformat in [Subformat::MonolithicSparse, Subformat::TwoGbMaxExtentSparse, STREAM, ONE_PASS] {
        for zeroed_grains in [false, true] {
            folders.clear();
            let mut disk = Disk { bytes: below.bytes.clone(), unit: GRAIN };
            let case = Create { parent, zeroed_grains, ..new(size, subformat) };
            let theirs = text(&folders.theirs);
            if subformat != ONE_PASS {
                let options =
                    format!("subformat={},zeroed_grain={zeroed_grains}", subformat.create_type().name());
                fs::copy(&base, folders.theirs.with_file_name("base.img")).unwrap();
                let args =
                    ["create", "-q", "-f", "vmdk", "-b", "base.img", "-F", "vmdk", "-o", &options, theirs];
                qemu_img_ok(&args);
                drop(create(&folders.ours, &Create { cid: cid(&folders.theirs), ..case }));
                folders.compare(&options);
            }
            let mut target = create(&folders.ours, &case);
            if target.codec().is_none() {
                disk.scribble(&mut target, &mut random);
            } else {
                let unit = usize::try_from(GRAIN).unwrap();
                for at in (0..disk.bytes.len()).step_by(unit) {
                    let length = unit.min(disk.bytes.len() - at);
                    let (offset, count) = (at as u64, length as u64);
                    match random.below(3) {
                        0 => {}
                        1 => {
                            disk.bytes[at..at + length].fill(0);
                            target.zero(offset, count).unwrap();
                        }
                        _ => {
                            disk.bytes[at..at + length].fill(7);
                            disk.store(&mut target, offset, count);
                        }
                    }
                }
                target.finish().unwrap();
            }
            let raw = folders.ours.with_extension("raw");
            qemu_img_ok(&["convert", "-f", "vmdk", "-O", "raw", text(&folders.ours), text(&raw)]);
            assert_same(&fs::read(&raw).unwrap(), &disk.bytes, &folders.ours);
        }
    }
}
