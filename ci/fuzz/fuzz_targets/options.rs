//! A whole measure command on a size or a small file: format name, `-o` list, secrets. It ends in numbers that agree with
//! each other, or in an error in every release's words.
#![no_main]

use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use protocol::{ExtentMap, FileFacts, ImageSource, MeasureRequest, MeasureSubject, QemuVersion, Secret};
use unikernel::{files::Standalone, ops::measure};

/// Formats that are measured.
const TARGETS: [&str; 10] =
    ["raw", "qcow2", "luks", "vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels"];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    profile: u8,
    target: Target<'a>,
    beyond: bool,
    options: Option<&'a str>,
    secret: Option<&'a str>,
    size: Option<u64>,
    file: &'a [u8],
    format: Option<bool>,
    named_dmg: bool,
    snapshot: Option<&'a str>,
}

#[derive(Arbitrary, Debug)]
enum Target<'a> {
    Known(u8),
    Other(&'a str),
}

fuzz_target!(|input: Input| {
    let subject = match input.size {
        Some(size) => MeasureSubject::Size(size & i64::MAX as u64),
        None => MeasureSubject::Image {
            source: Box::new(ImageSource::new(
                FileFacts {
                    disk: "source".into(),
                    length: input.file.len() as u64,
                    allocated: input.file.len() as u64,
                    extents: ExtentMap::Inline(vec![]),
                    named_dmg: input.named_dmg,
                },
                input.format.map(|raw| if raw { "raw" } else { "qcow2" }.into()),
            )),
            snapshot: input.snapshot.map(Into::into),
        },
    };
    let request = MeasureRequest {
        profile: QemuVersion::ALL[usize::from(input.profile) % QemuVersion::ALL.len()],
        target_format: match input.target {
            Target::Known(index) => TARGETS[usize::from(index) % TARGETS.len()].into(),
            Target::Other(name) => name.into(),
        },
        options: input.options.map(Into::into),
        secrets: input.secret.map(Secret::unread).into_iter().collect(),
        beyond: input.beyond,
        exact: None,
        compress: false,
        subject,
    };
    let run = || measure::run(&request, &mut Standalone(|_: &FileFacts| Ok(input.file)));
    let answer = run();
    assert_eq!(answer, run(), "the same question has the same answer");
    match answer {
        Ok(answer) => assert!(answer.required <= answer.fully_allocated),
        Err(error) => assert!(!error.message.is_empty()),
    }
});
