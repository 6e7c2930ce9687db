//! Text out of an image: any bytes, on their way through JSON.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that stands in an image, which says nothing about its encoding. In JSON it is a string whose characters U+0000 to
/// U+00FF are the bytes; a character beyond them is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let characters: String = self.0.iter().copied().map(char::from).collect();
        serializer.serialize_str(&characters)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let characters = String::deserialize(deserializer)?;
        let bytes = characters.chars().map(u8::try_from).collect::<Result<_, _>>();
        bytes.map(Self).map_err(|_| de::Error::custom("text with a character that is no byte"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_survive_and_other_characters_are_refused() {
        let text = Text((0..=255).collect());
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
        assert!(serde_json::from_str::<Text>("\"\u{100}\"").is_err());
    }
}
