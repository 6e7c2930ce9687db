use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
};

use protocol::Role;

use super::*;

const NEW: NewImage<'_> = NewImage { serial: "target", capacity: 1 << 30 };

fn create(path: &Path) -> Result<(Targets, FileFacts), String> {
    let mut targets = Targets::default();
    let facts = targets.create(path.as_os_str(), NEW).map_err(|error| error.to_string())?;
    Ok((targets, facts))
}

fn write(targets: &Targets, bytes: &[u8]) {
    let file = &targets.written.last().unwrap().file;
    file.set_length(bytes.len() as u64).unwrap();
    let file = File::from(file.as_fd().try_clone_to_owned().unwrap());
    file.write_all_at(bytes, 0).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_appears_when_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let (targets, facts) = create(&path).unwrap();
    assert_eq!((facts.length, facts.disk.as_str()), (0, "target"));
    assert!(targets.has_new() && !targets.has_parts());
    write(&targets, b"image");
    assert!(names(directory.path()).is_empty());
    targets.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"image");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7133, 0);

    let (targets, _) = create(&directory.path().join("other")).unwrap();
    write(&targets, b"image");
    drop(targets);
    assert_eq!(names(directory.path()), ["new"]);
}

#[test]
fn a_file_that_needs_a_name_has_one_with_a_dot() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Directory::open(directory.path()).unwrap();
    let (file, mut new) = NewFile::create_named(&open(), OsStr::new("disk")).unwrap();
    assert!(new.is_named() && names(directory.path())[0].starts_with(".instar-"));
    new.appear(file.as_fd()).unwrap();
    drop(new);
    assert_eq!(names(directory.path()), ["disk"]);
    let (file, mut late) = NewFile::create_named(&open(), OsStr::new("disk")).unwrap();
    assert_eq!(late.appear(file.as_fd()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(late);
    assert_eq!(names(directory.path()), ["disk"]);
}

#[test]
fn a_file_that_came_up_meanwhile_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let (targets, _) = create(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    let why = targets.commit().unwrap_err().to_string();
    assert_eq!(why, format!("Could not finish '{}': File exists", path.display()));
    assert_eq!(fs::read(&path).unwrap(), b"another's");
}

#[test]
fn an_existing_file_keeps_its_inode_and_is_emptied_by_failures_only_if_it_was_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, "old content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&path).unwrap();

    let (targets, facts) = create(&path).unwrap();
    assert_eq!(facts.length, 11);
    assert!(!targets.has_new());
    drop(targets);
    assert_eq!(fs::read(&path).unwrap(), b"old content");

    let (targets, _) = create(&path).unwrap();
    write(&targets, b"half");
    drop(targets);
    assert_eq!(fs::read(&path).unwrap(), b"");

    let (targets, _) = create(&path).unwrap();
    write(&targets, b"image");
    targets.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"image");
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
}

#[test]
fn links_lead_to_the_file_that_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("in")).unwrap();
    symlink("in/there", path("first")).unwrap();
    symlink("first", path("second")).unwrap();
    symlink("loop", path("loop")).unwrap();
    create(&path("second")).unwrap().0.commit().unwrap();
    assert_eq!(names(&path("in")), ["there"]);
    let why = |name: &str| create(&path(name)).unwrap_err();
    assert!(why("loop").ends_with("Too many levels of symbolic links"));
}

#[test]
fn refusals_have_qemu_img_s_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("in")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, words) in [
        ("in", "Is a directory"),
        ("in/", "Is a directory"),
        ("new/", "Is a directory"),
        ("none/new", "No such file or directory"),
    ] {
        let shown = path("").display().to_string();
        assert_eq!(create(&path(name)).unwrap_err(), format!("Could not create '{shown}{name}': {words}"));
    }
    assert_eq!(create(Path::new("")).unwrap_err(), "Could not create '': No such file or directory");
    assert!(create(&path("fifo")).unwrap_err().ends_with("neither a regular file nor a block device"));
    assert_eq!(create(Path::new("foo:bar")).unwrap_err(), "Unknown protocol 'foo'");
}

#[test]
fn two_writers_do_not_get_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, "").unwrap();
    let _first = create(&path).unwrap();
    let why = create(&path).unwrap_err();
    let hint = format!("\tIs another process using the image [{}]?", path.display());
    assert_eq!(why, format!("Failed to get \"write\" lock\n{hint}"));
}

#[test]
fn parts_are_named_as_vmdk_names_them() {
    for part in ["d-flat.vmdk", "d-f001.vmdk", "d-s001.vmdk", "d-s1000.vmdk"] {
        assert!(is_part(b"d.vmdk", part.as_bytes()), "{part}");
    }
    for part in
        ["d.vmdk", "d-flat", "d-f.vmdk", "d-s01.vmdk", "x-flat.vmdk", "d-s00x.vmdk", "d-fs001.vmdk", ""]
    {
        assert!(!is_part(b"d.vmdk", part.as_bytes()), "{part}");
    }
    assert!(is_part(b"disk", b"disk-flat") && is_part(b"a.b.c", b"a.b-s001.c"));
    assert!(!is_part(b"disk", b"../disk-flat") && !is_part(b"disk", b"disk-f/../"));
}

#[test]
fn parts_appear_with_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.vmdk");
    let need = |name: &str| Need {
        name: name.to_owned(),
        role: Role::NewExtent,
        of: "target".to_owned(),
        format: None,
    };
    let (mut targets, _) = create(&path).unwrap();
    let denied = targets.answer(&need("d-flat.vmdk"), "slot.0").unwrap_err();
    assert_eq!(denied.kind, ErrorKind::ReferenceDenied);
    targets.allow_parts(path.as_os_str(), 1 << 20).unwrap();
    assert_eq!(targets.answer(&need("other"), "slot.0").unwrap_err().kind, ErrorKind::ReferenceDenied);
    let (facts, disk) = targets.answer(&need("d-flat.vmdk"), "slot.0").unwrap();
    assert_eq!((facts.disk.as_str(), disk.serial.as_str()), ("slot.0", "slot.0"));
    fs::write(directory.path().join("d-s001.vmdk"), "old").unwrap();
    assert_eq!(targets.answer(&need("d-s001.vmdk"), "slot.1").unwrap().0.length, 3);
    assert_eq!(names(directory.path()), ["d-s001.vmdk"]);
    targets.commit().unwrap();
    assert_eq!(names(directory.path()), ["d-flat.vmdk", "d-s001.vmdk", "d.vmdk"]);
}

#[test]
fn if_one_cannot_appear_none_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut targets = create(&path("a")).unwrap().0;
    targets.create(path("b").as_os_str(), NewImage { serial: "data", ..NEW }).unwrap();
    fs::write(path("a"), "another's").unwrap();
    targets.commit().unwrap_err();
    assert_eq!(names(directory.path()), ["a"]);
}

#[test]
fn a_file_that_cannot_be_taken_around_the_page_cache_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let none = Cache::of_mode("none").unwrap();
    let mut targets = Targets::new(none, 0);
    targets.create(OsStr::new("/proc/thread-self/comm"), NEW).unwrap();
    targets.create(path.as_os_str(), NEW).unwrap();
    assert_eq!(
        targets.uncached().as_deref(),
        Some("Could not open '/proc/thread-self/comm': filesystem does not support O_DIRECT")
    );
    drop(targets);
    let mut targets = Targets::new(Cache::default(), 0);
    targets.create(OsStr::new("/proc/thread-self/comm"), NEW).unwrap();
    assert_eq!(targets.uncached(), None);
}
