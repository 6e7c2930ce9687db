//! Descriptions of images that stand in images in place of a name: `json:{...}`, as far as all they describe are files.

use alloc::{boxed::Box, string::String};

use serde::Deserialize;

/// Deepest nesting that is looked at. The parser recurses; who describes a longer chain can do without.
const BRACES_MAX: usize = 16;

/// What is said of an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Described {
    /// Name of its format, if that is said.
    pub driver: Option<String>,
    /// Name of its file.
    pub file: String,
    /// What is said of the image below it.
    pub under: Under,
}

/// What is said of the image below.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Under {
    /// Nothing.
    #[default]
    Unsaid,
    /// That there is none.
    None,
    /// That it is this one.
    Image(Box<Described>),
}

/// The same in JSON: a name in one of two places, of a local file. Whoever says anything else, or anything twice, is
/// not understood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    driver: Option<String>,
    #[serde(rename = "file.driver")]
    protocol: Option<String>,
    #[serde(rename = "file.filename")]
    filename: Option<String>,
    file: Option<FileNode>,
    #[serde(default, deserialize_with = "said")]
    backing: Option<Option<Box<Node>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    driver: Option<String>,
    filename: String,
}

/// A value that is there, `null` or not.
fn said<'a, T: Deserialize<'a>, D: serde::Deserializer<'a>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

impl Described {
    /// Nothing but a file.
    pub fn file(file: String) -> Self {
        Self { driver: None, file, under: Under::Unsaid }
    }

    /// Reads the text behind `json:`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() > BRACES_MAX {
            return None;
        }
        Self::from_node(serde_json::from_str(text).ok()?)
    }

    fn from_node(node: Node) -> Option<Self> {
        let (protocol, file) = match (node.file, node.filename) {
            (Some(file), None) if node.protocol.is_none() => (file.driver, file.filename),
            (None, Some(filename)) => (node.protocol, filename),
            _ => return None,
        };
        if protocol.is_some_and(|protocol| protocol != "file") {
            return None;
        }
        let under = match node.backing {
            None => Under::Unsaid,
            Some(None) => Under::None,
            Some(Some(node)) => Under::Image(Box::new(Self::from_node(*node)?)),
        };
        Some(Self { driver: node.driver, file, under })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_understood() {
        let file = |driver: Option<&str>, under| {
            Some(Described { driver: driver.map(Into::into), file: "a".into(), under })
        };
        for (text, expected) in [
            (r#"{"file.filename":"a"}"#, file(None, Under::Unsaid)),
            (
                r#"{"driver":"qcow2","file.driver":"file","file.filename":"a"}"#,
                file(Some("qcow2"), Under::Unsaid),
            ),
            (r#"{"file":{"driver":"file","filename":"a"},"backing":null}"#, file(None, Under::None)),
            (
                r#"{"driver":"qed","file":{"filename":"a"},"backing":{"driver":"raw","file.filename":"b"}}"#,
                file(
                    Some("qed"),
                    Under::Image(Box::new(Described {
                        driver: Some("raw".into()),
                        file: "b".into(),
                        under: Under::Unsaid,
                    })),
                ),
            ),
        ] {
            assert_eq!(Described::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"driver":"qcow2"}"#,
            r#"{"driver":"file","filename":"a"}"#,
            r#"{"driver":"nbd","host":"a"}"#,
            r#"{"file":{"driver":"nbd","filename":"a"}}"#,
            r#"{"file.driver":"https","file.filename":"a"}"#,
            r#"{"file.filename":"a","file":{"filename":"b"}}"#,
            r#"{"file.filename":"a","file.filename":"b"}"#,
            r#"{"file.filename":"a","snapshot":"b"}"#,
            r#"{"file":"a"}"#,
            r#"{"file.filename":"a","backing":"b"}"#,
            r#"{"file.filename":"a","backing":{"file.driver":"nbd","file.filename":"b"}}"#,
            r#"{"file.filename":"a"} b"#,
        ] {
            assert_eq!(Described::parse(text), None, "{text}");
        }
        let deep = r#"{"file.filename":"a","backing":"#.repeat(20) + "null" + &"}".repeat(20);
        assert_eq!(Described::parse(&deep), None);
    }
}
