//! Size arithmetic of disk-image formats: how many bytes an image of a given format and geometry takes.
//!
//! Pure functions over numbers. Nothing here reads an image, allocates, or knows where a number came from.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]
