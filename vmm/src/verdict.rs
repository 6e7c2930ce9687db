//! Whether an image is safe: what the guest found, weighed by what the caller allows.
//!
//! The guest has read the image and may have been taken over by it; what can be decided without its word (lengths of
//! files) is.

use protocol::{Code, Finding, InspectAnswer, Weight};

/// The longest disk that is taken when nobody says: what the largest machines of today have, and VHDX at most.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// What a caller takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Names of formats; any if there are none.
    pub formats: Vec<String>,
    /// Longest disk in bytes.
    pub max_virtual_size: u64,
    /// Longest file in bytes.
    pub max_file_size: Option<u64>,
    /// What does not count against an image.
    pub allowed: Vec<Code>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            formats: Vec::new(),
            max_virtual_size: MAX_VIRTUAL_SIZE,
            max_file_size: None,
            allowed: Vec::new(),
        }
    }
}

/// What is to be made of an image. It is safe if there is no reason against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused.
    pub reasons: Vec<Finding>,
    /// What else is odd.
    pub notes: Vec<Finding>,
}

impl Verdict {
    /// Whether nothing is against the image.
    pub fn is_safe(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl Policy {
    /// Weighs what was found in a file of `length` bytes.
    pub fn judge(&self, answer: &InspectAnswer, length: u64) -> Verdict {
        let own = [self.format(answer), self.virtual_size(answer), self.file_size(length)];
        let findings = own.into_iter().flatten().chain(answer.findings.iter().cloned());
        let (reasons, notes) = findings.partition(|finding| match finding.code.weight() {
            Weight::Note => false,
            Weight::Allowable => !self.allowed.contains(&finding.code),
            Weight::Limit | Weight::Refusal => true,
        });
        Verdict { reasons, notes }
    }

    fn format(&self, answer: &InspectAnswer) -> Option<Finding> {
        let fits = self.formats.is_empty() || self.formats.contains(&answer.format);
        let message =
            || format!("Its format is {}, and is to be {}", answer.format, self.formats.join(" or "));
        (!fits).then(|| finding(Code::FormatNotAllowed, "format", message()))
    }

    fn virtual_size(&self, answer: &InspectAnswer) -> Option<Finding> {
        let (size, max) = (answer.image.as_ref()?.virtual_size, self.max_virtual_size);
        let message = || format!("The disk has {size} bytes, and {max} are taken");
        (size > max).then(|| finding(Code::VirtualSize, "virtual size", message()))
    }

    fn file_size(&self, length: u64) -> Option<Finding> {
        let max = self.max_file_size?;
        let message = || format!("The file has {length} bytes, and {max} are taken");
        (length > max).then(|| finding(Code::FileSize, "file length", message()))
    }
}

fn finding(code: Code, field: &str, message: String) -> Finding {
    Finding { code, field: Some(field.to_owned()), message }
}

#[cfg(test)]
mod tests {
    use protocol::InspectedImage;

    use super::*;

    /// A disk of 1000 bytes in a qcow2 with these findings.
    fn answer(codes: &[Code]) -> InspectAnswer {
        InspectAnswer {
            format: "qcow2".into(),
            image: Some(InspectedImage { virtual_size: 1000, ..InspectedImage::default() }),
            findings: codes.iter().map(|&code| finding(code, "field", "message".into())).collect(),
            ..InspectAnswer::default()
        }
    }

    fn reasons(policy: &Policy, codes: &[Code]) -> Vec<Code> {
        policy.judge(&answer(codes), 500).reasons.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn every_code_has_the_weight_that_it_says() {
        for &code in Code::ALL {
            let strict = reasons(&Policy::default(), &[code]);
            let lenient = reasons(&Policy { allowed: vec![code], ..Policy::default() }, &[code]);
            let (by_default, allowed) = match code.weight() {
                Weight::Note => (false, false),
                Weight::Allowable => (true, false),
                Weight::Limit | Weight::Refusal => (true, true),
            };
            assert_eq!((!strict.is_empty(), !lenient.is_empty()), (by_default, allowed), "{}", code.name());
        }
    }

    #[test]
    fn what_is_allowed_is_told_and_lifts_nothing_else() {
        let policy = Policy { allowed: vec![Code::Encrypted], ..Policy::default() };
        let verdict = policy.judge(&answer(&[Code::Encrypted, Code::BackingFile, Code::Dirty]), 0);
        let codes = |findings: &[Finding]| findings.iter().map(|finding| finding.code).collect::<Vec<_>>();
        assert_eq!(codes(&verdict.reasons), [Code::BackingFile]);
        assert_eq!(codes(&verdict.notes), [Code::Encrypted, Code::Dirty]);
        assert!(!verdict.is_safe());
    }

    #[test]
    fn limits_are_the_callers() {
        let policy = |max_virtual_size, max_file_size, formats: &[&str]| Policy {
            max_virtual_size,
            max_file_size,
            formats: formats.iter().map(|&name| name.to_owned()).collect(),
            allowed: Vec::new(),
        };
        assert_eq!(reasons(&policy(1000, Some(500), &["raw", "qcow2"]), &[]), []);
        assert_eq!(reasons(&policy(999, None, &[]), &[]), [Code::VirtualSize]);
        assert_eq!(reasons(&policy(1000, Some(499), &[]), &[]), [Code::FileSize]);
        assert_eq!(reasons(&policy(1000, None, &["raw"]), &[]), [Code::FormatNotAllowed]);
    }

    #[test]
    fn a_disk_is_not_longer_than_any_that_there_is() {
        let mut long = answer(&[]);
        if let Some(image) = &mut long.image {
            image.virtual_size = MAX_VIRTUAL_SIZE + 512;
        }
        assert_eq!(Policy::default().judge(&long, 0).reasons[0].code, Code::VirtualSize);
    }
}
