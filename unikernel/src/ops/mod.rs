//! The operations, a file each.

pub mod info;
pub mod map;
pub mod measure;
pub mod options;
mod status;
