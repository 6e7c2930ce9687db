//! What is said of images, and in which pieces.

use alloc::{boxed::Box, string::ToString, vec, vec::Vec};

use formats::{Region, Storage, StorageError};
use protocol::{
    Answer, ErrorKind, ErrorRecord, ExtentMap, FileFacts, ImageInfo, ImageSource, InfoPart, InfoRequest,
    MAX_RECORD, Part, QemuVersion, Record,
};

use super::run;
use crate::files::Standalone;

/// A file in memory.
struct Memory(Vec<u8>);

impl Storage for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        Ok(Region { length: self.len().saturating_sub(offset).max(1), hole: false })
    }
}

fn info(bytes: &[u8], backing_chain: bool) -> Result<(ImageInfo, Vec<InfoPart>), ErrorRecord> {
    let length = bytes.len() as u64;
    let facts = FileFacts {
        disk: "source".to_string(),
        length,
        allocated: length,
        extents: ExtentMap::Inline(vec![(0, length)]),
        named_dmg: false,
    };
    let source = Box::new(ImageSource::new(facts, None));
    let request = InfoRequest { profile: QemuVersion::default(), source, backing_chain };
    let mut parts = Vec::new();
    let mut files = Standalone(|_: &FileFacts| Ok(Memory(bytes.to_vec())));
    let answer = run(&request, &mut files, &mut |part| parts.push(part))?;
    Ok((answer, parts))
}

/// A qcow2 image of version 2 with a disk of 1 MiB, a backing file `base`, and snapshots with these names.
fn qcow2(snapshots: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 0x4_0000];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x02");
    put(8, &0x100_u64.to_be_bytes());
    put(16, &4_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &(1_u64 << 20).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &0x1_0000_u64.to_be_bytes());
    put(48, &0x2_0000_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(60, &u32::try_from(snapshots.len()).unwrap().to_be_bytes());
    put(64, &0x4_0000_u64.to_be_bytes());
    put(0x100, b"base");
    for name in snapshots {
        let mut entry = vec![0; 40];
        entry[14..16].copy_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend_from_slice(name);
        entry.resize(entry.len().next_multiple_of(8), 0);
        bytes.extend(entry);
    }
    bytes
}

#[test]
fn what_an_image_names_is_told_and_not_asked_for() {
    let (answer, parts) = info(&qcow2(&[]), false).unwrap();
    assert_eq!(answer.backing.unwrap().name.as_bytes(), b"base");
    assert_eq!((answer.format.as_str(), answer.virtual_size, parts.len()), ("qcow2", 1 << 20, 0));
    let error = info(&qcow2(&[]), true).unwrap_err();
    assert_eq!((error.kind, error.disk.as_deref()), (ErrorKind::ReferenceDenied, Some("source")));
}

#[test]
fn no_part_of_a_list_is_longer_than_a_record() {
    // Bytes that are longest in JSON.
    let names = vec![&[1; 255][..]; 3000];
    let (_, parts) = info(&qcow2(&names), false).unwrap();
    let mut count = 0;
    for part in parts {
        if let InfoPart::Snapshots(snapshots) = &part {
            count += snapshots.len();
        }
        let line = Record::Part { request_id: u64::MAX, part: Part::Info(part) }.to_line();
        assert!(line.len() <= MAX_RECORD, "{}", line.len());
    }
    assert_eq!(count, names.len());
}

#[test]
fn an_answer_is_a_record() {
    let (answer, _) = info(&qcow2(&[]), false).unwrap();
    let record = Record::Result { request_id: 1, answer: Answer::Info(Box::new(answer)) };
    let line = record.to_line();
    assert_eq!(protocol::parse_record(&line[..line.len() - 1]), Ok(record));
}
