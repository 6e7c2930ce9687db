//! How far a command has come.

use serde::{Deserialize, Serialize};

/// How far a command has come, whenever `qemu-img -p` would tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Hundredths of a percent, 0 to 10000.
    pub hundredths: u16,
}
