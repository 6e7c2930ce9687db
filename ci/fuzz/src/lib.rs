//! What the fuzz targets share: files that lie about themselves or are written to, and a driver that speaks an operation language.

pub mod driver;
pub mod storage;
pub mod vhdx;
