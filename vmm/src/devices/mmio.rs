//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2.2), without interrupts.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::{DeviceError, VirtioDevice};

const MAGIC: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
pub(super) const DRIVER_FEATURES: u64 = 0x020;
pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
pub(super) const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
pub(super) const QUEUE_NUM: u64 = 0x038;
pub(super) const QUEUE_READY: u64 = 0x044;
/// Offset in bytes of the register a driver writes when a queue has something new.
pub const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
pub(super) const STATUS: u64 = 0x070;
pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// `virt` in file order.
const MAGIC_VALUE: u32 = 0x7472_6976;
/// `inst` in file order.
const VENDOR_VALUE: u32 = 0x7473_6e69;

/// A device and its queues, shared between the transport and the thread that does its I/O.
#[derive(Clone)]
pub struct SharedDevice(Arc<Mutex<Running>>);

struct Running {
    device: Box<dyn VirtioDevice>,
    queues: Vec<Queue>,
    driver_ok: bool,
}

impl SharedDevice {
    /// Handles what waits in queue `index`, and looks for more for as long as `patience` says.
    pub fn notified(
        &self,
        index: usize,
        memory: &GuestMemoryMmap,
        patience: Duration,
    ) -> Result<(), DeviceError> {
        let Running { device, queues, driver_ok } = &mut *self.lock();
        match queues.get_mut(index) {
            Some(queue) if *driver_ok && queue.ready() => {
                device.process_queue(index, queue, memory, patience)
            }
            _ => Err(DeviceError::Register { offset: QUEUE_NOTIFY, why: "the queue is not in use" }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One device's registers.
pub struct MmioTransport {
    shared: SharedDevice,
    device_type: u32,
    features: u64,
    config: Vec<u8>,
    status: u32,
    features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: usize,
    /// Where notifications of queue 0 go, if somebody else serves it.
    doorbell: Option<EventFd>,
}

impl MmioTransport {
    /// The registers of `device`.
    pub fn new(device: Box<dyn VirtioDevice>) -> Result<Self, DeviceError> {
        let queues =
            device.queue_max_sizes().iter().map(|&size| Queue::new(size)).collect::<Result<_, _>>()?;
        let (device_type, features, config) =
            (device.device_type(), device.device_features(), device.config().to_vec());
        let running = Running { device, queues, driver_ok: false };
        Ok(Self {
            shared: SharedDevice(Arc::new(Mutex::new(running))),
            device_type,
            features,
            config,
            status: 0,
            features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            doorbell: None,
        })
    }

    /// The device behind the registers.
    pub fn device(&self) -> SharedDevice {
        self.shared.clone()
    }

    /// Lets notifications of queue 0 ring `event`, for a thread that serves it. The device is not locked for that: it may be at
    /// work.
    pub fn notify_through(&mut self, event: EventFd) {
        self.doorbell = Some(event);
    }

    /// Number of queues.
    pub fn queue_count(&self) -> u32 {
        self.shared.lock().queues.len() as u32
    }

    /// The driver reads at `offset`. Registers are 32 bits wide, the configuration space has any width.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), DeviceError> {
        if offset >= CONFIG {
            let start = (offset - CONFIG) as usize;
            // Behind the end of the configuration space there are zeros.
            for (position, byte) in data.iter_mut().enumerate() {
                *byte = self.config.get(start + position).copied().unwrap_or(0);
            }
            return Ok(());
        }
        let value = match offset {
            MAGIC => MAGIC_VALUE,
            VERSION => 2,
            DEVICE_ID => self.device_type,
            VENDOR_ID => VENDOR_VALUE,
            DEVICE_FEATURES => half(self.features, self.features_sel),
            QUEUE_NUM_MAX => {
                self.shared.lock().queues.get(self.queue_sel).map_or(0, |queue| queue.max_size().into())
            }
            QUEUE_READY => {
                self.shared.lock().queues.get(self.queue_sel).map_or(0, |queue| queue.ready().into())
            }
            INTERRUPT_STATUS | CONFIG_GENERATION => 0,
            STATUS => self.status,
            _ => return Err(DeviceError::Register { offset, why: "is not readable" }),
        };
        let data: &mut [u8; 4] =
            data.try_into().map_err(|_| DeviceError::Register { offset, why: "is 32 bits wide" })?;
        *data = value.to_le_bytes();
        Ok(())
    }

    /// The driver writes at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8], memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        let refuse = |why| Err(DeviceError::Register { offset, why });
        let Ok(data) = <[u8; 4]>::try_from(data) else { return refuse("is 32 bits wide") };
        let value = u32::from_le_bytes(data);
        match offset {
            DEVICE_FEATURES_SEL => self.features_sel = value,
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 => {
                self.set_driver_features(value);
            }
            QUEUE_SEL => self.queue_sel = value as usize,
            QUEUE_NOTIFY => {
                return match &self.doorbell {
                    Some(event) if value == 0 => event.write(1).map_err(DeviceError::Doorbell),
                    _ => self.shared.notified(value as usize, memory, Duration::ZERO),
                };
            }
            INTERRUPT_ACK => {}
            STATUS => return self.set_status(value),
            QUEUE_NUM | QUEUE_READY | QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH => {
                return self.configure_queue(offset, value, memory);
            }
            _ => return refuse("is not writable now"),
        }
        Ok(())
    }

    fn set_driver_features(&mut self, value: u32) {
        let shift = match self.driver_features_sel {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features =
            self.driver_features & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
    }

    fn set_status(&mut self, value: u32) -> Result<(), DeviceError> {
        if value == 0 {
            self.reset();
            return Ok(());
        }
        if value & self.status != self.status {
            return Err(DeviceError::Register { offset: STATUS, why: "takes no bit back" });
        }
        let mut status = value;
        if value & !self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            let acceptable = self.driver_features & !self.features == 0
                && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0;
            if !acceptable {
                status &= !VIRTIO_CONFIG_S_FEATURES_OK;
            }
        }
        if status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            if status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
                return Err(DeviceError::Register {
                    offset: STATUS,
                    why: "is not DRIVER_OK without FEATURES_OK",
                });
            }
            self.shared.lock().driver_ok = true;
        }
        self.status = status;
        Ok(())
    }

    fn reset(&mut self) {
        let mut running = self.shared.lock();
        running.driver_ok = false;
        running.queues.iter_mut().for_each(QueueT::reset);
        drop(running);
        (self.status, self.features_sel, self.driver_features_sel) = (0, 0, 0);
        (self.driver_features, self.queue_sel) = (0, 0);
    }

    /// A register of the selected queue; only between FEATURES_OK and DRIVER_OK.
    fn configure_queue(
        &mut self,
        offset: u64,
        value: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<(), DeviceError> {
        let refuse = |why| Err(DeviceError::Register { offset, why });
        if self.status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)
            != VIRTIO_CONFIG_S_FEATURES_OK
        {
            return refuse("is written between FEATURES_OK and DRIVER_OK only");
        }
        let mut running = self.shared.lock();
        let Some(queue) = running.queues.get_mut(self.queue_sel) else {
            return refuse("of a queue that is not");
        };
        if queue.ready() {
            return refuse("of a queue that is ready");
        }
        match offset {
            QUEUE_NUM => queue.try_set_size(u16::try_from(value).unwrap_or(u16::MAX))?,
            QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            QUEUE_READY => {
                queue.set_ready(value == 1);
                if value == 1 && !queue.is_valid(memory) {
                    return refuse("of a queue whose rings are outside of memory");
                }
            }
            _ => return refuse("is not writable now"),
        }
        Ok(())
    }
}

/// The low (0) or high (1) half of a feature set; there are no more than two.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}
