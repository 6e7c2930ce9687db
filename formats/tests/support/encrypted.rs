//! Encrypted images made by the reference tools, and what is in them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;

use formats::{Access, Error, ExtentKind, Format, Image, Key, OpenOptions, Storage};

use super::{FileStorage, Random, qemu_img, qemu_img_ok, text};

/// The password of every image made here.
pub const PASSWORD: &str = "correct horse";

/// A secret as the reference tools take it on the command line.
pub fn secret(id: &str, password: &str) -> String {
    format!("secret,id={id},data={password}")
}

/// Name of the option that refers to the key's secret, with its prefix.
fn key_option(format: Format) -> &'static str {
    if format == Format::Luks { "key-secret" } else { "encrypt.key-secret" }
}

/// An image with its key, as `--image-opts` takes it; the secret's id is `s`.
pub fn image_opts(format: Format, path: &Path) -> String {
    format!("driver={},{}=s,file.filename={}", format.name(), key_option(format), text(path))
}

/// Creates an image, `options` being those of the format but for the key.
pub fn create(format: Format, path: &Path, options: &str, size: &str) {
    let options = format!("{}=s,{options}", key_option(format));
    let object = secret("s", PASSWORD);
    let args = ["create", "-q", "-f", format.name(), "--object", &object, "-o", &options, text(path), size];
    // Some releases give up on their key derivation benchmark at random.
    for _ in 0..20 {
        let output = qemu_img(&args);
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("accurate CPU usage"), "{options}: {said}");
    }
    panic!("{options}: the benchmark fails again and again");
}

/// Sectors of pseudo-random bytes with some of zeros between them.
pub fn plaintext(length: usize) -> Vec<u8> {
    let mut random = Random(length as u64 | 1);
    let mut bytes: Vec<u8> = (0..length / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    for (index, run) in bytes.chunks_mut(4096).enumerate() {
        if index % 5 == 3 {
            run.fill(0);
        }
    }
    bytes
}

/// Writes a raw image's bytes into an image that exists.
pub fn fill(format: Format, path: &Path, bytes: &[u8]) {
    let raw = path.with_extension("plain");
    std::fs::write(&raw, bytes).unwrap();
    let (object, target) = (secret("s", PASSWORD), image_opts(format, path));
    let args =
        ["convert", "-n", "-f", "raw", "--object", &object, "--target-image-opts", text(&raw), &target];
    qemu_img_ok(&args);
}

/// Opens an image with a password.
pub fn open(format: Format, path: &Path, password: &str) -> Result<Image<FileStorage>, Error> {
    open_storage(format, FileStorage::open(path), Key::Password(password))
}

/// Opens an image to read its data.
pub fn open_storage<S: Storage>(format: Format, storage: S, key: Key<'_>) -> Result<Image<S>, Error> {
    Image::open_with(
        storage,
        OpenOptions { format: Some(format), access: Access::Data(key), encryption: None },
    )
}

/// What the disk holds from `offset` on.
pub fn read<S: Storage>(image: &mut Image<S>, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), Error> {
    while !buffer.is_empty() {
        let extent = image.extent_at(offset)?;
        let length = buffer.len().min(usize::try_from(extent.length).unwrap_or(usize::MAX));
        let (now, later) = buffer.split_at_mut(length);
        now.fill(0);
        if let ExtentKind::Data { offset } = extent.kind {
            image.file_mut(extent.file).unwrap().read_at(offset, now)?;
            image.decrypt(&extent, 0, now)?;
        }
        offset += length as u64;
        buffer = later;
    }
    Ok(())
}

/// All that the disk holds.
pub fn content<S: Storage>(image: &mut Image<S>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    read(image, 0, &mut bytes)?;
    Ok(bytes)
}

/// What `qemu-img` has against an image that is opened with a password and options: its complaint without names.
pub fn complaint(format: Format, path: &Path, password: &str, more: &str) -> Option<String> {
    let (object, image) = (secret("s", password), image_opts(format, path) + more);
    let output = qemu_img(&["measure", "-O", "qcow2", "--object", &object, "--image-opts", &image]);
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().next().unwrap_or_default();
    Some(line.replace("qemu-img: ", "").replace(&format!("Could not open '{image}': "), ""))
}
