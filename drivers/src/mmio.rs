//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2.2).

use core::ptr::{NonNull, read_volatile, write_volatile};

use crate::queue::Virtqueue;

/// Register offsets in bytes.
mod register {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x004;
    pub const DEVICE_ID: usize = 0x008;
    pub const DEVICE_FEATURES: usize = 0x010;
    pub const DEVICE_FEATURES_SEL: usize = 0x014;
    pub const DRIVER_FEATURES: usize = 0x020;
    pub const DRIVER_FEATURES_SEL: usize = 0x024;
    pub const QUEUE_SEL: usize = 0x030;
    pub const QUEUE_NUM_MAX: usize = 0x034;
    pub const QUEUE_NUM: usize = 0x038;
    pub const QUEUE_READY: usize = 0x044;
    pub const QUEUE_NOTIFY: usize = 0x050;
    pub const STATUS: usize = 0x070;
    pub const QUEUE_DESC: usize = 0x080;
    pub const QUEUE_DRIVER: usize = 0x090;
    pub const QUEUE_DEVICE: usize = 0x0a0;
    pub const CONFIG: usize = 0x100;
}

/// `virt` in file order.
const MAGIC: u32 = 0x7472_6976;

const STATUS_ACKNOWLEDGE: u32 = 1;
const STATUS_DRIVER: u32 = 2;
const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;

/// `VIRTIO_F_VERSION_1`, the one feature every driver here asks for.
const FEATURE_VERSION_1: u64 = 1 << 32;

/// What a device is (virtio 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// No device behind the transport.
    None,
    /// A block device.
    Block,
    /// A console.
    Console,
    /// Something this guest has no driver for.
    Other(u32),
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// No virtio-mmio registers at the address.
    NotVirtio,
    /// Registers of another version than 2.
    Version(u32),
    /// The device does not offer or accept virtio 1.
    Features,
    /// The queue does not exist or is smaller than the driver's.
    Queue(u32),
}

impl core::fmt::Display for TransportError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotVirtio => f.write_str("no virtio-mmio device"),
            Self::Version(version) => write!(f, "virtio-mmio version {version} is not 2"),
            Self::Features => f.write_str("virtio 1 is not accepted"),
            Self::Queue(index) => write!(f, "virtqueue {index} is missing or too small"),
        }
    }
}

/// One device's registers.
pub struct MmioTransport {
    base: NonNull<u8>,
}

impl MmioTransport {
    /// Takes the registers at `base`, and resets nothing yet.
    ///
    /// # Safety
    /// `base` must be the mapped, 4 KiB long register window of a virtio-mmio device, used by nobody else.
    pub unsafe fn new(base: NonNull<u8>) -> Result<Self, TransportError> {
        let transport = Self { base };
        if transport.read(register::MAGIC) != MAGIC {
            return Err(TransportError::NotVirtio);
        }
        match transport.read(register::VERSION) {
            2 => Ok(transport),
            other => Err(TransportError::Version(other)),
        }
    }

    /// The registers at `base` of a device that is known to be there and to be up.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    pub unsafe fn adopt(base: NonNull<u8>) -> Self {
        Self { base }
    }

    /// What the device is.
    pub fn device_type(&self) -> DeviceType {
        match self.read(register::DEVICE_ID) {
            0 => DeviceType::None,
            2 => DeviceType::Block,
            3 => DeviceType::Console,
            other => DeviceType::Other(other),
        }
    }

    /// Resets the device and agrees on virtio 1 and nothing else.
    pub(crate) fn start(&self) -> Result<(), TransportError> {
        self.write(register::STATUS, 0);
        self.write(register::STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        self.write(register::DEVICE_FEATURES_SEL, 1);
        let high = self.read(register::DEVICE_FEATURES);
        if u64::from(high) << 32 & FEATURE_VERSION_1 == 0 {
            return Err(TransportError::Features);
        }
        self.write(register::DRIVER_FEATURES_SEL, 1);
        self.write(register::DRIVER_FEATURES, 1);
        let status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
        self.write(register::STATUS, status);
        if self.read(register::STATUS) & STATUS_FEATURES_OK == 0 {
            return Err(TransportError::Features);
        }
        Ok(())
    }

    /// Hands the device a queue.
    pub(crate) fn add_queue(&self, index: u32, queue: &Virtqueue) -> Result<(), TransportError> {
        self.write(register::QUEUE_SEL, index);
        if self.read(register::QUEUE_NUM_MAX) < u32::from(Virtqueue::SIZE) {
            return Err(TransportError::Queue(index));
        }
        self.write(register::QUEUE_NUM, Virtqueue::SIZE.into());
        self.write_address(register::QUEUE_DESC, queue.descriptor_table());
        self.write_address(register::QUEUE_DRIVER, queue.available_ring());
        self.write_address(register::QUEUE_DEVICE, queue.used_ring());
        self.write(register::QUEUE_READY, 1);
        Ok(())
    }

    /// Lets the device go.
    pub(crate) fn finish(&self) {
        let status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
        self.write(register::STATUS, status);
    }

    /// Tells the device that queue `index` has something new.
    pub(crate) fn notify(&self, index: u32) {
        self.write(register::QUEUE_NOTIFY, index);
    }

    /// A 64-bit little-endian field of the device's configuration space.
    pub(crate) fn config_u64(&self, offset: usize) -> u64 {
        let low = self.read(register::CONFIG + offset);
        let high = self.read(register::CONFIG + offset + 4);
        u64::from(high) << 32 | u64::from(low)
    }

    fn write_address(&self, register: usize, address: u64) {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = address.to_le_bytes();
        self.write(register, u32::from_le_bytes([b0, b1, b2, b3]));
        self.write(register + 4, u32::from_le_bytes([b4, b5, b6, b7]));
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: `new` was promised a mapped window of 4 KiB; every offset used here is a multiple of 4 inside it.
        unsafe { read_volatile(self.base.as_ptr().add(offset).cast()) }
    }

    fn write(&self, offset: usize, value: u32) {
        // SAFETY: as for `read`.
        unsafe { write_volatile(self.base.as_ptr().add(offset).cast(), value) }
    }
}
