//! Bringing devices up in the guest's place, through the registers any driver uses: see [`protocol::handover`].

use protocol::handover::{AVAILABLE_RING, RING_ENTRIES, RING_PAGE, USED_RING};
use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
};
use vm_memory::GuestMemoryMmap;

use super::{
    DeviceError, MmioTransport,
    mmio::{
        DRIVER_FEATURES, DRIVER_FEATURES_SEL, QUEUE_DESC_LOW, QUEUE_DEVICE_LOW, QUEUE_DRIVER_LOW, QUEUE_NUM,
        QUEUE_READY, QUEUE_SEL, STATUS,
    },
};

impl MmioTransport {
    /// Brings the device up with virtio 1 and nothing else, its queues on the pages of rings from `rings` on. Answers
    /// the address behind them.
    pub fn bring_up(&mut self, rings: u64, memory: &GuestMemoryMmap) -> Result<u64, DeviceError> {
        let mut write = |offset, value: u32| self.write(offset, &value.to_le_bytes(), memory);
        write(STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)?;
        write(DRIVER_FEATURES_SEL, 1)?;
        write(DRIVER_FEATURES, 1)?;
        let agreed = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
        write(STATUS, agreed)?;
        let mut rings = rings;
        for queue in 0..self.queue_count() {
            let mut write = |offset, value: u32| self.write(offset, &value.to_le_bytes(), memory);
            write(QUEUE_SEL, queue)?;
            write(QUEUE_NUM, RING_ENTRIES.into())?;
            for (register, offset) in
                [(QUEUE_DESC_LOW, 0), (QUEUE_DRIVER_LOW, AVAILABLE_RING), (QUEUE_DEVICE_LOW, USED_RING)]
            {
                write(register, (rings + offset) as u32)?;
                write(register + 4, ((rings + offset) >> 32) as u32)?;
            }
            write(QUEUE_READY, 1)?;
            rings += RING_PAGE;
        }
        self.write(STATUS, &(agreed | VIRTIO_CONFIG_S_DRIVER_OK).to_le_bytes(), memory)?;
        Ok(rings)
    }
}
