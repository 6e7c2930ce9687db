//! The operations, a file each.

pub mod measure;
pub mod options;
