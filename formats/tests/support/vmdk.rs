//! VMDK images: made by `qemu-img`, and by hand where it makes none.

use std::path::{Path, PathBuf};

use formats::{Error, Format, Image};

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

/// A descriptor with these extent lines.
pub fn descriptor(create_type: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\
         # Extent description\n{extents}\n"
    )
}

/// Overwrites bytes with little-endian numbers: offset, length of the number in bytes, value.
pub fn patch(bytes: &mut Vec<u8>, patches: &[(usize, usize, u64)]) {
    for &(offset, length, value) in patches {
        if bytes.len() < offset + length {
            bytes.resize(offset + length, 0);
        }
        bytes[offset..offset + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }
}

/// A little-endian number.
pub fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    (0..length).rev().fold(0, |value, at| value << 8 | u64::from(bytes[offset + at]))
}

/// Moves the place of the grain directory from the header of a stream to a footer, as other programs write it.
pub fn with_footer(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let header = bytes[..512].to_vec();
    patch(&mut bytes, &[(56, 8, u64::MAX)]);
    let mut marker = vec![0; 512];
    patch(&mut marker, &[(0, 8, 1), (12, 4, 3)]);
    bytes.extend(marker);
    bytes.extend(header);
    bytes.extend([0; 512]);
    bytes
}

/// A `COWD` file of `grains` grains of `grain_sectors`, those of `stored` holding data, with a descriptor inside.
pub fn cowd(grains: usize, grain_sectors: usize, stored: &[usize]) -> Vec<u8> {
    let (tables, first) = (grains.div_ceil(4096), 32);
    let mut bytes = b"COWD".to_vec();
    let header = [1, 3, grains * grain_sectors, grain_sectors, 24, tables];
    let fields: Vec<_> =
        header.iter().enumerate().map(|(index, &value)| (4 + 4 * index, 4, value as u64)).collect();
    patch(&mut bytes, &fields);
    bytes.resize(512, 0);
    bytes.extend(descriptor("vmfsSparse", "RW 1 VMFSSPARSE \"x\"").bytes());
    bytes.resize((first + tables * 32) * 512, 0);
    for &grain in stored {
        let (table, sector) = (first + grain / 4096 * 32, bytes.len() / 512);
        patch(
            &mut bytes,
            &[
                (24 * 512 + 4 * (grain / 4096), 4, table as u64),
                (table * 512 + 4 * (grain % 4096), 4, sector as u64),
            ],
        );
        bytes.resize(bytes.len() + grain_sectors * 512, 7);
    }
    bytes
}

/// Grain table entries of [`se_sparse`] that stand for no data.
pub const UNMAPPED: u64 = 1 << 60;
pub const ZERO: u64 = 2 << 60;

/// A `SESPARSE` file of `sectors` sectors: `entries` are numbers of grains and what is in their table entry, where 0
/// stands for the next free grain.
pub fn se_sparse(sectors: u64, entries: &[(usize, u64)]) -> Vec<u8> {
    let grains = usize::try_from(sectors.div_ceil(8)).unwrap();
    let tables = grains.div_ceil(4096);
    let directory_sectors = tables.div_ceil(64);
    let (directory, first_table) = (2, 2 + directory_sectors);
    let first_grain = first_table + tables * 64;
    let mut bytes = Vec::new();
    let fields = [
        (0, 0xcafe_babe),
        (1, 0x2_0000_0001),
        (2, sectors),
        (3, 8),
        (4, 64),
        (10, 1),
        (11, 1),
        (16, directory as u64),
        (17, directory_sectors as u64),
        (18, first_table as u64),
        (19, (tables * 64) as u64),
        (24, first_grain as u64),
        (25, 8),
        (64, 0xcafe_cafe),
    ];
    patch(&mut bytes, &fields.map(|(index, value): (usize, u64)| (8 * index, 8, value)));
    bytes.resize(first_grain * 512, 0);
    let mut next = 0u64;
    for &(grain, value) in entries {
        let value = if value == 0 {
            bytes.resize(bytes.len() + 4096, 7);
            next += 1;
            3 << 60 | ((next - 1) & 0xfff) << 48 | (next - 1) >> 12
        } else {
            value
        };
        patch(
            &mut bytes,
            &[
                (directory * 512 + 8 * (grain / 4096), 8, 1 << 60 | (grain / 4096) as u64),
                ((first_table + grain / 4096 * 64) * 512 + 8 * (grain % 4096), 8, value),
            ],
        );
    }
    bytes
}
