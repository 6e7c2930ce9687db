//! The devices of a machine, found by address.

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::{DeviceError, MMIO_BASE, MMIO_STRIDE, MmioTransport, SharedDevice};
use crate::machine::{Bus, idle};

/// Register windows side by side from [`MMIO_BASE`] on.
pub struct DeviceBus {
    transports: Vec<MmioTransport>,
    memory: GuestMemoryMmap,
    /// Address behind the rings of the devices that were brought up here.
    rings: u64,
    /// Address of the idle register, if there is one.
    idle: Option<u64>,
}

impl DeviceBus {
    /// The devices `transports`, which work on `memory`, and the idle register at address `idle`.
    pub fn new(transports: Vec<MmioTransport>, memory: GuestMemoryMmap, idle: Option<u64>) -> Self {
        Self { transports, memory, rings: 0, idle }
    }

    /// Brings every device up in the guest's place, on the pages of rings from `rings` on.
    pub fn bring_up(&mut self, rings: u64) -> Result<(), DeviceError> {
        self.rings = rings;
        for transport in &mut self.transports {
            self.rings = transport.bring_up(self.rings, &self.memory)?;
        }
        Ok(())
    }

    /// Adds a device behind the others, and brings it up, its rings behind theirs.
    pub fn attach(&mut self, mut transport: MmioTransport) -> Result<(), DeviceError> {
        self.rings = transport.bring_up(self.rings, &self.memory)?;
        self.transports.push(transport);
        Ok(())
    }

    /// Lets notifications of device number `index` ring `event`.
    pub fn notify_through(&mut self, index: usize, event: EventFd) {
        if let Some(transport) = self.transports.get_mut(index) {
            transport.notify_through(event);
        }
    }

    /// Device number `index`.
    pub fn device(&self, index: usize) -> Option<SharedDevice> {
        self.transports.get(index).map(MmioTransport::device)
    }
}

/// The transport at `address` and the offset into its registers.
fn find(transports: &mut [MmioTransport], address: u64) -> Result<(&mut MmioTransport, u64), DeviceError> {
    let offset = address.checked_sub(MMIO_BASE).ok_or(DeviceError::NoDevice(address))?;
    let index = usize::try_from(offset / MMIO_STRIDE).unwrap_or(usize::MAX);
    let transport = transports.get_mut(index).ok_or(DeviceError::NoDevice(address))?;
    Ok((transport, offset % MMIO_STRIDE))
}

impl Bus for DeviceBus {
    type Error = DeviceError;

    fn read(&mut self, address: u64, data: &mut [u8]) -> Result<(), DeviceError> {
        let (transport, offset) = find(&mut self.transports, address)?;
        transport.read(offset, data)
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DeviceError> {
        if Some(address) == self.idle {
            idle(data);
            return Ok(());
        }
        let (transport, offset) = find(&mut self.transports, address)?;
        transport.write(offset, data, &self.memory)
    }
}
