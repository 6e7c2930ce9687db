//! Virtio devices that take their driver for malicious: everything is validated before anything is done, and a driver
//! that breaks the specification ends the machine. Knows nothing of commands or image formats.

mod block;
mod bus;
mod cache;
mod chain;
mod console;
mod direct;
mod disk_file;
mod event_loop;
mod handover;
mod mmio;
mod throttle;
mod transfer;

use std::time::Duration;

use thiserror::Error;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

pub use block::{Block, MAX_REQUEST, SECTOR};
pub use bus::DeviceBus;
pub use cache::Cache;
pub use console::{Console, Port};
pub use disk_file::DiskFile;
pub use event_loop::EventLoop;
pub use mmio::{MmioTransport, QUEUE_NOTIFY, SharedDevice};
pub use throttle::Throttle;

/// Guest address of the first device's registers; the next ones follow at [`MMIO_STRIDE`].
pub const MMIO_BASE: u64 = 0xd000_0000;
/// Bytes from one device's registers to the next one's.
pub const MMIO_STRIDE: u64 = 0x1000;

/// A device behind a transport; the shape of rust-vmm's `VirtioDevice`, cut down to what polling drivers need.
pub trait VirtioDevice: Send {
    /// Device type (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// Feature bits offered, `VIRTIO_F_VERSION_1` included.
    fn device_features(&self) -> u64;

    /// Largest size of each queue; there are as many queues as sizes.
    fn queue_max_sizes(&self) -> &[u16];

    /// Configuration space, little-endian.
    fn config(&self) -> &[u8];

    /// Handles every request waiting in queue `index`. Where none is left, it looks for more for as long as `patience` says before
    /// the driver has to notify again.
    fn process_queue(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        patience: Duration,
    ) -> Result<(), DeviceError>;
}

/// The driver broke the rules.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A register access that the specification does not allow.
    #[error("register {offset:#x}: {why}")]
    Register {
        /// Offset of the register in bytes.
        offset: u64,
        /// What was wrong.
        why: &'static str,
    },
    /// No register window at the address.
    #[error("no device at {0:#x}")]
    NoDevice(u64),
    /// The rings of a queue are not usable.
    #[error("virtqueue: {0}")]
    Queue(virtio_queue::Error),
    /// The thread that serves a device cannot be told of requests.
    #[error("doorbell: {0}")]
    Doorbell(std::io::Error),
    /// A descriptor chain is not a request.
    #[error("descriptor chain: {0}")]
    Chain(&'static str),
    /// The guest sent more than it may.
    #[error("the console has {0} unread bytes")]
    ConsoleFull(usize),
}

impl From<virtio_queue::Error> for DeviceError {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Queue(error)
    }
}
