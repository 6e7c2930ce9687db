//! The block driver: reads and writes with many requests in flight (virtio 1.2, section 5.2).

use alloc::{boxed::Box, vec};
use core::ptr::{NonNull, addr_of, addr_of_mut};

use crate::{
    mmio::{MmioTransport, TransportError},
    queue::{BrokenRing, Rings, Segment, Token, Virtqueue},
};

/// Bytes in a sector, the unit of the device.
pub const SECTOR: u64 = 512;

/// Longest single request in bytes; a longer read is several requests in flight at once.
const MAX_REQUEST: usize = 256 << 10;

/// Every request is a header, a buffer and a status byte.
const SEGMENTS: usize = 3;

const REQUESTS: u32 = 0;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

const STATUS_OK: u8 = 0;
const STATUS_PENDING: u8 = 0xff;

/// Name the host gave a disk: up to 20 bytes, padded with NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial([u8; 20]);

impl Serial {
    /// The serial as text; empty when it is none.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        self.0.get(..end).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// A request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// Not whole sectors, or beyond the end of the disk.
    Range,
    /// The device said so.
    Device,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// What a request needs besides its data: the device reads the header and writes the status.
#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    header: Header,
    status: u8,
}

/// What a request moves.
enum Data<'a> {
    /// From the disk to here.
    In(&'a mut [u8]),
    /// From here to the disk.
    Out(&'a [u8]),
}

impl Data<'_> {
    /// The parts that a request takes each.
    fn chunks(self) -> impl Iterator<Item = Segment> {
        let (address, length, device_writes) = match self {
            Data::In(buffer) => (buffer.as_mut_ptr() as u64, buffer.len(), true),
            Data::Out(bytes) => (bytes.as_ptr() as u64, bytes.len(), false),
        };
        (0..length).step_by(MAX_REQUEST).map(move |start| Segment {
            address: address + start as u64,
            length: u32::try_from((length - start).min(MAX_REQUEST)).unwrap_or_default(),
            device_writes,
        })
    }
}

/// A block device that is up.
pub struct Block {
    transport: MmioTransport,
    queue: Virtqueue,
    /// One a descriptor: a request uses the slot of the head of its chain.
    slots: Box<[Slot]>,
    sectors: u64,
}

impl Block {
    /// Brings the device up.
    pub fn new(transport: MmioTransport) -> Result<Self, TransportError> {
        let queue = Virtqueue::new();
        transport.start()?;
        transport.add_queue(REQUESTS, &queue)?;
        transport.finish();
        let sectors = transport.config_u64(0);
        Ok(Self::over(transport, queue, sectors))
    }

    /// Takes over a device of `sectors` sectors that is up, with the rings of its queue.
    ///
    /// # Safety
    /// `rings` is a page of zeros that the device knows as its queue and nothing else uses.
    pub unsafe fn adopt(transport: MmioTransport, rings: NonNull<Rings>, sectors: u64) -> Self {
        // SAFETY: promised by the caller.
        Self::over(transport, unsafe { Virtqueue::adopt(rings) }, sectors)
    }

    /// As [`adopt`](Self::adopt), for a device that tells its length itself.
    ///
    /// # Safety
    /// As for [`adopt`](Self::adopt).
    pub unsafe fn attached(transport: MmioTransport, rings: NonNull<Rings>) -> Self {
        let sectors = transport.config_u64(0);
        // SAFETY: promised by the caller.
        unsafe { Self::adopt(transport, rings, sectors) }
    }

    fn over(transport: MmioTransport, queue: Virtqueue, sectors: u64) -> Self {
        let slot = Slot { header: Header { kind: 0, reserved: 0, sector: 0 }, status: 0 };
        let slots = vec![slot; usize::from(Virtqueue::SIZE)].into_boxed_slice();
        Self { transport, queue, slots, sectors }
    }

    /// Length of the disk in bytes, a multiple of [`SECTOR`].
    pub fn len(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Whether the disk has no sectors.
    pub fn is_empty(&self) -> bool {
        self.sectors == 0
    }

    /// The disk's serial.
    pub fn serial(&mut self) -> Result<Serial, BlockError> {
        let mut serial = Serial([0; 20]);
        self.transfer(TYPE_GET_ID, 0, Data::In(&mut serial.0))?;
        Ok(serial)
    }

    /// Fills `buffer` from byte `offset`; both are whole sectors inside the disk.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        let sector = self.place(offset, buffer.len())?;
        self.transfer(TYPE_IN, sector, Data::In(buffer))
    }

    /// Writes `bytes` at byte `offset`; both are whole sectors inside the disk.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let sector = self.place(offset, bytes.len())?;
        self.transfer(TYPE_OUT, sector, Data::Out(bytes))
    }

    /// Waits until what was written is on stable storage.
    pub fn flush(&mut self) -> Result<(), BlockError> {
        let header = Header { kind: TYPE_FLUSH, reserved: 0, sector: 0 };
        self.submit(header, None).ok_or(BlockError::Device)?;
        self.transport.notify(REQUESTS);
        self.wait_for_one()
    }

    /// The first sector of whole sectors inside the disk.
    fn place(&self, offset: u64, length: usize) -> Result<u64, BlockError> {
        let length = u64::try_from(length).map_err(|_| BlockError::Range)?;
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.len());
        if !inside || !offset.is_multiple_of(SECTOR) || !length.is_multiple_of(SECTOR) {
            return Err(BlockError::Range);
        }
        Ok(offset / SECTOR)
    }

    /// Runs requests of one kind over `data`, as many at once as the queue holds, and waits for all of them.
    fn transfer(&mut self, kind: u32, first_sector: u64, data: Data<'_>) -> Result<(), BlockError> {
        let mut outcome = Ok(());
        let mut in_flight = 0_usize;
        let mut sector = first_sector;
        for chunk in data.chunks() {
            let header = Header { kind, reserved: 0, sector };
            let length = u64::from(chunk.length);
            while self.submit(header, Some(chunk)).is_none() {
                // The queue is full: something of ours is in flight, or the ring is broken.
                self.transport.notify(REQUESTS);
                outcome = outcome.and(self.wait_for_one());
                in_flight = in_flight.checked_sub(1).ok_or(BlockError::Device)?;
            }
            in_flight += 1;
            sector += length / SECTOR;
        }
        self.transport.notify(REQUESTS);
        for _ in 0..in_flight {
            outcome = outcome.and(self.wait_for_one());
        }
        outcome
    }

    fn submit(&mut self, header: Header, data: Option<Segment>) -> Option<Token> {
        let slot = self.slots.get_mut(self.queue.next_token(SEGMENTS)?.index())?;
        *slot = Slot { header, status: STATUS_PENDING };
        let header = Segment {
            address: addr_of!(slot.header) as u64,
            length: u32::try_from(size_of::<Header>()).ok()?,
            device_writes: false,
        };
        let status = Segment { address: addr_of_mut!(slot.status) as u64, length: 1, device_writes: true };
        // SAFETY: `transfer` keeps the buffer borrowed until each of its requests has completed (or the device has
        // proved broken, and with it the machine), and a slot is free again only when its chain is.
        unsafe {
            match data {
                Some(data) => self.queue.submit(&[header, data, status]),
                None => self.queue.submit(&[header, status]),
            }
        }
    }

    fn wait_for_one(&mut self) -> Result<(), BlockError> {
        loop {
            match self.queue.completed() {
                Ok(Some((token, _))) => return self.finish(token),
                Ok(None) => core::hint::spin_loop(),
                Err(BrokenRing) => return Err(BlockError::Device),
            }
        }
    }

    fn finish(&mut self, token: Token) -> Result<(), BlockError> {
        let slot = self.slots.get(token.index()).ok_or(BlockError::Device)?;
        // SAFETY: a plain load from memory of our own that the device wrote.
        let status = unsafe { addr_of!(slot.status).read_volatile() };
        if status == STATUS_OK { Ok(()) } else { Err(BlockError::Device) }
    }
}
