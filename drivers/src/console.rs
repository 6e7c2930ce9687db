//! The console driver: one port, a byte stream each way (virtio 1.2, section 5.3).

use alloc::{boxed::Box, vec};
use core::ptr::NonNull;

use crate::{
    mmio::{MmioTransport, TransportError},
    queue::{Rings, Segment, Virtqueue},
};

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// Length in bytes of the buffer lent to the device for what it has to say.
const RECEIVE_BUFFER: usize = 16 << 10;

/// A console that is up.
pub struct Console {
    transport: MmioTransport,
    receive: Virtqueue,
    transmit: Virtqueue,
    buffer: Box<[u8]>,
    /// Unread part of `buffer`.
    unread: core::ops::Range<usize>,
    /// Whether the device holds `buffer`.
    lent: bool,
}

impl Console {
    /// Brings the device up.
    pub fn new(transport: MmioTransport) -> Result<Self, TransportError> {
        let (receive, transmit) = (Virtqueue::new(), Virtqueue::new());
        transport.start()?;
        transport.add_queue(RECEIVE, &receive)?;
        transport.add_queue(TRANSMIT, &transmit)?;
        transport.finish();
        Ok(Self::over(transport, receive, transmit))
    }

    /// Takes over a device that is up, with the rings of its two queues.
    ///
    /// # Safety
    /// Both are pages of zeros that the device knows as its queues and nothing else uses.
    pub unsafe fn adopt(transport: MmioTransport, receive: NonNull<Rings>, transmit: NonNull<Rings>) -> Self {
        // SAFETY: promised by the caller.
        let (receive, transmit) = unsafe { (Virtqueue::adopt(receive), Virtqueue::adopt(transmit)) };
        Self::over(transport, receive, transmit)
    }

    fn over(transport: MmioTransport, receive: Virtqueue, transmit: Virtqueue) -> Self {
        let buffer = vec![0; RECEIVE_BUFFER].into_boxed_slice();
        Self { transport, receive, transmit, buffer, unread: 0..0, lent: false }
    }

    /// Sends all of `bytes`; returns when the device has taken them.
    pub fn write(&mut self, bytes: &[u8]) {
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        let segment = Segment { address: bytes.as_ptr() as u64, length, device_writes: false };
        // SAFETY: `bytes` is borrowed until the loop below has seen the completion.
        if unsafe { self.transmit.submit(&[segment]) }.is_none() {
            return;
        }
        self.transport.notify(TRANSMIT);
        while let Ok(None) = self.transmit.completed() {
            core::hint::spin_loop();
        }
    }

    /// Waits until `bytes` is filled.
    pub fn read_exact(&mut self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            if self.unread.is_empty() {
                self.receive();
            }
            let (Some(source), Some(target)) =
                (self.buffer.get(self.unread.clone()), bytes.get_mut(filled..))
            else {
                return;
            };
            let count = source.len().min(target.len());
            if let (Some(source), Some(target)) = (source.get(..count), target.get_mut(..count)) {
                target.copy_from_slice(source);
            }
            self.unread.start += count;
            filled += count;
        }
    }

    /// Waits for the device to put something into the buffer.
    fn receive(&mut self) {
        if !self.lent {
            let length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
            let segment = Segment { address: self.buffer.as_mut_ptr() as u64, length, device_writes: true };
            // SAFETY: the buffer lives as long as the queue, and is not read while `lent`.
            self.lent = unsafe { self.receive.submit(&[segment]) }.is_some();
            self.transport.notify(RECEIVE);
        }
        loop {
            if let Ok(Some((_, written))) = self.receive.completed() {
                self.lent = false;
                let written = usize::try_from(written).unwrap_or(usize::MAX);
                self.unread = 0..written.min(self.buffer.len());
                return;
            }
            core::hint::spin_loop();
        }
    }
}
