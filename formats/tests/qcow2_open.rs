//! Existing qcow2 images that are written to: without faults, and with their snapshots as they were.

#[path = "support/journal.rs"]
mod journal;
mod support;

use std::path::{Path, PathBuf};

use formats::check::{Release, Terms};
use formats::qcow2::{Writer, open};
use formats::write::Writer as _;
use formats::{Access, ErrorKind, Format, Image, Key, OpenOptions};
use journal::Journal;
use support::qcow2::{GEOMETRIES, assert_sound, content, scribble, write};
use support::{Random, create, patch, qemu_img_ok, qemu_io, text};

fn opened(path: &Path) -> Result<Writer<Vec<u8>>, formats::Error> {
    open(std::fs::read(path).unwrap(), None, Key::None)
}

/// Finishes an image and stores it where it came from.
fn store(mut writer: Writer<Vec<u8>>, path: &Path) {
    writer.finish().unwrap();
    std::fs::write(path, writer.into_storage().0).unwrap();
}

/// The disk of an image, or of its snapshot.
fn disk(path: &Path, snapshot: Option<&str>) -> Vec<u8> {
    let raw = path.with_extension("disk");
    let mut arguments = vec!["convert", "-f", "qcow2", "-O", "raw"];
    arguments.extend(snapshot.iter().flat_map(|name| ["-l", name]));
    arguments.extend([text(path), text(&raw)]);
    qemu_img_ok(&arguments);
    std::fs::read(raw).unwrap()
}

/// An image with everything in it that a cluster can be, and a snapshot in the middle.
fn image(directory: &Path, list: &str, size: u64, random: &mut Random) -> PathBuf {
    let base = directory.join("base");
    std::fs::write(&base, content(&mut Random(5), 1 << 20, false)).unwrap();
    let list = list.replace("backing_file=base", &format!("backing_file={}", text(&base)));
    let path = create(directory, "image", &list, &size.to_string());
    let mut commands = Vec::new();
    for step in 0..40 {
        if step == 25 {
            commands.push("SNAPSHOT".to_owned());
        }
        let offset = random.below(size / 65536) * 65536;
        commands.push(match random.below(5) {
            0 if !list.contains("0.10") => format!("write -z {offset} 64k"),
            1 => format!("write -c -P {step} {offset} 64k"),
            2 => format!("discard {offset} 64k"),
            _ => format!("write -P {step} {offset} {}", 512 + random.below(200) * 512),
        });
    }
    let (before, after) = commands.split_at(25);
    let run = |commands: &[String]| {
        for command in commands.iter().filter(|command| *command != "SNAPSHOT") {
            // Compressed data cannot be written over all that there may be.
            let _ = std::process::Command::new("qemu-io")
                .args(["-f", "qcow2", "-c", command, text(&path)])
                .output()
                .unwrap();
        }
    };
    run(before);
    qemu_img_ok(&["snapshot", "-c", "one", text(&path)]);
    run(after);
    path
}

#[test]
fn images_with_everything_in_them_are_written_to() {
    let directory = tempfile::tempdir().unwrap();
    for (number, list) in (1..).zip(GEOMETRIES) {
        if list.contains("refcount_bits=1") {
            // No snapshot can be made.
            continue;
        }
        // Clusters that hold several streams and are shared have more references than two bits can count.
        let list = &list.replace("refcount_bits=2", "refcount_bits=8");
        let mut random = Random(number);
        let path = image(directory.path(), list, (3 << 20) + 512, &mut random);
        let (mut wanted, before) = (disk(&path, None), disk(&path, Some("one")));
        for steps in [1, 30] {
            let mut writer = opened(&path).unwrap();
            scribble(&mut random, &mut writer, &mut wanted, steps);
            store(writer, &path);
            assert_sound(&path, &wanted, list);
            assert!(disk(&path, Some("one")) == before, "{list}");
        }
        // What is given back is used again.
        qemu_img_ok(&["snapshot", "-d", "one", text(&path)]);
        let mut writer = opened(&path).unwrap();
        writer.zero(0, writer.virtual_size()).unwrap();
        write(&mut writer, 0, &wanted);
        store(writer, &path);
        assert_sound(&path, &wanted, list);
    }
}

/// Corruptions that are found in an image, and no leaks.
fn corruptions(bytes: &[u8]) -> u64 {
    let terms = Terms { release: Release { major: 10, minor: 0 }, memory: 1 << 24 };
    let options = OpenOptions { format: Some(Format::Qcow2), access: Access::Check, encryption: None };
    let mut image = Image::open_with(bytes, options).unwrap();
    let found = image.check(&terms, &mut |_| {}).unwrap().unwrap();
    found.corruptions + found.check_errors
}

#[test]
fn an_interruption_loses_space_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    for (number, list) in
        (1..).zip(["cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=16384,extended_l2=on"])
    {
        let mut random = Random(number);
        let path = image(directory.path(), list, 1 << 20, &mut random);
        let (mut wanted, before) = (disk(&path, None), disk(&path, Some("one")));
        let mut writer = open(Journal::new(std::fs::read(&path).unwrap()), None, Key::None).unwrap();
        for _ in 0..3 {
            scribble(&mut random, &mut writer, &mut wanted, 6);
            writer.finish().unwrap();
        }
        let journal = writer.into_storage().0;
        let step = (journal.events.len() / 60).max(1);
        for after in (0..=journal.events.len()).rev().step_by(step) {
            for chance in [0, 2, 4] {
                let left = journal.interrupted(after, &mut random, chance);
                assert_eq!(corruptions(&left), 0, "{list} {after} {chance}");
            }
        }
        std::fs::write(&path, &journal.bytes).unwrap();
        assert_sound(&path, &wanted, list);
        assert!(disk(&path, Some("one")) == before, "{list}");
    }
}

#[test]
fn a_file_does_not_grow_where_clusters_are_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "image", "", "4M");
    qemu_io("qcow2", &path, &["write -P 1 0 4M"]);
    let length = std::fs::metadata(&path).unwrap().len();
    let mut writer = opened(&path).unwrap();
    let bytes = content(&mut Random(1), 4 << 20, false);
    write(&mut writer, 0, &bytes);
    store(writer, &path);
    assert_sound(&path, &bytes, "");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
}

#[test]
fn refcounts_grow_with_an_existing_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "image", "cluster_size=512,refcount_bits=64", "3M");
    let mut writer = opened(&path).unwrap();
    let bytes = content(&mut Random(1), 3 << 20, false);
    write(&mut writer, 0, &bytes);
    store(writer, &path);
    assert_sound(&path, &bytes, "");
    // The reference leaves the very same file.
    let raw = directory.path().join("raw");
    std::fs::write(&raw, &bytes).unwrap();
    let other = create(directory.path(), "other", "cluster_size=512,refcount_bits=64", "3M");
    qemu_img_ok(&["convert", "-n", "-S", "0", "-O", "qcow2", text(&raw), text(&other)]);
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(length(&path), length(&other));
}

#[test]
fn images_that_were_not_closed_are_repaired_and_corrupt_ones_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "image", "lazy_refcounts=on", "4M");
    let mut bytes = content(&mut Random(3), 4 << 20, false);
    bytes[1 << 20..].fill(7);
    qemu_io("qcow2", &path, &["write -P 7 1M 3M"]);
    let sound = std::fs::read(&path).unwrap();

    let mut dirty = sound.clone();
    // The refcount of the last cluster was not written.
    let last = dirty.len() / 65536 - 1;
    patch(&mut dirty, &[(79, 1, 1), (0x2_0000 + 2 * last, 2, 0)]);
    std::fs::write(&path, &dirty).unwrap();
    let mut writer = opened(&path).unwrap();
    write(&mut writer, 0, &bytes[..1 << 20]);
    store(writer, &path);
    assert_sound(&path, &bytes, "");

    let mut corrupt = sound.clone();
    patch(&mut corrupt, &[(79, 1, 2)]);
    std::fs::write(&path, &corrupt).unwrap();
    let error = opened(&path).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert_eq!(error.message, "Image is corrupt; cannot be opened read/write");

    let mut unknown = sound.clone();
    patch(&mut unknown, &[(79, 1, 0x40)]);
    std::fs::write(&path, &unknown).unwrap();
    assert_eq!(opened(&path).unwrap_err().kind, ErrorKind::Unsupported);

    // An autoclear feature that nobody knows is cleared.
    let mut autoclear = sound;
    patch(&mut autoclear, &[(95, 1, 0x80)]);
    std::fs::write(&path, &autoclear).unwrap();
    store(opened(&path).unwrap(), &path);
    assert_eq!(std::fs::read(&path).unwrap()[95], 0);
}

#[test]
fn data_is_never_written_over_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path(), "image", "", "4M");
    qemu_io("qcow2", &path, &["write -P 7 0 64k"]);
    let sound = std::fs::read(&path).unwrap();
    let l2 = 0x4_0000;
    for place in [0_u64, 1, 2, 3, 0x1234] {
        let mut bytes = sound.clone();
        patch(&mut bytes, &[(l2, 8, 1 << 63 | place << 16)]);
        let mut writer = open(bytes, None, Key::None).unwrap();
        match writer.allocate(0, 65536) {
            Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt, "{place}"),
            // Offset 0 is no cluster.
            Ok(found) => assert!(place == 0 && found.offset >= 0x6_0000, "{place} {found:?}"),
        }
        // A refcount of 0 frees nothing that is in use.
        let mut bytes = sound.clone();
        patch(&mut bytes, &[(0x2_0000 + 2 * usize::try_from(place.min(3)).unwrap(), 2, 0)]);
        let mut writer = open(bytes, None, Key::None).unwrap();
        assert_eq!(writer.allocate(65536, 65536).unwrap_err().kind, ErrorKind::Corrupt, "{place}");
    }
}
