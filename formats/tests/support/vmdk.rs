//! VMDK images: made by `qemu-img`, and by hand where it makes none.

use std::path::{Path, PathBuf};

use formats::{Error, Format, Image};

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use images::build::vmdk::*;

use super::{FileStorage, qemu_img, qemu_img_ok, text};

/// Creates an image of a subformat, `options` being more of the value of `-o` or nothing.
pub fn create(directory: &Path, name: &str, subformat: &str, options: &str, size: &str) -> PathBuf {
    let path = directory.join(name);
    let options = format!("subformat={subformat}{options}");
    qemu_img_ok(&["create", "-q", "-f", "vmdk", "-o", &options, text(&path), size]);
    path
}

/// Converts a raw file.
pub fn convert(raw: &Path, name: &str, options: &str) -> PathBuf {
    let path = raw.parent().unwrap().join(name);
    qemu_img_ok(&["convert", "-f", "raw", "-O", "vmdk", "-o", options, text(raw), text(&path)]);
    path
}

/// Opens an image with the files that it names, which lie beside it.
pub fn open(path: &Path) -> Result<Image<FileStorage>, Error> {
    let mut image = Image::open(FileStorage::open(path), Some(Format::Vmdk))?;
    let beside =
        |name: &Vec<u8>| FileStorage::open(&path.parent().unwrap().join(std::str::from_utf8(name).unwrap()));
    let files: Vec<_> = image.references().iter().map(beside).collect();
    image.attach(files)?;
    Ok(image)
}

/// What `qemu-img measure` has against an image, without its own name and the file's. Nothing if it succeeds.
pub fn complaint(path: &Path) -> Option<String> {
    let output = qemu_img(&["measure", "-f", "vmdk", "-O", "qcow2", text(path)]);
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let open = format!("qemu-img: Could not open '{}': ", text(path));
    let line = said.trim_end_matches('\n');
    Some(line.strip_prefix(&open).or_else(|| line.strip_prefix("qemu-img: ")).unwrap_or(line).to_owned())
}
