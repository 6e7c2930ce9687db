//! The unikernel: boots in ring 3, reads one command from the console, answers it and waits to be thrown away.
//!
//! The operations are plain code over `formats` and `calc` and run hosted in tests; what makes them a guest is behind
//! the feature `guest`.
#![no_std]

extern crate alloc;

#[cfg(feature = "guest")]
pub mod boot;
#[cfg(feature = "guest")]
mod disk;
pub mod file;
pub mod files;
mod mover;
pub mod ops;
mod options;
mod progress;
#[cfg(feature = "guest")]
mod serve;
mod source;
mod target;
pub mod workers;

#[cfg(feature = "guest")]
pub use serve::{read_command, serve};
