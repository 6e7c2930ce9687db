//! What is found in images made by hand.

use alloc::{boxed::Box, string::ToString, vec, vec::Vec};

use protocol::{
    Answer, Code, ErrorRecord, ExtentMap, FileFacts, ImageSource, InspectAnswer, InspectPart, InspectRequest,
    MAX_RECORD, Part, QemuVersion, Record,
};

use super::run;
use crate::files::Standalone;

fn inspect(bytes: &[u8], format: Option<&str>) -> Result<(InspectAnswer, Vec<InspectPart>), ErrorRecord> {
    let length = bytes.len() as u64;
    let facts = FileFacts {
        disk: "source".to_string(),
        length,
        allocated: length,
        extents: ExtentMap::Inline(vec![(0, length)]),
        named_dmg: false,
    };
    let source = Box::new(ImageSource::new(facts, format.map(ToString::to_string)));
    let request = InspectRequest { profile: QemuVersion::default(), source };
    let mut parts = Vec::new();
    let mut files = Standalone(|_: &FileFacts| Ok(bytes.to_vec()));
    let answer = run(&request, &mut files, &mut |part| parts.push(part))?;
    Ok((answer, parts))
}

fn codes(bytes: &[u8], format: Option<&str>) -> Vec<Code> {
    inspect(bytes, format).unwrap().0.findings.iter().map(|finding| finding.code).collect()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A qcow2 image of version 2 with a disk of 128 KiB, both clusters of which are stored.
fn qcow2() -> Vec<u8> {
    let mut bytes = vec![0; 0x7_0000];
    put(&mut bytes, 0, b"QFI\xfb\0\0\0\x02");
    put(&mut bytes, 20, &16_u32.to_be_bytes());
    put(&mut bytes, 24, &0x2_0000_u64.to_be_bytes());
    put(&mut bytes, 36, &1_u32.to_be_bytes());
    put(&mut bytes, 40, &0x1_0000_u64.to_be_bytes());
    put(&mut bytes, 48, &0x2_0000_u64.to_be_bytes());
    put(&mut bytes, 56, &1_u32.to_be_bytes());
    put(&mut bytes, 0x1_0000, &0x3_0000_u64.to_be_bytes());
    put(&mut bytes, 0x2_0000, &0x4_0000_u64.to_be_bytes());
    put(&mut bytes, 0x3_0000, &0x5_0000_u64.to_be_bytes());
    put(&mut bytes, 0x3_0008, &0x6_0000_u64.to_be_bytes());
    bytes[0x5_0000..].fill(7);
    bytes
}

/// The same with another second cluster.
fn with_second(descriptor: u64) -> Vec<u8> {
    let mut bytes = qcow2();
    put(&mut bytes, 0x3_0008, &descriptor.to_be_bytes());
    bytes
}

#[test]
fn a_sound_image_has_nothing_against_it() {
    let (answer, parts) = inspect(&qcow2(), None).unwrap();
    let image = answer.image.unwrap();
    assert_eq!((answer.format.as_str(), answer.findings.len(), parts.len()), ("qcow2", 0, 0));
    assert_eq!((image.virtual_size, image.mapping.unwrap().data), (0x2_0000, 0x2_0000));
}

#[test]
fn no_place_of_the_file_is_used_twice_or_missing() {
    for (descriptor, code) in [
        (0x5_0000, Code::Overlap),
        // Header, tables and reference counts.
        (0x3_0000, Code::Overlap),
        (0x2_0000, Code::Overlap),
        (0x4_0000, Code::Overlap),
        (0x7_0000, Code::PastTheEnd),
        // Compressed, at the start of the other cluster, and far away.
        (1 << 62 | 0x5_0000, Code::Corrupt),
        (1 << 62 | 0x10_0000, Code::PastTheEnd),
    ] {
        let codes = codes(&with_second(descriptor), None);
        assert!(codes.contains(&code), "{descriptor:#x}: {codes:?}");
    }
}

#[test]
fn an_image_in_a_disk_is_found() {
    let mut bytes = qcow2();
    put(&mut bytes, 0x5_0000, b"KDMV");
    assert_eq!(codes(&bytes, None), [Code::ImageInside]);
    put(&mut bytes, 0x5_0000, b"LUKS\xba\xbe\0\x01");
    assert_eq!(codes(&bytes, None), [Code::EncryptedContent]);
    assert_eq!(codes(&bytes, Some("raw")), [Code::AmbiguousFormat]);
}

#[test]
fn what_cannot_be_opened_has_a_reason_with_its_field() {
    let mut bytes = qcow2();
    put(&mut bytes, 20, &63_u32.to_be_bytes());
    let (answer, _) = inspect(&bytes, None).unwrap();
    assert_eq!(answer.image, None);
    assert_eq!(answer.findings.len(), 1);
    let finding = &answer.findings[0];
    assert_eq!((finding.code, finding.field.as_deref()), (Code::Unsupported, Some("cluster_bits")));
    let error = inspect(&bytes, Some("nbd")).unwrap_err();
    assert_eq!(error.message, "Driver 'nbd' is not supported");
}

#[test]
fn many_references_come_in_records_of_bounded_length() {
    // Bytes that are longest in JSON.
    let name = "\u{1}".repeat(500);
    let head = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
    let mut text = head.to_string();
    for _ in 0..1024 {
        text.push_str(&alloc::format!("RW 1 FLAT \"{name}\" 0\n"));
    }
    let (answer, parts) = inspect(text.as_bytes(), None).unwrap();
    assert_eq!(answer.findings[0].code, Code::ExtentFile);
    let mut count = 0;
    for part in parts {
        let InspectPart::References(references) = &part;
        count += references.len();
        let line = Record::Part { request_id: u64::MAX, part: Part::Inspect(part) }.to_line();
        assert!(line.len() <= MAX_RECORD, "{}", line.len());
    }
    assert_eq!(count, 1024);
}

#[test]
fn an_answer_is_a_record() {
    // Unknown letters of an extent line stand in the message.
    let text =
        alloc::format!("version=1\nCID=1\nparentCID=1\ncreateType=\"vmfs\"\nRW 1 {}\n", "\u{1}".repeat(9000));
    let (answer, _) = inspect(text.as_bytes(), None).unwrap();
    assert_eq!(answer.findings.len(), 1);
    let record = Record::Result { request_id: 1, answer: Answer::Inspect(Box::new(answer)) };
    let line = record.to_line();
    assert!(line.len() <= MAX_RECORD);
    assert_eq!(protocol::parse_record(&line[..line.len() - 1]), Ok(record));
}
