//! qcow2 images that are written to, and what their disks are to hold.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;

use formats::qcow2::{ClusterBits, Compression, Create, Preallocation, Version};
use formats::write::Writer;
use formats::{BackingFile, Codec, StorageMut};
use miniz_oxide::deflate::compress_to_vec;

use super::{Random, qemu_img_ok, text};

/// An option list of the reference tool and what it means.
pub fn options(list: &str, size: u64) -> Create {
    let mut options = Create::new(size).unwrap();
    let mut format = None;
    for (key, value) in list.split(',').filter_map(|item| item.split_once('=')) {
        match key {
            "compat" => options.version = if value == "0.10" { Version::V2 } else { Version::V3 },
            "cluster_size" => {
                let size: u32 = value.parse().unwrap();
                options.cluster_bits = ClusterBits::new(size.trailing_zeros()).unwrap();
            }
            "refcount_bits" => options.refcount_bits = value.parse().unwrap(),
            "lazy_refcounts" => options.lazy_refcounts = value == "on",
            "extended_l2" => options.extended_l2 = value == "on",
            "compression_type" => options.compression = Compression::Zstd,
            "backing_file" => {
                options.backing = Some(BackingFile { name: value.into(), format: None });
            }
            "backing_fmt" => format = Some(value.as_bytes().to_vec()),
            "data_file" => options.data_file = Some(value.into()),
            "data_file_raw" => options.data_file_raw = value == "on",
            "preallocation" => {
                options.preallocation =
                    if value == "metadata" { Preallocation::Metadata } else { Preallocation::Data };
            }
            _ => panic!("{key}"),
        }
    }
    if let Some(backing) = &mut options.backing {
        backing.format = format;
    }
    options
}

/// Has bytes of the disk stored where the writer says, in requests of at most 2 MiB.
pub fn write<W: Writer>(writer: &mut W, offset: u64, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let request = (bytes.len() - done).min(2 << 20);
        let at = offset + done as u64;
        let place = writer.allocate(at, request as u64).unwrap();
        assert!(place.length >= 1 && place.length <= request as u64, "{place:?}");
        let length = usize::try_from(place.length).unwrap();
        let mut stored = bytes[done..done + length].to_vec();
        writer.encode(at, &place, &mut stored);
        writer.file(place.file).unwrap().write_at(place.offset, &stored).unwrap();
        done += length;
    }
}

/// Has a cluster stored in compressed form, or as it is if it cannot be. `bytes` may be less at the end of the disk.
pub fn write_compressed<W: Writer>(writer: &mut W, offset: u64, bytes: &[u8]) {
    assert_eq!(writer.codec(), Some(Codec::Deflate));
    let mut whole = bytes.to_vec();
    whole.resize(usize::try_from(writer.unit()).unwrap(), 0);
    let mut stream = compress_to_vec(&whole, 1);
    match writer.allocate_compressed(offset, &mut stream).unwrap() {
        None => write(writer, offset, bytes),
        Some(place) => {
            assert_eq!(place.length, stream.len() as u64);
            writer.file(place.file).unwrap().write_at(place.offset, &stream).unwrap();
        }
    }
}

/// Bytes that a compressor makes shorter, looking back a few bytes only, or bytes that it does not.
pub fn content(random: &mut Random, length: usize, compressible: bool) -> Vec<u8> {
    if !compressible {
        return (0..length).map(|_| random.next().to_le_bytes()[7]).collect();
    }
    let unit = random.next().to_le_bytes();
    let mut bytes: Vec<u8> = unit.iter().copied().cycle().take(length).collect();
    for _ in 0..length / 64 {
        let at = usize::try_from(random.below(length as u64)).unwrap();
        bytes[at] = random.next().to_le_bytes()[7];
    }
    bytes
}

/// That an image is without faults and leaks, and that its disk holds `disk`.
pub fn assert_sound(path: &Path, disk: &[u8], what: &str) {
    let output = super::qemu_img(&["check", "-f", "qcow2", text(path)]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
    let raw = path.with_extension("raw");
    qemu_img_ok(&["convert", "-f", "qcow2", "-O", "raw", text(path), text(&raw)]);
    let found = std::fs::read(&raw).unwrap();
    std::fs::remove_file(raw).unwrap();
    assert_eq!(found.len(), disk.len(), "{what}");
    if found != disk {
        let at = found.iter().zip(disk).position(|(found, wanted)| found != wanted);
        panic!("{what}: the disk differs at {at:x?}");
    }
}

/// Geometries for writes in any order.
pub const GEOMETRIES: [&str; 9] = [
    "cluster_size=512",
    "cluster_size=512,refcount_bits=1",
    "cluster_size=512,refcount_bits=64",
    "cluster_size=4096,compat=0.10",
    "cluster_size=4096,refcount_bits=2",
    "cluster_size=65536",
    "cluster_size=16384,extended_l2=on",
    "cluster_size=4096,backing_file=base,backing_fmt=raw",
    "cluster_size=512,compat=0.10,backing_file=base,backing_fmt=raw",
];

/// Writes, compresses and zeroes parts of a disk at random; `disk` is what it holds.
pub fn scribble(random: &mut Random, writer: &mut impl Writer, disk: &mut [u8], steps: u32) {
    let (unit, size) = (writer.unit(), writer.virtual_size());
    let clusters = size.div_ceil(unit);
    for _ in 0..steps {
        let first = random.below(clusters);
        let most = if random.below(4) == 0 { clusters } else { 6 };
        let count = 1 + random.below(most.min(clusters - first));
        let (start, end) = (first * unit, size.min((first + count) * unit));
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        match random.below(4) {
            0 => {
                writer.zero(start, end - start).unwrap();
                disk[range].fill(0);
            }
            1 if most == 6 && writer.codec().is_some() => {
                for start in (start..end).step_by(usize::try_from(unit).unwrap()) {
                    let range =
                        usize::try_from(start).unwrap()..usize::try_from(end.min(start + unit)).unwrap();
                    let compressible = random.below(8) != 0;
                    let bytes = content(random, range.len(), compressible);
                    write_compressed(writer, start, &bytes);
                    disk[range].copy_from_slice(&bytes);
                }
            }
            _ => {
                let bytes = content(random, range.len(), false);
                write(writer, start, &bytes);
                disk[range].copy_from_slice(&bytes);
            }
        }
    }
}
