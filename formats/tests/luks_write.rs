//! LUKS images, and qcow2 images with LUKS inside, that are written here: the reference opens them and finds what was written.

mod support;

use std::path::Path;

use formats::luks::{self, Encryption, NewHeader};
use formats::qcow2;
use formats::write::Writer;
use formats::{Access, Format, Image, Key, OpenOptions};
use support::encrypted::{self, PASSWORD, image_opts, plaintext, secret};
use support::qcow2::{options, write};
use support::{Random, qemu_img, qemu_img_ok, text};

/// Cipher, mode, generator, its hash, hash.
type Names = (&'static str, &'static str, &'static str, Option<&'static str>, &'static str);

const CIPHERS: [Names; 12] = [
    ("aes-256", "xts", "plain64", None, "sha256"),
    ("aes-128", "cbc", "essiv", Some("sha256"), "sha1"),
    ("aes-192", "xts", "plain64", None, "sha512"),
    ("aes-256", "ctr", "plain", None, "ripemd160"),
    ("aes-128", "ecb", "plain64", None, "md5"),
    ("aes-256", "xts", "plain64", Some("sha1"), "sha224"),
    ("serpent-128", "xts", "plain64", None, "sha384"),
    ("serpent-192", "xts", "plain", None, "sha256"),
    ("twofish-256", "xts", "plain", None, "sm3"),
    ("twofish-128", "cbc", "essiv", Some("sha256"), "sha256"),
    ("cast5-128", "cbc", "plain64", None, "sha256"),
    ("cast5-128", "ctr", "plain64", None, "sha256"),
];

fn header(names: Names, seed: u64) -> NewHeader {
    let (cipher, mode, iv_generator, iv_hash, hash) = names;
    let how = Encryption {
        cipher,
        mode,
        iv_generator,
        iv_hash,
        hash,
        ..Encryption::new(PASSWORD.as_bytes(), 1500)
    };
    let mut random = Random(seed);
    NewHeader::new(&how, &mut |bytes| bytes.fill_with(|| random.next().to_le_bytes()[7])).unwrap()
}

/// What the reference finds on the disk of an image.
fn found(format: Format, path: &Path) -> Vec<u8> {
    let raw = path.with_extension("found");
    let (object, image) = (secret("s", PASSWORD), image_opts(format, path));
    qemu_img_ok(&["convert", "--object", &object, "--image-opts", &image, "-O", "raw", text(&raw)]);
    std::fs::read(raw).unwrap()
}

fn store<S: AsRef<[u8]>>(path: &Path, bytes: S) {
    std::fs::write(path, bytes).unwrap();
}

/// The lines of `info` about encryption, but for what is random or takes the time that there is.
fn info(path: &Path) -> Vec<String> {
    let said = qemu_img_ok(&["info", text(path)]);
    let varies = |line: &str| {
        ["uuid", "iters", "image:", "disk size", "filename:"].iter().any(|part| line.contains(part))
    };
    said.lines().filter(|line| !varies(line)).map(str::to_owned).collect()
}

#[test]
fn luks_images_are_those_of_the_reference_but_for_what_is_random() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("image"), directory.path().join("other"));
    let disk = plaintext((128 << 10) + 512);
    for (seed, names) in (1..).zip(CIPHERS) {
        let mut writer = luks::create(Vec::new(), &header(names, seed), disk.len() as u64).unwrap();
        write(&mut writer, 0, &disk);
        writer.finish().unwrap();
        store(&path, writer.into_storage());
        assert!(found(Format::Luks, &path) == disk, "{names:?}");
        let mut image = encrypted::open(Format::Luks, &path, PASSWORD).unwrap();
        assert!(encrypted::content(&mut image).unwrap() == disk, "{names:?}");
        // The reference takes its time for each.
        if seed % 4 == 2 {
            let (cipher, mode, generator, hash, digest) = names;
            let mut list = format!(
                "cipher-alg={cipher},cipher-mode={mode},ivgen-alg={generator},hash-alg={digest},iter-time=10"
            );
            list.extend(hash.map(|hash| format!(",ivgen-hash-alg={hash}")));
            encrypted::create(Format::Luks, &other, &list, &disk.len().to_string());
            let length = |path: &Path| std::fs::metadata(path).unwrap().len();
            assert_eq!((length(&path), info(&path)), (length(&other), info(&other)), "{names:?}");
        }
    }
}

#[test]
fn a_disk_that_is_not_whole_sectors_has_the_length_of_the_reference() {
    let writer = luks::create(Vec::new(), &header(CIPHERS[0], 1), 1000).unwrap();
    assert_eq!(writer.virtual_size(), 1024);
    assert_eq!(writer.into_storage().len(), 2_068_480 + 1000);
    assert!(luks::create(Vec::new(), &header(CIPHERS[0], 1), u64::MAX).is_err());
}

#[test]
fn existing_images_are_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    for (format, list, size) in [
        (Format::Luks, "iter-time=10,cipher-mode=cbc,ivgen-alg=essiv", "400K"),
        (Format::Qcow2, "encrypt.format=luks,encrypt.iter-time=10,cluster_size=4k", "400K"),
        (Format::Qcow2, "encrypt.format=aes,compat=0.10,cluster_size=4k", "400K"),
    ] {
        encrypted::create(format, &path, list, size);
        let mut disk = plaintext(400 << 10);
        encrypted::fill(format, &path, &disk);
        let part = plaintext(40 << 10);
        disk[64 << 10..104 << 10].copy_from_slice(&part);
        disk[200 << 10..300 << 10].fill(0);
        let key = Key::Password(PASSWORD);
        let bytes = std::fs::read(&path).unwrap();
        let bytes = match format {
            Format::Luks => {
                assert!(luks::open(bytes.clone(), Key::Password("wrong")).is_err());
                let mut writer = luks::open(bytes, key).unwrap();
                change(&mut writer, &part);
                writer.into_storage()
            }
            _ => {
                let mut writer = qcow2::open(bytes, None, key).unwrap();
                assert!(writer.codec().is_none());
                change(&mut writer, &part);
                writer.into_storage().0
            }
        };
        store(&path, bytes);
        assert!(found(format, &path) == disk, "{list}");
    }
}

fn change(writer: &mut impl Writer, part: &[u8]) {
    assert!(writer.encrypts());
    write(writer, 64 << 10, part);
    writer.zero(200 << 10, 100 << 10).unwrap();
    writer.finish().unwrap();
}

#[test]
fn encrypted_qcow2_images_are_as_long_as_those_of_the_reference() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("image"), directory.path().join("other"));
    let disk = plaintext((300 << 10) + 512);
    let raw = directory.path().join("raw");
    store(&raw, &disk);
    for list in [
        "",
        "cluster_size=512",
        "cluster_size=4096,preallocation=metadata",
        "cluster_size=2097152,extended_l2=on",
        "compat=0.10,backing_file=/dev/null,backing_fmt=raw",
    ] {
        for luks in [true, false] {
            if !luks && !list.contains("compat") {
                continue;
            }
            let encryption = match luks {
                true => qcow2::Encryption::Luks(header(CIPHERS[1], 9)),
                false => qcow2::Encryption::Aes(PASSWORD.into()),
            };
            let new = qcow2::Create { encryption: Some(encryption), ..options(list, disk.len() as u64) };
            let mut writer = qcow2::create(Vec::new(), None, &new).unwrap();
            write(&mut writer, 0, &disk);
            writer.finish().unwrap();
            let bytes = writer.into_storage().0;
            store(&path, &bytes);
            let (object, image) = (secret("s", PASSWORD), image_opts(Format::Qcow2, &path));
            let checked = qemu_img(&["check", "--object", &object, "--image-opts", &image]);
            assert!(checked.status.success(), "{list} {checked:?}");
            if !list.contains("backing") {
                assert!(found(Format::Qcow2, &path) == disk, "{list}");
            }
            let access = Access::Data(Key::Password(PASSWORD));
            let opened = OpenOptions { format: Some(Format::Qcow2), access, encryption: None };
            let mut image = Image::open_with(&bytes[..], opened).unwrap();
            assert!(encrypted::content(&mut image).unwrap() == disk, "{list}");
            if luks && !list.contains("backing") {
                let how = format!(
                    "{list},encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,\
                     encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv"
                );
                let how = how.trim_start_matches(',');
                let arguments = ["convert", "-S", "0", "-f", "raw", "-O", "qcow2", "--object", &object, "-o"];
                qemu_img_ok(&[&arguments[..], &[how, text(&raw), text(&other)]].concat());
                assert_eq!(std::fs::metadata(&other).unwrap().len(), bytes.len() as u64, "{list}");
            }
        }
    }
}

#[test]
fn what_is_no_cipher_is_refused() {
    let with = |names: Names| {
        let (cipher, mode, iv_generator, iv_hash, hash) = names;
        let how = Encryption { cipher, mode, iv_generator, iv_hash, hash, ..Encryption::new(b"x", 1) };
        NewHeader::new(&how, &mut |bytes| bytes.fill(1)).unwrap_err().message
    };
    assert_eq!(with(("des", "xts", "plain64", None, "sha256")), "Algorithm 'des' not supported");
    assert_eq!(with(("aes-64", "xts", "plain64", None, "sha256")), "Algorithm 'aes-64' not supported");
    assert_eq!(with(("aes-128", "x", "plain64", None, "sha256")), "Cipher mode 'x' not supported");
    assert_eq!(with(("cast5-128", "xts", "plain64", None, "sha256")), "Unsupported cipher mode xts");
    assert_eq!(
        with(("cast5-128", "cbc", "essiv", Some("sha256"), "sha256")),
        "Cipher cast5-128 not supported with essiv"
    );
}
