//! Guest side of virtio 1.x: the mmio transport, the split virtqueue, and the block and console drivers on top.
//!
//! Written for a guest without interrupts whose memory is mapped one to one: a pointer is a DMA address, and
//! completion is polled. Nothing here knows about image formats or commands.
#![no_std]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

extern crate alloc;

mod block;
mod console;
mod idle;
mod landing;
mod mmio;
mod queue;

pub use block::{Block, BlockError, MAX_STARTED, SECTOR, Serial};
pub use console::Console;
pub use idle::{Patience, set_idle_register, ticks};
pub use landing::Landing;
pub use mmio::{DeviceType, MmioTransport, TransportError};
pub use queue::Rings;
