//! Secrets given on the command line.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{Backing, ImageSource};

/// A secret given with `--object secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Its id, by which options refer to it.
    pub id: String,
    /// What it holds.
    pub content: SecretContent,
}

impl Secret {
    /// A secret of which no more than the id is needed.
    pub fn unread(id: impl Into<String>) -> Self {
        Self { id: id.into(), content: SecretContent::Unread }
    }
}

/// What a secret holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretContent {
    /// The host did not look: no image of the command has it for a key.
    Unread,
    /// UTF-8 without NUL, as passwords are.
    Text(String),
    /// Anything else.
    NotText,
}

/// Never the secret itself.
impl fmt::Debug for SecretContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unread => "Unread",
            Self::Text(_) => "Text",
            Self::NotText => "NotText",
        })
    }
}

impl ImageSource {
    /// Ids of the secrets that are keys of the image or of one below it, as far as the command line tells.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.key_secret.as_deref().into_iter().collect();
        let mut image = self;
        while let Some(Backing::Image(below)) = &image.backing {
            image = below;
            keys.extend(image.key_secret.as_deref());
        }
        keys
    }
}
