//! Looking over a file that is anything: there is an answer, it fits into records, and each finding is told once.
#![no_main]

use instar_fuzz::storage::Liar;
use libfuzzer_sys::fuzz_target;
use protocol::{
    Answer, ExtentMap, FileFacts, ImageSource, InspectRequest, MAX_RECORD, Part, QemuVersion, Record,
    parse_record,
};
use unikernel::{files::Standalone, ops::inspect};

/// Whether a record is one on the other side, too.
fn check(record: &Record) {
    let line = record.to_line();
    assert!(line.len() <= MAX_RECORD, "a record of {} bytes", line.len());
    assert_eq!(parse_record(&line[..line.len() - 1]).as_ref(), Ok(record));
}

fuzz_target!(|input: &[u8]| {
    let length = Liar::new(input).stripes() * 512;
    let facts = FileFacts {
        disk: "source".into(),
        length,
        allocated: length,
        extents: ExtentMap::Inline(vec![(0, length)]),
        named_dmg: false,
    };
    for format in [None, Some("vpc"), Some("dmg")] {
        let source = Box::new(ImageSource::new(facts.clone(), format.map(str::to_owned)));
        let request = InspectRequest { profile: QemuVersion::default(), source };
        let mut files = Standalone(|_: &FileFacts| Ok(Liar::new(input)));
        let mut tell = |part| check(&Record::Part { request_id: u64::MAX, part: Part::Inspect(part) });
        // Nothing fails but what is the caller's fault or the storage's.
        let answer = inspect::run(&request, &mut files, &mut tell).expect("an answer");
        for (index, finding) in answer.findings.iter().enumerate() {
            let same =
                |other: &protocol::Finding| (other.code, &other.field) == (finding.code, &finding.field);
            assert!(!answer.findings[..index].iter().any(same), "{finding:?} twice");
        }
        assert!(answer.image.is_some() || !answer.findings.is_empty(), "no image and no reason");
        check(&Record::Result { request_id: u64::MAX, answer: Answer::Inspect(Box::new(answer)) });
    }
});
