//! The bytes that are read from an image are those that `qemu-img convert -O raw` makes of it, and what it does not decode
//! is corrupt.

mod support;

use std::fs;
use std::path::Path;

use formats::{Error, ErrorKind, ExtentKind, Format, Image, Storage};
use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
use ruzstd::encoding::{self, CompressionLevel};
use support::{FileStorage, Random, create, qemu_img_ok, qemu_io, text};

/// All of the disk, in reads of many lengths.
fn content<S: Storage>(image: &mut Image<S>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    let (mut offset, mut length) = (0, 1);
    while offset < bytes.len() {
        let end = bytes.len().min(offset + length);
        image.read(offset as u64, &mut bytes[offset..end])?;
        offset = end;
        length = length * 7 % 100_003;
    }
    Ok(bytes)
}

/// What `qemu-img` reads, if it can.
fn reference(path: &Path, format: &str) -> Option<Vec<u8>> {
    let raw = path.with_extension("reference");
    let converted = support::qemu_img(&["convert", "-f", format, "-O", "raw", text(path), text(&raw)]);
    let bytes = converted.status.success().then(|| fs::read(&raw).unwrap());
    let _ = fs::remove_file(raw);
    bytes
}

fn agrees(path: &Path, format: &str) {
    let mut image = Image::open(FileStorage::open(path), Format::from_name(format)).unwrap();
    let (ours, theirs) = (content(&mut image).unwrap(), reference(path, format).unwrap());
    assert_eq!(ours.len(), theirs.len(), "{}", path.display());
    let differs = (0..ours.len()).find(|&at| ours[at] != theirs[at]);
    assert_eq!(differs, None, "{}", path.display());
}

/// Bytes of which some compress and some do not, and holes, in a file of that length.
fn mixture(path: &Path, length: usize) {
    let mut random = Random(5);
    let mut bytes = vec![0; length];
    for _ in 0..60 {
        let at = usize::try_from(random.below(length as u64)).unwrap();
        let count = usize::try_from(random.below(60_000)).unwrap().min(length - at);
        let range = [2, 16, 256][usize::try_from(random.below(3)).unwrap()];
        bytes[at..at + count].fill_with(|| u8::try_from(random.below(range)).unwrap());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_format_is_read_as_qemu_img_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("source.raw");
    mixture(&raw, 3_000_832);
    agrees(&raw, "raw");
    for (format, options, compressed) in [
        ("qcow2", "compat=0.10", false),
        ("qcow2", "cluster_size=512", true),
        ("qcow2", "cluster_size=2M", true),
        ("qcow2", "compression_type=zstd", true),
        ("qcow2", "compression_type=zstd,cluster_size=512", true),
        ("qcow2", "compression_type=zstd,cluster_size=2M", true),
        ("qcow2", "extended_l2=on", false),
        ("qcow2", "extended_l2=on,cluster_size=16k", true),
        ("vmdk", "subformat=monolithicSparse", false),
        ("vmdk", "subformat=streamOptimized", false),
        ("vpc", "subformat=dynamic", false),
        ("vpc", "subformat=fixed", false),
        ("vhdx", "subformat=dynamic", false),
        ("vdi", "static=off", false),
        ("vdi", "static=on", false),
        ("qcow", "encryption=off", false),
        ("qed", "cluster_size=4k", false),
        ("parallels", "cluster_size=64k", false),
    ] {
        let path = directory.path().join(format!("image.{format}"));
        let mut arguments = vec!["convert", "-f", "raw", "-O", format, "-o", options];
        if compressed {
            arguments.push("-c");
        }
        arguments.extend([text(&raw), text(&path)]);
        qemu_img_ok(&arguments);
        agrees(&path, format);
    }
}

#[test]
fn clusters_written_zeroed_and_discarded_are_read() {
    let directory = tempfile::tempdir().unwrap();
    for (name, options) in [("one", "cluster_size=4k"), ("two", "cluster_size=16k,extended_l2=on")] {
        let path = create(directory.path(), name, options, "5000704");
        let commands = [
            "write -P 1 0 3M",
            "write -z 100k 300k",
            "write -z -u 700k 64k",
            "discard 1M 128k",
            "write -P 2 1100k 512",
            "write -c -P 3 4M 64k",
            "write -P 4 5000192 512",
        ];
        qemu_io("qcow2", &path, &commands);
        agrees(&path, "qcow2");
    }
}

const CLUSTER: usize = 65536;

/// A qcow2 image of one cluster, compressed as `stream`.
fn one_cluster(stream: &[u8], zstd: bool) -> Vec<u8> {
    let mut bytes = vec![0; 5 * CLUSTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16_u32.to_be_bytes());
    put(24, &65536_u64.to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &(3_u64 << 16).to_be_bytes());
    put(48, &(1_u64 << 16).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(72, &(u64::from(zstd) << 3).to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &112_u32.to_be_bytes());
    put(104, &[u8::from(zstd)]);
    put(CLUSTER, &(2_u64 << 16).to_be_bytes());
    put(3 * CLUSTER, &(1 << 63 | 4_u64 << 16).to_be_bytes());
    let sectors = stream.len().div_ceil(512) as u64 - 1;
    put(4 * CLUSTER, &(1 << 62 | sectors << 54 | 5 << 16).to_be_bytes());
    bytes.extend(stream);
    bytes
}

/// Whether the cluster is decoded, which `qemu-img` must agree on.
fn decodes(directory: &Path, name: &str, stream: &[u8], zstd: bool) -> bool {
    let (path, bytes) = (directory.join("stream.qcow2"), one_cluster(stream, zstd));
    fs::write(&path, &bytes).unwrap();
    let ours = content(&mut Image::open(&bytes[..], Some(Format::Qcow2)).unwrap());
    let theirs = reference(&path, "qcow2");
    assert_eq!(ours.as_ref().ok(), theirs.as_ref(), "{name}");
    if let Err(error) = &ours {
        assert_eq!((error.kind, error.field), (ErrorKind::Corrupt, "compressed cluster"), "{name}");
    }
    ours.is_ok()
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = Random(7);
    // Far repetitions: the second half is the first again.
    let half: Vec<u8> = (0..length / 2).map(|_| u8::try_from(random.below(16)).unwrap()).collect();
    [&half[..], &half, &[7][..length % 2]].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    encoding::compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A frame of one raw block after another, with a window of its own.
fn zstd_frame(window: u8, blocks: &[&[u8]]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    for (index, block) in blocks.iter().enumerate() {
        let header = u32::try_from(block.len() << 3).unwrap() | u32::from(index + 1 == blocks.len());
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(*block);
    }
    frame
}

#[test]
fn streams_of_deflate_are_decoded_or_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let decodes = |name, stream: &[u8]| decodes(directory.path(), name, stream, false);
    let (exact, deflate) = (noise(CLUSTER), |bytes: &[u8]| compress_to_vec(bytes, 9));
    assert!(decodes("exact, with distances past 4 KiB", &deflate(&exact)));
    assert!(decodes("longer", &deflate(&noise(CLUSTER + 1000))));
    assert!(decodes("bomb", &deflate(&vec![0; 30 << 20])));
    assert!(decodes("followed by something else", &[deflate(&exact), vec![0xff; 700]].concat()));
    assert!(!decodes("shorter", &deflate(&noise(CLUSTER - 1))));
    assert!(!decodes("cut off", &deflate(&exact)[..5000]));
    assert!(!decodes("with a zlib header", &compress_to_vec_zlib(&exact, 9)));
    assert!(!decodes("zeros", &[0; 512]));
}

#[test]
fn frames_of_zstandard_are_decoded_or_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let decodes = |name, stream: &[u8]| decodes(directory.path(), name, stream, true);
    let exact = noise(CLUSTER);
    let (first, second) = exact.split_at(30_000);
    assert!(decodes("exact", &zstd(&exact)));
    assert!(decodes("two frames", &[zstd(first), zstd(second)].concat()));
    let skipped = [&0x184d_2a50_u32.to_le_bytes()[..], &[5, 0, 0, 0], b"12345"].concat();
    assert!(decodes("a frame to skip", &[skipped, zstd(&exact)].concat()));
    assert!(decodes("followed by something else", &[zstd(&exact), vec![0xff; 700]].concat()));
    assert!(decodes("blocks", &zstd_frame(0x30, &[first, second])));
    assert!(decodes("the largest window", &zstd_frame(0x88, &[&exact])));
    assert!(!decodes("a larger window", &zstd_frame(0x89, &[&exact])));
    assert!(!decodes("the largest window there is", &zstd_frame(0xff, &[&exact])));
    assert!(!decodes("longer", &zstd(&noise(CLUSTER + 2))));
    assert!(!decodes("a second frame that is longer", &[zstd(first), zstd(&exact)].concat()));
    assert!(!decodes("longer in blocks", &zstd_frame(0x30, &[&exact, b"x"])));
    assert!(!decodes("shorter", &zstd(first)));
    assert!(!decodes("cut off", &zstd(&exact)[..5000]));
    assert!(!decodes("zeros", &[0; 512]));
    let with = |at: usize, value: u8| {
        let mut frame = zstd_frame(0x30, &[first, second]);
        frame[at] |= value;
        frame
    };
    assert!(!decodes("a reserved bit", &with(4, 1 << 3)));
    assert!(!decodes("a checksum that is not there", &with(4, 1 << 2)));
    let mut dictionary = with(4, 1);
    dictionary.insert(6, 5);
    assert!(!decodes("a dictionary", &dictionary));
    let bomb = zstd_frame(0x88, &[&exact[..]; 3]);
    assert!(!decodes("bomb", &bomb));
}

#[test]
fn damaged_streams_are_decoded_or_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let (mut random, exact) = (Random(11), noise(CLUSTER));
    for (stream, zstd) in [(compress_to_vec(&exact, 6), false), (zstd(&exact), true)] {
        for turn in 0..60 {
            let mut damaged = stream.clone();
            let at = random.below([100, damaged.len() as u64][turn % 2]);
            damaged[usize::try_from(at).unwrap()] ^= 1 << random.below(8);
            decodes(directory.path(), &format!("bit at {at}"), &damaged, zstd);
        }
    }
}

#[test]
fn grains_are_decoded_or_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let (raw, path) = (directory.path().join("source.raw"), directory.path().join("stream.vmdk"));
    fs::write(&raw, noise(CLUSTER)).unwrap();
    qemu_img_ok(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        text(&raw),
        text(&path),
    ]);
    let image = fs::read(&path).unwrap();
    let extent = Image::open(&image[..], Some(Format::Vmdk)).unwrap().extent_at(0).unwrap();
    let ExtentKind::Compressed { offset, .. } = extent.kind else { panic!("{extent:?}") };
    let data = usize::try_from(offset).unwrap();
    let with = |stream: &[u8]| {
        let mut image = image.clone();
        image[data - 4..data].copy_from_slice(&u32::try_from(stream.len()).unwrap().to_le_bytes());
        image.resize(image.len().max(data + stream.len()), 0);
        image[data..data + stream.len()].copy_from_slice(stream);
        fs::write(&path, &image).unwrap();
        let ours = content(&mut Image::open(&image[..], Some(Format::Vmdk)).unwrap());
        assert_eq!(ours.as_ref().ok(), reference(&path, "vmdk").as_ref());
        ours.is_ok()
    };
    let zlib = |length: usize| compress_to_vec_zlib(&noise(length), 9);
    let exact = zlib(CLUSTER);
    assert!(with(&exact));
    assert!(with(&[&exact[..], &[0xff; 100]].concat()));
    assert!(!with(&zlib(CLUSTER + 2)));
    assert!(!with(&zlib(CLUSTER - 2)));
    assert!(!with(&compress_to_vec(&noise(CLUSTER), 9)));
    assert!(!with(&exact[..exact.len() - 4]));
    let mut checksum = exact.clone();
    *checksum.last_mut().unwrap() ^= 1;
    assert!(!with(&checksum));
}

#[test]
fn encrypted_data_is_not_read_without_a_key() {
    let mut bytes = one_cluster(&noise(CLUSTER), false);
    bytes[32..36].copy_from_slice(&1_u32.to_be_bytes());
    bytes[4 * CLUSTER..][..8].copy_from_slice(&(1_u64 << 63 | 5 << 16).to_be_bytes());
    let mut image = Image::open_metadata(&bytes[..], Some(Format::Qcow2)).unwrap();
    assert_eq!(image.read(0, &mut [0; 512]).unwrap_err().kind, ErrorKind::Key);
}

#[test]
fn reads_end_with_the_extent() {
    let bytes = one_cluster(&compress_to_vec(&noise(CLUSTER), 6), false);
    let mut image = Image::open(&bytes[..], Some(Format::Qcow2)).unwrap();
    let extent = image.extent_at(0).unwrap();
    assert_eq!(image.read_extent(&extent, 65535, &mut [0; 2]).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(image.read_extent(&extent, u64::MAX, &mut [0; 2]).unwrap_err().kind, ErrorKind::Limit);
    let mut part = [0; 2];
    image.read_extent(&extent, 65534, &mut part).unwrap();
    assert_eq!(part, noise(CLUSTER)[65534..]);
}
