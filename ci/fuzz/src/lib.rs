//! What the fuzz targets share: a file that lies about itself, and a driver that speaks an operation language.

pub mod driver;
pub mod storage;
pub mod vhdx;
