//! The block driver: reads and writes with many requests in flight (virtio 1.2, section 5.2).

use alloc::{boxed::Box, rc::Rc, vec, vec::Vec};
use core::ops::Range;
use core::ptr::{NonNull, addr_of, addr_of_mut};

use crate::{
    idle::Patience,
    landing::Landing,
    mmio::{MmioTransport, TransportError},
    queue::{BrokenRing, Rings, Segment, Token, Virtqueue},
};

/// Bytes in a sector, the unit of the device.
pub const SECTOR: u64 = 512;

/// Longest single request in bytes; a longer read is several requests in flight at once.
const MAX_REQUEST: usize = 1 << 20;

/// Longest read or write in bytes that can be [begun](Block::start_write).
pub const MAX_STARTED: usize = 2 << 20;

/// Every request is a header, a buffer and a status byte.
const SEGMENTS: usize = 3;

const REQUESTS: u32 = 0;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Longest run of zeros in bytes that is asked for at once.
const MAX_ZEROS: u64 = 1 << 30;

/// The disk space may be given back (`VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`).
const UNMAP: u32 = 1;

const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
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
    /// The device does not know the request.
    Unsupported,
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

/// A request whose caller has gone on.
struct Started {
    token: Token,
    /// The bytes on the disk.
    place: Range<u64>,
    memory: Memory,
}

/// Keeps the memory that the device works on.
enum Memory {
    /// It reads from there.
    Bytes { _kept: Rc<Vec<u8>> },
    /// It writes there.
    Landing(Rc<Landing>),
}

/// A block device that is up. When it goes, what was begun has ended.
pub struct Block {
    transport: MmioTransport,
    queue: Virtqueue,
    /// One a descriptor: a request uses the slot of the head of its chain.
    slots: Box<[Slot]>,
    sectors: u64,
    started: Vec<Started>,
    /// Whether a write failed that nobody waited for.
    failed: bool,
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
        Self { transport, queue, slots, sectors, started: Vec::new(), failed: false }
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
        self.settle(offset, buffer.len());
        self.transfer(TYPE_IN, sector, Data::In(buffer))
    }

    /// Writes `bytes` at byte `offset`; both are whole sectors inside the disk.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let sector = self.place(offset, bytes.len())?;
        self.settle(offset, bytes.len());
        self.transfer(TYPE_OUT, sector, Data::Out(bytes))
    }

    /// Begins to write the part `part` of `bytes`, of at most [`MAX_STARTED`] bytes, at byte `offset`: whole sectors inside the
    /// disk. The bytes stay as they are until the device has let go of them, which is when nobody else holds them but the
    /// caller; what becomes of them [`flush`](Self::flush) tells.
    pub fn start_write(
        &mut self,
        offset: u64,
        bytes: &Rc<Vec<u8>>,
        part: Range<usize>,
    ) -> Result<(), BlockError> {
        let data = bytes.get(part).filter(|data| data.len() <= MAX_STARTED).ok_or(BlockError::Range)?;
        let sector = self.place(offset, data.len())?;
        self.settle(offset, data.len());
        let length = u32::try_from(data.len()).map_err(|_| BlockError::Range)?;
        let data = Segment { address: data.as_ptr() as u64, length, device_writes: false };
        self.start(TYPE_OUT, sector, data, Memory::Bytes { _kept: bytes.clone() })
    }

    /// Begins to read the bytes from `offset` on into the part `part` of `landing`, at most [`MAX_STARTED`] bytes: whole
    /// sectors inside the disk. They are there when the disk has let go of the landing, unless that
    /// [says](Landing::take_failure) something else.
    pub fn start_read(
        &mut self,
        offset: u64,
        landing: &Rc<Landing>,
        part: Range<usize>,
    ) -> Result<(), BlockError> {
        if part.len() > MAX_STARTED {
            return Err(BlockError::Range);
        }
        let sector = self.place(offset, part.len())?;
        self.settle(offset, part.len());
        let (address, length) = landing.place(part).ok_or(BlockError::Range)?;
        let data = Segment { address, length, device_writes: true };
        self.start(TYPE_IN, sector, data, Memory::Landing(landing.clone()))
    }

    fn start(&mut self, kind: u32, sector: u64, data: Segment, memory: Memory) -> Result<(), BlockError> {
        if data.length == 0 {
            return Ok(());
        }
        let place = sector * SECTOR..sector * SECTOR + u64::from(data.length);
        let header = Header { kind, reserved: 0, sector };
        let token = loop {
            match self.submit(header, Some(data)) {
                Some(token) => break token,
                None if self.started.is_empty() => return Err(BlockError::Device),
                None => self.wait_for_started()?,
            }
        };
        self.started.push(Started { token, place, memory });
        self.notify();
        Ok(())
    }

    /// Makes `length` bytes from byte `offset` on read as zeros, whole sectors inside the disk. Their space is given up with
    /// `unmap`, and set aside without.
    pub fn write_zeros(&mut self, offset: u64, length: u64, unmap: bool) -> Result<(), BlockError> {
        let mut sector = self.place(offset, usize::try_from(length).map_err(|_| BlockError::Range)?)?;
        let mut left = length / SECTOR;
        while left > 0 {
            let count = left.min(MAX_ZEROS / SECTOR);
            self.settle(sector * SECTOR, usize::try_from(count * SECTOR).unwrap_or(usize::MAX));
            let mut request = [0; 16];
            request[..8].copy_from_slice(&sector.to_le_bytes());
            request[8..12].copy_from_slice(&u32::try_from(count).unwrap_or(0).to_le_bytes());
            request[12..].copy_from_slice(&(UNMAP * u32::from(unmap)).to_le_bytes());
            self.transfer(TYPE_WRITE_ZEROES, 0, Data::Out(&request))?;
            sector += count;
            left -= count;
        }
        Ok(())
    }

    /// Lets go of what the device is done with. With `wait`, at least one that was begun, if there is any.
    pub fn reap(&mut self, wait: bool) -> Result<(), BlockError> {
        if wait && !self.started.is_empty() {
            self.wait_for_started()?;
        }
        while let Some((token, _)) = self.queue.completed().map_err(|BrokenRing| BlockError::Device)? {
            self.let_go(token);
        }
        Ok(())
    }

    /// Waits until the device has let go of all that was begun.
    pub fn wait(&mut self) -> Result<(), BlockError> {
        while !self.started.is_empty() {
            self.wait_for_started()?;
        }
        Ok(())
    }

    /// Waits for one of the requests that were begun.
    fn wait_for_started(&mut self) -> Result<(), BlockError> {
        let mut patience = Patience::new();
        loop {
            match self.queue.completed() {
                Ok(Some((token, _))) => {
                    self.let_go(token);
                    return Ok(());
                }
                Ok(None) => patience.wait(),
                Err(BrokenRing) => return Err(BlockError::Device),
            }
        }
    }

    /// Ends the request that was begun as `token`, if one was.
    fn let_go(&mut self, token: Token) -> bool {
        let Some(index) = self.started.iter().position(|started| started.token == token) else {
            return false;
        };
        let Started { memory, .. } = self.started.swap_remove(index);
        if self.finish(token).is_err() {
            match memory {
                Memory::Bytes { .. } => self.failed = true,
                Memory::Landing(landing) => landing.fail(),
            }
        }
        true
    }

    /// Waits for what was begun in the `length` bytes from `offset` on: the device may do them in any order.
    fn settle(&mut self, offset: u64, length: usize) {
        let end = offset.saturating_add(length as u64);
        let meets = |started: &Started| started.place.start < end && offset < started.place.end;
        while self.started.iter().any(meets) {
            if self.wait_for_started().is_err() {
                self.failed = true;
                return;
            }
        }
    }

    /// Waits until what was written is on stable storage, and tells whether anything that was begun has failed.
    pub fn flush(&mut self) -> Result<(), BlockError> {
        self.wait()?;
        if self.failed {
            return Err(BlockError::Device);
        }
        let header = Header { kind: TYPE_FLUSH, reserved: 0, sector: 0 };
        self.submit(header, None).ok_or(BlockError::Device)?;
        self.notify();
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
                self.notify();
                match in_flight.checked_sub(1) {
                    Some(fewer) => {
                        outcome = outcome.and(self.wait_for_one());
                        in_flight = fewer;
                    }
                    None if self.started.is_empty() => return Err(BlockError::Device),
                    None => self.wait_for_started()?,
                }
            }
            in_flight += 1;
            sector += length / SECTOR;
        }
        self.notify();
        for _ in 0..in_flight {
            outcome = outcome.and(self.wait_for_one());
        }
        outcome
    }

    /// Tells the device of what was submitted.
    fn notify(&self) {
        if self.queue.wants_notification() {
            self.transport.notify(REQUESTS);
        }
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
        // SAFETY: `transfer` keeps the buffer borrowed, and `Started` holds it, until each of its requests has completed (or
        // the device has proved broken, and with it the machine), and a slot is free again only when its chain is.
        unsafe {
            match data {
                Some(data) => self.queue.submit(&[header, data, status]),
                None => self.queue.submit(&[header, status]),
            }
        }
    }

    fn wait_for_one(&mut self) -> Result<(), BlockError> {
        let mut patience = Patience::new();
        loop {
            match self.queue.completed() {
                Ok(Some((token, _))) if self.let_go(token) => {}
                Ok(Some((token, _))) => return self.finish(token),
                Ok(None) => patience.wait(),
                Err(BrokenRing) => return Err(BlockError::Device),
            }
        }
    }

    fn finish(&mut self, token: Token) -> Result<(), BlockError> {
        let slot = self.slots.get(token.index()).ok_or(BlockError::Device)?;
        // SAFETY: a plain load from memory of our own that the device wrote.
        let status = unsafe { addr_of!(slot.status).read_volatile() };
        match status {
            STATUS_OK => Ok(()),
            STATUS_UNSUPPORTED => Err(BlockError::Unsupported),
            _ => Err(BlockError::Device),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A device that has proved broken does nothing any more: the machine has ended with it.
        let _ = self.wait();
    }
}
