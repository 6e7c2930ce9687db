//! How far a command has come.

use serde::{Deserialize, Serialize};

/// How far a command has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Hundredths of a percent, 0 to 10000, as `qemu-img` counts them.
    pub hundredths: u16,
    /// Bytes of disk that are done.
    pub done: u64,
    /// Bytes of disk that there are to do.
    pub total: u64,
}

/// How often it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// Whenever `qemu-img -p` would tell.
    #[default]
    QemuImg,
    /// Each tenth of a percent, for something that moves.
    Fine,
}
