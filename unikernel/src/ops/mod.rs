//! The operations, a file each.

pub mod check;
pub mod compare;
pub mod convert;
pub mod create;
pub mod info;
pub mod inspect;
pub mod map;
pub mod measure;
pub mod options;
mod status;
