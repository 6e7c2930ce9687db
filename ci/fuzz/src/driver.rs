//! An operation language for virtio drivers: what a guest can do to a device, from well-formed requests to nonsense.
//!
//! After each operation the guest's memory is looked at: a device writes into buffers that were given to it for that, and
//! into its used rings, and nowhere else.

use instar::devices::{MmioTransport, QUEUE_NOTIFY, VirtioDevice};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use protocol::handover::{AVAILABLE_RING, RING_ENTRIES, RING_PAGE, USED_RING};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes of guest memory: the rings, and buffers behind them.
const MEMORY: u64 = 64 << 10;
/// Where the rings begin.
const RINGS: u64 = 0x1000;
/// Flag of a descriptor that another one follows.
const NEXT: u16 = 1;
/// Flag of a descriptor that the device writes to.
const WRITE: u16 = 2;

/// Flag of a descriptor that points to a table of more.
const INDIRECT: u16 = 4;

/// What a driver does.
#[derive(Arbitrary, Debug)]
pub enum Deed {
    /// Reads a register.
    Read { offset: u16, length: u8 },
    /// Writes a register.
    Write { offset: u16, value: u32 },
    /// Resets the device and brings it up as the machine would.
    BringUp,
    /// Offers a request of whole buffers and notifies: mostly right.
    Request { queue: bool, buffers: Vec<Buffer>, header: Option<Header> },
    /// Writes a descriptor, whatever it says.
    Descriptor { queue: bool, index: u8, address: u32, length: u32, flags: u8, next: u8 },
    /// Offers a chain that begins at a descriptor.
    Offer { queue: bool, head: u16 },
    /// Moves the index of the available ring.
    Skip { queue: bool, count: u16 },
    /// Notifies the device.
    Notify { queue: bool },
    /// Writes to memory.
    Poke { address: u32, value: u64 },
}

/// A part of a request.
#[derive(Arbitrary, Debug)]
pub struct Buffer {
    /// In units of 16 bytes from the start of memory.
    place: u16,
    length: u16,
    device_writes: bool,
}

/// The header and the status of a block request around the buffers.
#[derive(Arbitrary, Debug)]
pub struct Header {
    kind: u8,
    sector: u8,
    wild: u64,
}

/// A driver at work on a device.
pub struct Driver {
    transport: MmioTransport,
    memory: GuestMemoryMmap,
    queues: u64,
    /// Whether the driver has kept to whole requests since the device was brought up.
    orderly: bool,
    /// Whether registers may have moved the rings since.
    moved: bool,
}

/// A request that the device has taken: what became of it.
#[derive(Debug)]
pub struct Completed<'a> {
    /// The header, for block requests.
    pub header: Option<&'a Header>,
    /// Address and length of the data buffers in order, and whether the device writes them.
    pub buffers: Vec<(u64, u32, bool)>,
    /// The status byte, for block requests.
    pub status: u8,
}

impl Header {
    /// Type of the request.
    pub fn kind(&self) -> u32 {
        // In, out, flush, get-id and a few that do not exist.
        u32::from(self.kind % 12)
    }

    /// Rarely: any sector, and whatever buffers.
    fn wild(&self) -> Option<u64> {
        (self.wild % 8 == 7).then_some(self.wild >> 3)
    }

    /// First sector.
    pub fn sector(&self) -> u64 {
        // On the small disk, or just past its end.
        self.wild().unwrap_or(u64::from(self.sector) % 24)
    }
}

impl Driver {
    /// A driver of `device`, which is brought up.
    pub fn new(device: impl VirtioDevice + 'static) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("memory");
        let transport = MmioTransport::new(Box::new(device)).expect("a device with queues");
        let queues = transport.queue_count().into();
        let mut driver = Self { transport, memory, queues, orderly: true, moved: false };
        driver.bring_up();
        driver
    }

    /// Does all of it until the device has had enough; `completed` looks at each request that the device took.
    pub fn run(&mut self, deeds: &[Deed], mut completed: impl FnMut(&Self, &Completed)) {
        for deed in deeds {
            self.orderly &= matches!(deed, Deed::Read { .. } | Deed::Request { .. } | Deed::BringUp);
            self.moved |= matches!(deed, Deed::Write { .. });
            let done = match deed {
                Deed::Read { offset, length } => {
                    let mut data = vec![0; usize::from(length % 9)];
                    self.transport.read(u64::from(offset % 0x1000), &mut data).is_ok()
                }
                Deed::Write { offset, value } => {
                    // Half of the writes go to the registers that are.
                    let offset = if offset & 0x8000 != 0 { offset & 0xfc } else { offset & 0xfff };
                    self.transport.write(offset.into(), &value.to_le_bytes(), &self.memory).is_ok()
                }
                Deed::BringUp => {
                    self.bring_up();
                    true
                }
                Deed::Request { queue, buffers, header } => {
                    self.request(*queue, buffers, header.as_ref(), &mut completed)
                }
                Deed::Descriptor { queue, index, address, length, flags, next } => {
                    // Mostly inside memory.
                    let address = if address & 0xf000_0000 == 0 { address % MEMORY as u32 } else { *address };
                    let length = if length & 0xf000_0000 == 0 { length % 0x2000 } else { *length };
                    let index = u16::from(*index) % RING_ENTRIES;
                    self.descriptor(
                        *queue,
                        index,
                        (address.into(), length),
                        (*flags).into(),
                        u16::from(*next) % 70,
                    );
                    true
                }
                Deed::Offer { queue, head } => {
                    self.offer(*queue, *head);
                    true
                }
                Deed::Skip { queue, count } => {
                    let at = self.rings(*queue) + AVAILABLE_RING + 2;
                    let index = self.u16_at(at);
                    self.poke(at, &index.wrapping_add(*count).to_le_bytes());
                    true
                }
                Deed::Notify { queue } => self.notify(*queue),
                Deed::Poke { address, value } => {
                    self.poke(u64::from(*address) % (MEMORY - 8), &value.to_le_bytes());
                    true
                }
            };
            if !done {
                // The machine ends here; a reset must still work.
                self.bring_up();
            }
        }
    }

    /// The guest's memory from `address` on.
    pub fn read(&self, address: u64, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("inside memory");
        bytes
    }

    fn bring_up(&mut self) {
        self.memory
            .write_slice(&vec![0; (self.queues * RING_PAGE) as usize], GuestAddress(RINGS))
            .expect("inside");
        self.transport.write(0x70, &[0; 4], &self.memory).expect("a reset is always possible");
        self.transport.bring_up(RINGS, &self.memory).expect("a reset device can be brought up");
        (self.orderly, self.moved) = (true, false);
    }

    /// Address of a queue's rings.
    fn rings(&self, queue: bool) -> u64 {
        RINGS + if self.queues == 1 { 0 } else { u64::from(queue) * RING_PAGE }
    }

    fn request(
        &mut self,
        queue: bool,
        buffers: &[Buffer],
        header: Option<&Header>,
        completed: &mut impl FnMut(&Self, &Completed),
    ) -> bool {
        let first = RINGS + self.queues * RING_PAGE + 0x1000;
        let place = |buffer: &Buffer| {
            let address = first + u64::from(buffer.place) * 16 % (MEMORY - first);
            let length = u64::from(buffer.length).min(MEMORY - address) as u32;
            (address, length, buffer.device_writes)
        };
        let mut data: Vec<_> = buffers.iter().take(20).map(place).collect();
        if header.is_some_and(|header| header.wild().is_none()) {
            // Whole sectors, the right way: what a driver asks for.
            for (address, length, device_writes) in &mut data {
                *length = (*length % 8 * 512).min((MEMORY - *address) as u32 / 512 * 512);
                *device_writes = header.is_some_and(|header| header.kind() != 1);
            }
        }
        let (head, status) = (first - 0x1000, first - 0x800);
        let mut parts = data.clone();
        if let Some(header) = header {
            self.poke(head, &u64::from(header.kind()).to_le_bytes());
            self.poke(head + 8, &header.sector().to_le_bytes());
            self.poke(status, &[0xff]);
            parts.insert(0, (head, 16, false));
            parts.push((status, 1, true));
        }
        let Some(last) = parts.len().checked_sub(1) else { return true };
        for (index, &(address, length, device_writes)) in parts.iter().enumerate() {
            let next = if index < last { NEXT } else { 0 };
            let flags = next | if device_writes { WRITE } else { 0 };
            self.descriptor(queue, index as u16, (address, length), flags, index as u16 + 1);
        }
        let used = self.rings(queue) + USED_RING + 2;
        let used_before = self.u16_at(used);
        self.offer(queue, 0);
        let before = self.content();
        let notified =
            self.transport.write(QUEUE_NOTIFY, &u32::from(queue).to_le_bytes(), &self.memory).is_ok();
        self.check(&before);
        // If the ring moved on by one, that is the request just offered.
        if notified && self.orderly && self.u16_at(used) == used_before.wrapping_add(1) {
            let status = self.read(status, 1)[0];
            completed(self, &Completed { header, buffers: data, status });
        }
        notified
    }

    fn notify(&mut self, queue: bool) -> bool {
        let before = self.content();
        let done = self.transport.write(QUEUE_NOTIFY, &u32::from(queue).to_le_bytes(), &self.memory).is_ok();
        self.check(&before);
        done
    }

    fn descriptor(&self, queue: bool, index: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        let words = [
            address.to_le_bytes(),
            (u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48).to_le_bytes(),
        ];
        self.poke(self.rings(queue) + u64::from(index) * 16, &words.concat());
    }

    fn offer(&self, queue: bool, head: u16) {
        let ring = self.rings(queue) + AVAILABLE_RING;
        let index = self.u16_at(ring + 2);
        self.poke(ring + 4 + u64::from(index % RING_ENTRIES) * 2, &head.to_le_bytes());
        self.poke(ring + 2, &index.wrapping_add(1).to_le_bytes());
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("inside memory");
    }

    fn u16_at(&self, address: u64) -> u16 {
        self.memory.read_obj(GuestAddress(address)).expect("inside memory")
    }

    fn content(&self) -> Vec<u8> {
        self.read(0, MEMORY as u32)
    }

    /// That the device wrote to used rings and to what descriptors gave it, and nowhere else.
    fn check(&self, before: &[u8]) {
        if self.moved {
            return;
        }
        let after = self.content();
        let mut allowed = vec![false; before.len()];
        let mut allow = |start: u64, length: u64| {
            let end = start.saturating_add(length).min(MEMORY) as usize;
            if let Some(range) = allowed.get_mut(start as usize..end) {
                range.fill(true);
            }
        };
        let word = |at: u64| u64::from_le_bytes(std::array::from_fn(|index| before[at as usize + index]));
        for queue in 0..self.queues {
            let rings = RINGS + queue * RING_PAGE;
            allow(rings + USED_RING, 6 + 8 * u64::from(RING_ENTRIES));
            for index in 0..u64::from(RING_ENTRIES) {
                let (address, rest) = (word(rings + index * 16), word(rings + index * 16 + 8));
                let flags = (rest >> 32) as u16;
                if flags & INDIRECT != 0 {
                    // A table elsewhere.
                    return;
                }
                if flags & WRITE != 0 {
                    allow(address, rest & 0xffff_ffff);
                }
            }
        }
        let strayed = (0..before.len()).find(|&at| before[at] != after[at] && !allowed[at]);
        assert_eq!(strayed, None, "the device wrote where it must not");
    }
}
