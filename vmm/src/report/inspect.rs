//! The answer of `inspect`.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write,
    os::unix::ffi::OsStrExt,
};

use protocol::{Finding, InspectAnswer, ReferenceInfo, Role, SignatureInfo};

use super::{escape, escape_name, size_text::size_text, tree::Value};
use crate::verdict::Verdict;

/// An image that was looked over.
#[derive(Debug)]
pub struct Inspection {
    /// Its name.
    pub name: OsString,
    /// Length of its file in bytes.
    pub length: u64,
    /// What the guest found.
    pub answer: InspectAnswer,
    /// The files that the image names.
    pub references: Vec<ReferenceInfo>,
    /// What is to be made of it.
    pub verdict: Verdict,
}

/// The verdict as a word.
fn word(verdict: &Verdict) -> &'static str {
    if verdict.is_safe() { "safe" } else { "refuse" }
}

/// What a file is to the image: the code of the finding about it.
fn role(role: Role) -> &'static str {
    match role {
        Role::Backing => "backing-file",
        Role::DataFile => "data-file",
        Role::Extent | Role::NewExtent => "extent-file",
    }
}

impl Inspection {
    /// As `--output json` prints it.
    pub fn json(&self) -> String {
        let Self { answer, verdict, .. } = self;
        let list = |findings: &[Finding]| Value::List(findings.iter().map(value_of_finding).collect());
        let mut values = vec![
            ("filename", Value::text(self.name.as_bytes())),
            ("verdict", Value::text(word(verdict))),
            ("reasons", list(&verdict.reasons)),
            ("notes", list(&verdict.notes)),
            ("format", Value::text(&answer.format)),
            ("file-length", Value::Number(self.length)),
            ("signatures", value_of_signatures(&answer.signatures)),
        ];
        if let Some(image) = &answer.image {
            values.push(("virtual-size", Value::Number(image.virtual_size)));
            values.extend(image.cluster_size.map(|size| ("cluster-size", Value::Number(size))));
            values.extend(image.encryption.as_ref().map(|name| ("encryption", Value::text(name))));
            values.push(("features", Value::List(image.features.iter().map(Value::text).collect())));
            values.push(("snapshots", Value::Number(image.snapshots)));
            values.push(("bitmaps", Value::Number(image.bitmaps)));
            let references = self.references.iter().map(value_of_reference);
            values.push(("references", Value::List(references.collect())));
            values.push(("content", value_of_signatures(&image.content)));
            values.extend(image.mapping.map(|mapping| {
                let bytes = [
                    ("data", mapping.data),
                    ("compressed", mapping.compressed),
                    ("zero", mapping.zero),
                    ("unallocated", mapping.unallocated),
                ];
                ("mapping", Value::Map(bytes.map(|(name, bytes)| (name, Value::Number(bytes))).to_vec()))
            }));
        }
        Value::Map(values).json()
    }

    /// As `--output human` prints it.
    pub fn human(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, text: &str| writeln!(out, "{name}: {text}").unwrap_or_default();
        let Self { answer, verdict, .. } = self;
        line("image", &escape_name(&self.name));
        line("verdict", word(verdict));
        for (name, findings) in [("reason", &verdict.reasons), ("note", &verdict.notes)] {
            findings.iter().for_each(|finding| line(name, &text_of_finding(finding)));
        }
        line("file format", &escape(&answer.format));
        line("file length", &text_of_size(self.length));
        if !answer.signatures.is_empty() {
            line("signatures", &text_of_signatures(&answer.signatures));
        }
        let Some(image) = &answer.image else { return out };
        line("virtual size", &text_of_size(image.virtual_size));
        if let Some(size) = image.cluster_size {
            line("cluster_size", &size.to_string());
        }
        if let Some(name) = &image.encryption {
            line("encryption", &escape(name));
        }
        if !image.features.is_empty() {
            line("features", &escape(&image.features.join(", ")));
        }
        for (name, count) in [("snapshots", image.snapshots), ("bitmaps", image.bitmaps)] {
            if count > 0 {
                line(name, &count.to_string());
            }
        }
        for ReferenceInfo { role: of, name, format } in &self.references {
            let bytes = |text: &protocol::Text| escape_name(OsStr::from_bytes(text.as_bytes()));
            let name =
                name.as_ref().map_or_else(|| "not named".to_owned(), |name| format!("'{}'", bytes(name)));
            let format = format.as_ref().map(|format| format!(" ({})", bytes(format))).unwrap_or_default();
            line("reference", &format!("{} {name}{format}", role(*of)));
        }
        if !image.content.is_empty() {
            line("content", &text_of_signatures(&image.content));
        }
        if let Some(mapping) = image.mapping {
            let parts = [
                ("data", mapping.data),
                ("compressed", mapping.compressed),
                ("zero", mapping.zero),
                ("unallocated", mapping.unallocated),
            ];
            let parts = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
            let parts: Vec<String> =
                parts.map(|(name, bytes)| format!("{name} {}", size_text(bytes))).collect();
            line("mapping", &parts.join(", "));
        }
        out
    }
}

fn text_of_size(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", size_text(bytes))
}

fn text_of_finding(Finding { code, field, message }: &Finding) -> String {
    let field = field.as_ref().map(|field| format!(" ({})", escape(field))).unwrap_or_default();
    format!("{}{field}: {}", code.name(), escape(message))
}

fn value_of_finding(Finding { code, field, message }: &Finding) -> Value {
    let mut values = vec![("code", Value::text(code.name()))];
    values.extend(field.as_ref().map(|field| ("field", Value::text(field))));
    values.push(("message", Value::text(message)));
    Value::Map(values)
}

fn text_of_signatures(signatures: &[SignatureInfo]) -> String {
    let text = |signature: &SignatureInfo| format!("{} at {}", escape(&signature.name), signature.offset);
    signatures.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn value_of_signatures(signatures: &[SignatureInfo]) -> Value {
    let value = |signature: &SignatureInfo| {
        Value::Map(vec![("name", Value::text(&signature.name)), ("offset", Value::Number(signature.offset))])
    };
    Value::List(signatures.iter().map(value).collect())
}

fn value_of_reference(ReferenceInfo { role: of, name, format }: &ReferenceInfo) -> Value {
    let mut values = vec![("role", Value::text(role(*of)))];
    values.extend(name.as_ref().map(|name| ("name", Value::text(name.as_bytes()))));
    values.extend(format.as_ref().map(|format| ("format", Value::text(format.as_bytes()))));
    Value::Map(values)
}
