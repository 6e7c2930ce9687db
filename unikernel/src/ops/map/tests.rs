//! What is told of images, and in which pieces.

use alloc::{boxed::Box, string::ToString, vec, vec::Vec};

use protocol::{
    ErrorKind, ErrorRecord, ExtentMap, FileFacts, ImageSource, MAX_RECORD, MapAnswer, MapKind, MapPart,
    MapReader, MapRequest, MapRun, Part, QemuVersion, Record,
};

use super::run;
use crate::{file::File, files::Standalone};

const CLUSTER: usize = 1024;
const MESSAGE: &str = "Could not read file metadata: Input/output error";
const ENTRIES: usize = CLUSTER / 8;

/// A qcow2 image with clusters of 1 KiB and these L2 entries.
fn qcow2(entries: &[u64]) -> Vec<u8> {
    let tables = entries.len().div_ceil(ENTRIES);
    let l1 = 2 * CLUSTER;
    let l2 = l1 + (8 * tables).next_multiple_of(CLUSTER);
    let mut bytes = vec![0; l2 + tables * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &10_u32.to_be_bytes());
    put(24, &((entries.len() * CLUSTER) as u64).to_be_bytes());
    put(36, &u32::try_from(tables).unwrap().to_be_bytes());
    put(40, &(l1 as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    for table in 0..tables {
        put(l1 + 8 * table, &((l2 + table * CLUSTER) as u64).to_be_bytes());
    }
    for (index, entry) in entries.iter().enumerate() {
        put(l2 + 8 * index, &entry.to_be_bytes());
    }
    bytes
}

fn map(bytes: &[u8], profile: QemuVersion) -> (Result<MapAnswer, ErrorRecord>, Vec<MapPart>) {
    let length = bytes.len() as u64;
    let facts = FileFacts {
        disk: "source".to_string(),
        length,
        allocated: length,
        extents: ExtentMap::Inline(vec![(0, length)]),
        named_dmg: false,
    };
    let source = Box::new(ImageSource::new(facts, None));
    let request = MapRequest { profile, source, secrets: vec![], start: 0, end: None };
    let mut parts = Vec::new();
    let mut files = Standalone(|facts: &FileFacts| Ok(File::new(&facts.disk, bytes.to_vec())));
    let answer = run(&request, &mut files, &mut |part| parts.push(part));
    (answer, parts)
}

fn runs(parts: &[MapPart]) -> Vec<(MapKind, MapRun)> {
    let mut all = vec![];
    for part in parts {
        if let MapPart::Extents { kinds, runs } = part {
            all.extend(
                MapReader::new(kinds, runs).map(Result::unwrap).map(|run| (kinds[run.kind].clone(), run)),
            );
        }
    }
    all
}

#[test]
fn what_is_one_extent_depends_on_the_release() {
    // Zeros of the image's own, nothing, a compressed cluster, two neighbours.
    let image = qcow2(&[1, 0, 1 << 62 | 0x800, 0x1000, 0x1400]);
    for (profile, lengths) in [
        (QemuVersion::V5_2, &[2048, 1024, 2048][..]),
        (QemuVersion::V8_0, &[1024, 1024, 1024, 2048]),
        (QemuVersion::V11_1, &[1024, 1024, 1024, 2048]),
    ] {
        let (answer, parts) = map(&image, profile);
        assert_eq!(parts[0], MapPart::Disk { length: 5 * 1024 });
        let found = runs(&parts);
        assert_eq!(found.iter().map(|(_, run)| run.length).collect::<Vec<_>>(), lengths, "{profile:?}");
        assert_eq!(answer, Ok(MapAnswer { extents: lengths.len() as u64 }));
        let (kind, run) = found.last().unwrap();
        assert_eq!((kind.file.as_deref(), run.offset), (Some("source"), 0x1000));
    }
}

#[test]
fn no_part_is_longer_than_a_record() {
    // No two neighbours are one extent.
    let entries: Vec<u64> = (0..50_000_u64).map(|cluster| 1 << 20 | (cluster ^ 1) << 10).collect();
    let (answer, parts) = map(&qcow2(&entries), QemuVersion::default());
    assert!(parts.len() > 3, "{}", parts.len());
    let found = runs(&parts);
    for (index, (run, entry)) in found.iter().zip(&entries).enumerate() {
        assert_eq!((run.1.length, run.1.offset), (1024, *entry), "{index}");
    }
    assert_eq!(answer, Ok(MapAnswer { extents: found.len() as u64 }));
    for part in parts {
        let line = Record::Part { request_id: u64::MAX, part: Part::Map(part) }.to_line();
        assert!(line.len() <= MAX_RECORD, "{}", line.len());
        let read = protocol::parse_record(&line[..line.len() - 1]).unwrap();
        assert_eq!(read.to_line(), line);
    }
}

#[test]
fn what_was_found_before_a_fault_is_told() {
    let (answer, parts) = map(&qcow2(&[0x1000, 0, 0x1400, 0x1600]), QemuVersion::default());
    let lengths: Vec<u64> = runs(&parts).iter().map(|(_, run)| run.length).collect();
    // As with `qemu-img`, not the one before the fault, which may have been longer.
    assert_eq!(lengths, [1024, 1024]);
    let error = answer.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Corrupt, MESSAGE));
}
