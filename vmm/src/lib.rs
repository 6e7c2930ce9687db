//! instar on the host: takes a command, runs it in a throw-away virtual machine, prints the answer.
//!
//! No byte of an image is interpreted here. Unsafe code is in `machine` and `devices` alone.
#![deny(unsafe_code)]

pub mod cli;
#[allow(unsafe_code)]
pub mod devices;
pub mod error;
pub mod launch;
#[allow(unsafe_code)]
pub mod machine;
pub mod records;
pub mod references;
mod report;
pub mod sandbox;
mod source;
pub mod target;
mod verdict;
