//! Which `qemu-img` the answers and their wording follow.

use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A `qemu-img` release whose wording and output shape are followed. Ordered from old to new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum QemuVersion {
    /// 5.2 (Debian 11).
    #[serde(rename = "5.2")]
    V5_2,
    /// 7.2 (Debian 12).
    #[serde(rename = "7.2")]
    V7_2,
    /// 8.0.
    #[serde(rename = "8.0")]
    V8_0,
    /// 10.0 (Debian 13).
    #[serde(rename = "10.0")]
    V10_0,
    /// 11.1, the newest stable release known here.
    #[default]
    #[serde(rename = "11.1")]
    V11_1,
}

impl QemuVersion {
    /// Every profile, oldest first.
    pub const ALL: [Self; 5] = [Self::V5_2, Self::V7_2, Self::V8_0, Self::V10_0, Self::V11_1];

    /// The version as `--qemu-version` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V5_2 => "5.2",
            Self::V7_2 => "7.2",
            Self::V8_0 => "8.0",
            Self::V10_0 => "10.0",
            Self::V11_1 => "11.1",
        }
    }
}

impl FromStr for QemuVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|version| version.name() == text)
            .ok_or("known versions are 5.2, 7.2, 8.0, 10.0 and 11.1")
    }
}
