//! Damaged images: whatever the bytes, opening and walking neither panics nor goes on without end.

mod support;

use formats::{ExtentKind, Image};
use support::{Memory, Random, create, qemu_img_ok, qemu_io, text};

const ROUNDS: u32 = 4000;

/// Opens, walks to the end or to the first error, and counts the steps.
fn survive(bytes: &[u8], allocated: u64) {
    for open in [Image::open, Image::open_metadata] {
        let storage = Memory { bytes: bytes.to_vec(), allocated, holes: true };
        let Ok(mut image) = open(storage, None) else { continue };
        let (mut offset, mut steps, bound, size) = (0, 0, image.max_extents(), image.virtual_size());
        while offset < size {
            let Ok(extent) = image.extent_at(offset) else { break };
            assert!(extent.start == offset && extent.length >= 1 && extent.length <= size - offset);
            if let ExtentKind::Compressed { length, .. } = extent.kind {
                assert!(length >= 1);
            }
            offset += extent.length;
            steps += 1;
            assert!(steps <= bound, "more than {bound} steps");
        }
    }
}

#[test]
fn flipped_bytes_of_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    for (index, options) in [
        "cluster_size=512",
        "compat=0.10,cluster_size=512",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=4096,preallocation=metadata",
    ]
    .into_iter()
    .enumerate()
    {
        let path = create(directory.path(), &format!("{index}.qcow2"), options, "300k");
        qemu_io("qcow2", &path, &["write -P 1 0 20k", "write -P 2 60k 30k"]);
        if !options.contains("preallocation") {
            qemu_io("qcow2", &path, &["write -c -P 3 128k 16k"]);
        }
        qemu_img_ok(&["snapshot", "-c", "one", text(&path)]);
        if !options.contains("0.10") {
            qemu_img_ok(&["bitmap", "--add", text(&path), "bitmap"]);
        }
        let base = std::fs::read(&path).unwrap();
        // Data need not be hit: clusters that hold the same byte throughout are data.
        let interesting: Vec<usize> = base
            .chunks(512)
            .enumerate()
            .filter(|(_, sector)| !sector.iter().all(|&byte| byte == sector[0]))
            .flat_map(|(number, _)| number * 512..(number + 1) * 512)
            .filter(|&at| at < base.len())
            .collect();
        for round in 0..ROUNDS {
            let mut bytes = base.clone();
            for _ in 0..1 + random.below(4) {
                let among = if round % 2 == 0 { interesting.len() } else { 112.min(interesting.len()) };
                let at = interesting[usize::try_from(random.below(among as u64)).unwrap()];
                bytes[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => bytes[at] ^ (1 << random.below(8)),
                    _ => random.next().to_le_bytes()[0],
                };
            }
            if random.below(16) == 0 {
                bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap());
            }
            survive(&bytes, random.below(2) * bytes.len() as u64);
        }
    }
}

#[test]
fn noise_behind_a_signature() {
    let mut random = Random(8);
    for _ in 0..ROUNDS {
        let mut bytes: Vec<u8> = (0..random.below(2048)).map(|_| random.next().to_le_bytes()[0]).collect();
        if bytes.len() >= 24 {
            bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            bytes[20..24].copy_from_slice(&[0, 0, 0, 9]);
        }
        survive(&bytes, 0);
    }
}
