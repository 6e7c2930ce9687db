//! Sound images of every format, the smallest that have some data: what a test changes to get what it is about.

pub(crate) mod bochs;
pub(crate) mod cloop;
pub mod dmg;
pub(crate) mod luks;
pub(crate) mod parallels;
pub(crate) mod qcow;
pub(crate) mod qcow2;
pub(crate) mod qed;
pub(crate) mod stream;
pub(crate) mod vdi;
pub mod vhdx;
pub mod vmdk;
pub(crate) mod vpc;
