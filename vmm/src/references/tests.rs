use std::{fs, os::unix::fs::symlink, time::Duration};

use super::*;

/// A directory with an image `top` in it, and what is allowed.
fn references(root: &Path, allowed: &[&Path]) -> References {
    let directories = allowed.iter().map(|path| Directory::open(path).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut references = References::beneath(
        directories,
        Opening { lock: true, cache: Cache::default(), extents: true, deadline },
    );
    let top = root.join("top");
    fs::write(&top, "top").unwrap();
    references.know("source", top.as_os_str(), &File::open(&top).unwrap()).unwrap();
    references
}

fn need(of: &str, name: &str) -> Need {
    Need { name: name.into(), role: Role::Backing, of: of.into(), format: None }
}

fn refusal(references: &mut References, need: &Need) -> (ErrorKind, String) {
    let error = references.answer(need).unwrap_err();
    (error.kind, error.message)
}

#[test]
fn nothing_is_opened_unless_a_directory_is_allowed() {
    let (kind, message) = refusal(&mut References::denied(), &need("source", "/etc/\npasswd"));
    assert_eq!(kind, ErrorKind::ReferenceDenied);
    assert_eq!(
        message,
        "backing file '/etc/\\npasswd' is a reference to another file and was not followed (see --allow-references)"
    );
}

#[test]
fn files_beneath_the_directory_are_granted_in_slots() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("deep")).unwrap();
    fs::write(root.path().join("deep/base"), vec![1; 1000]).unwrap();
    fs::write(root.path().join("last"), "").unwrap();
    let mut references = references(root.path(), &[root.path()]);
    let base = references.answer(&need("source", "./deep/base")).unwrap();
    assert_eq!((base.facts.disk.as_str(), base.facts.length, base.disks.len()), ("slot.0", 1000, 1));
    // Relative to the file that names it; an absolute name is itself.
    let last = references.answer(&need("slot.0", "../last")).unwrap();
    assert_eq!(last.facts.disk, "slot.1");
    let shown = root.path().join("deep/../last");
    assert_eq!(references.name("slot.1"), Some(root.path().join("./deep/../last").as_os_str()), "{shown:?}");
    let absolute = need("source", root.path().join("last").to_str().unwrap());
    assert_eq!(references.answer(&absolute).unwrap().facts.disk, "slot.2");
}

#[test]
fn what_is_elsewhere_is_denied() {
    let root = tempfile::tempdir().unwrap();
    let allowed = root.path().join("allowed");
    fs::create_dir(&allowed).unwrap();
    fs::write(root.path().join("secret"), "s").unwrap();
    symlink("../secret", allowed.join("link")).unwrap();
    let mut references = references(root.path(), &[&allowed]);
    for name in ["secret", "../secret", "allowed/../secret", "/etc/passwd", "allowed/link", "allowed", "/"] {
        let (kind, message) = refusal(&mut references, &need("source", name));
        assert_eq!(kind, ErrorKind::ReferenceDenied, "{name}: {message}");
        assert!(message.contains("--allow-references"), "{name}: {message}");
    }
    for (name, kind) in
        [("nbd://host/x", ErrorKind::Unsupported), ("", ErrorKind::Io), ("allowed/none", ErrorKind::Io)]
    {
        assert_eq!(refusal(&mut references, &need("source", name)).0, kind, "{name}");
    }
    assert_eq!(refusal(&mut references, &need("slot.7", "allowed/x")).0, ErrorKind::ReferenceDenied);
}

#[test]
fn only_regular_files_are_granted() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    nix::unistd::mkfifo(&root.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut references = references(root.path(), &[root.path(), Path::new("/dev")]);
    for name in ["directory", "fifo", "/dev/zero"] {
        let (kind, message) = refusal(&mut references, &need("source", name));
        assert_eq!(kind, ErrorKind::ReferenceDenied, "{name}");
        assert!(message.contains("not a regular file"), "{message}");
    }
}

#[test]
fn no_image_is_below_itself() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("middle"), "m").unwrap();
    symlink("top", root.path().join("alias")).unwrap();
    let mut references = references(root.path(), &[root.path()]);
    let itself = refusal(&mut references, &need("source", "alias"));
    assert_eq!(
        itself,
        (ErrorKind::Corrupt, "backing file 'alias' is an image that itself leads to it".into())
    );
    references.answer(&need("source", "middle")).unwrap();
    assert_eq!(refusal(&mut references, &need("slot.0", "top")).0, ErrorKind::Corrupt);
    // Twice beside one another is no loop.
    references.answer(&need("source", "middle")).unwrap();
}

#[test]
fn chains_and_disks_are_bounded() {
    let root = tempfile::tempdir().unwrap();
    let mut references = references(root.path(), &[root.path()]);
    let mut of = "source".to_owned();
    for depth in 1..MAX_CHAIN {
        fs::write(root.path().join(depth.to_string()), "x").unwrap();
        of = references.answer(&need(&of, &depth.to_string())).unwrap().facts.disk;
    }
    fs::write(root.path().join("more"), "x").unwrap();
    assert_eq!(refusal(&mut references, &need(&of, "more")).0, ErrorKind::Limit);
    for _ in MAX_CHAIN - 1..MAX_SLOTS {
        references.answer(&need("source", "more")).unwrap();
    }
    assert_eq!(refusal(&mut references, &need("source", "more")).0, ErrorKind::Limit);
}
