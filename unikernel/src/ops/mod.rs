//! The operations, a file each.

pub mod measure;
