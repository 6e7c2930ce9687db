//! Disk-image formats read through [`Storage`]: what an image is, and where the bytes of its virtual disk lie.
//!
//! Every value that comes from an image is hostile until it was bounded at the place where it is read. Nothing here
//! knows about virtual machines, devices, command lines or the text of results.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

extern crate alloc;

mod access;
mod area;
mod block_map;
mod bochs;
mod chain;
pub mod check;
mod cloop;
mod content;
mod crypto;
mod dmg;
mod error;
mod extent;
mod files;
mod format;
mod image;
pub mod luks;
pub mod parallels;
pub mod qcow;
pub mod qcow2;
pub mod qed;
pub mod raw;
mod read_only;
mod reader;
mod regions;
mod run;
mod scan;
mod sector_bitmap;
mod signature;
mod storage;
mod stream;
mod table;
mod table_mut;
mod two_level;
mod two_level_mut;
mod used;
mod utf16;
pub mod vdi;
pub mod vhdx;
pub mod vmdk;
pub mod vpc;
mod window;
pub mod write;

pub use access::{Access, Key, OpenOptions};
pub use area::Area;
pub use chain::{Chain, ChainError, Mapping};
pub use content::Units;
pub use error::{Error, ErrorKind};
pub use extent::{Extent, ExtentKind, FileIndex};
pub use format::{Format, probe, probe_named_dmg};
pub use image::{BackingFile, DataFile, Image};
pub use luks::{LuksInfo, SlotInfo};
pub use regions::Regions;
pub use signature::{Anchor, Signature, SignatureKind, signatures};
pub use storage::{Region, Storage, StorageError, StorageMut, fill_with_zeros};
pub use stream::{Codec, Stream};
