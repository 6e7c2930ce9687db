//! virtio-console: one port. What the host wants to say waits in the [`Port`], what the guest said collects there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::{DeviceError, VirtioDevice, chain};

/// Device type of a console.
const VIRTIO_ID_CONSOLE: u32 = 3;

const RECEIVE: usize = 0;
const QUEUE_SIZES: [u16; 2] = [64, 64];

/// Most bytes that wait for the host to read them. The host looks after every exit, so only a guest that floods the
/// console within one notification gets here.
const MAX_UNREAD: usize = 4 << 20;

/// The host's end of the console.
#[derive(Clone, Default)]
pub struct Port(Arc<Mutex<Buffers>>);

#[derive(Default)]
struct Buffers {
    to_guest: Vec<u8>,
    sent: usize,
    from_guest: Vec<u8>,
}

impl Port {
    /// A port that will tell the guest `bytes`.
    pub fn saying(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Buffers { to_guest: bytes, ..Default::default() })))
    }

    /// Tells the guest `bytes`, behind what it was told already.
    pub fn say(&self, bytes: &[u8]) {
        self.lock().to_guest.extend_from_slice(bytes);
    }

    /// Takes what the guest has said since the last call.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().from_guest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device.
pub struct Console {
    port: Port,
    config: [u8; 12],
}

impl Console {
    /// A console whose other end is `port`.
    pub fn new(port: Port) -> Self {
        let mut config = [0; 12];
        // cols, rows: 0. max_nr_ports: 1.
        config[4] = 1;
        Self { port, config }
    }

    fn receive(&self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        let mut buffers = self.port.lock();
        while buffers.sent < buffers.to_guest.len() {
            let Some(chain) = chain::next(queue, memory)? else { return Ok(()) };
            let mut written = 0;
            for descriptor in &chain.descriptors {
                if !descriptor.is_write_only() {
                    return Err(DeviceError::Chain("of the receive queue is not writable"));
                }
                let slice = chain::slice(memory, descriptor)?;
                let rest = &buffers.to_guest[buffers.sent..];
                let count = rest.len().min(slice.len());
                slice.copy_from(&rest[..count]);
                buffers.sent += count;
                written += count;
            }
            queue.add_used(memory, chain.head, u32::try_from(written).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    fn transmit(&self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        let mut buffers = self.port.lock();
        while let Some(chain) = chain::next(queue, memory)? {
            for descriptor in &chain.descriptors {
                if descriptor.is_write_only() {
                    return Err(DeviceError::Chain("of the transmit queue is not readable"));
                }
                let slice = chain::slice(memory, descriptor)?;
                let start = buffers.from_guest.len();
                if slice.len() > MAX_UNREAD - start {
                    return Err(DeviceError::ConsoleFull(start));
                }
                buffers.from_guest.resize(start + slice.len(), 0);
                slice.copy_to(&mut buffers.from_guest[start..]);
            }
            queue.add_used(memory, chain.head, 0)?;
        }
        Ok(())
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn device_features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process_queue(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        _: Duration,
    ) -> Result<(), DeviceError> {
        if index == RECEIVE { self.receive(queue, memory) } else { self.transmit(queue, memory) }
    }
}
