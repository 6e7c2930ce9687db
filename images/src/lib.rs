//! Images for tests. No parser of instar is known here: an image is bytes at offsets, made from the formats'
//! specifications, so that what a reader finds in it is not what the reader's own code put there.
//!
//! * [`build`]: sound images of every format, byte by byte, to be patched.
//! * [`hostile`]: the corpus of images that nobody should trust, a table with one row a trick. `images/hostile/README.md`
//!   says how to use it elsewhere.
//! * [`sound`]: images that nobody should refuse.

#![forbid(unsafe_code)]

pub mod build;
pub mod hostile;
pub mod sound;
mod sparse_file;

pub use sparse_file::{Field, SparseFile, be, le};
