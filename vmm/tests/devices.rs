//! The virtio devices against a driver that follows the specification, and one that does not.

use std::{
    io::{Read, Seek, Write},
    sync::Arc,
};

use instar::devices::{
    Block, Console, DeviceError, DiskFile, MAX_REQUEST, MmioTransport, Port, VirtioDevice,
};
use protocol::handover::{AVAILABLE_RING, RING_ENTRIES, USED_RING};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: u64 = 16 << 20;
const RINGS: u64 = 0x1000;
const HEADER: u64 = 0x8000;
const STATUS: u64 = 0x8100;
const DATA: u64 = 0x10_0000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const WRITE_ZEROES: u32 = 13;

/// The flag of a range of zeros by which its space may be given up.
const UNMAP: u32 = 1;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// What the status byte holds before the device has written it.
const UNTOUCHED: u8 = 0xaa;

const WRITE: u16 = 2;
const NEXT: u16 = 1;

const QUEUE_NOTIFY: u64 = 0x50;
const DEVICE_STATUS: u64 = 0x70;

/// A driver of one device, with one request in flight at a time.
struct Driver {
    transport: MmioTransport,
    memory: GuestMemoryMmap,
    requests: u16,
}

/// Address, length, flags and next of a descriptor.
type Descriptor = (u64, u32, u16, u16);

impl Driver {
    fn new(device: impl VirtioDevice + 'static) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let mut transport = MmioTransport::new(Box::new(device)).unwrap();
        transport.bring_up(RINGS, &memory).unwrap();
        Self { transport, memory, requests: 0 }
    }

    fn write(&mut self, register: u64, value: u32) -> Result<(), DeviceError> {
        self.transport.write(register, &value.to_le_bytes(), &self.memory)
    }

    /// Puts a chain that starts at descriptor 0 into queue 0 and notifies.
    fn submit(&mut self, chain: &[Descriptor]) -> Result<(), DeviceError> {
        self.submit_to(0, chain)
    }

    fn submit_to(&mut self, queue: u64, chain: &[Descriptor]) -> Result<(), DeviceError> {
        let rings = RINGS + queue * 0x1000;
        for (index, &(address, length, flags, next)) in (0..).zip(chain) {
            let at = GuestAddress(rings + 16 * index);
            self.memory.write_obj(address, at).unwrap();
            self.memory.write_obj(length, GuestAddress(at.0 + 8)).unwrap();
            self.memory.write_obj(flags, GuestAddress(at.0 + 12)).unwrap();
            self.memory.write_obj(next, GuestAddress(at.0 + 14)).unwrap();
        }
        let slot = AVAILABLE_RING + 4 + 2 * u64::from(self.requests % RING_ENTRIES);
        self.memory.write_obj(0_u16, GuestAddress(rings + slot)).unwrap();
        self.requests += 1;
        self.memory.write_obj(self.requests, GuestAddress(rings + AVAILABLE_RING + 2)).unwrap();
        self.write(QUEUE_NOTIFY, queue as u32)
    }

    /// A block request with one data segment at [`DATA`]; answers its status.
    fn request(&mut self, kind: u32, sector: u64, length: u32) -> Result<u8, DeviceError> {
        self.memory.write_obj([kind, 0, sector as u32, (sector >> 32) as u32], GuestAddress(HEADER)).unwrap();
        self.memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        let direction = if matches!(kind, OUT | WRITE_ZEROES) { 0 } else { WRITE };
        let chain = match length {
            0 => vec![(HEADER, 16, NEXT, 1), (STATUS, 1, WRITE, 0)],
            _ => vec![(HEADER, 16, NEXT, 1), (DATA, length, direction | NEXT, 2), (STATUS, 1, WRITE, 0)],
        };
        self.submit(&chain)?;
        Ok(self.memory.read_obj(GuestAddress(STATUS)).unwrap())
    }

    /// A request for zeros: `count` sectors from `sector` on.
    fn zeros(&mut self, sector: u64, count: u32, flags: u32) -> Result<u8, DeviceError> {
        let range = [sector as u32, (sector >> 32) as u32, count, flags];
        self.memory.write_obj(range, GuestAddress(DATA)).unwrap();
        self.request(WRITE_ZEROES, 0, 16)
    }

    fn data(&self, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory.read_slice(&mut data, GuestAddress(DATA)).unwrap();
        data
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(RINGS + USED_RING + 2)).unwrap()
    }
}

fn file(content: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn content(mut file: &std::fs::File) -> Vec<u8> {
    let mut content = vec![];
    file.rewind().unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

fn disk(content: &[u8], writable: bool) -> (Driver, std::fs::File) {
    let file = file(content);
    let kept = file.try_clone().unwrap();
    let length = content.len() as u64;
    let file =
        if writable { DiskFile::writable(file, length, length) } else { DiskFile::read_only(file, length) };
    (Driver::new(Block::new(Arc::new(file), "source")), kept)
}

#[test]
fn sectors_are_read() {
    let bytes: Vec<u8> = (0..4096_u32).map(|byte| byte as u8 ^ (byte >> 8) as u8).collect();
    let (mut driver, _) = disk(&bytes, false);
    assert_eq!(driver.request(IN, 1, 1024).unwrap(), OK);
    assert_eq!(driver.data(1024), bytes[512..1536]);
    assert_eq!(driver.used(), 1);
}

#[test]
fn the_rest_of_the_last_sector_reads_as_zeros_even_when_the_file_has_grown() {
    let (mut driver, mut file) = disk(&[7; 700], false);
    file.write_all(&[9; 700]).unwrap();
    driver.memory.write_slice(&[1; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(driver.request(IN, 0, 1024).unwrap(), OK);
    assert_eq!(driver.data(1024), [[7_u8; 700].as_slice(), &[0; 324]].concat());
    assert_eq!(driver.request(IN, 2, 512).unwrap(), IOERR);
}

#[test]
fn a_file_that_has_shrunk_is_an_error() {
    let (mut driver, file) = disk(&[7; 4096], false);
    file.set_len(1000).unwrap();
    assert_eq!(driver.request(IN, 0, 4096).unwrap(), IOERR);
}

#[test]
fn what_is_not_whole_sectors_inside_the_disk_is_refused() {
    let (mut driver, _) = disk(&[7; 4096], false);
    for (sector, length) in [(0, 100), (8, 512), (7, 1024), (u64::MAX, 512), (u64::MAX / 512 + 1, 512)] {
        assert_eq!(driver.request(IN, sector, length).unwrap(), IOERR, "{sector} {length}");
    }
    assert_eq!(driver.data(4096), [0; 4096], "a refused read has written");
}

#[test]
fn a_read_only_disk_refuses_writes_before_any_io() {
    let (mut driver, file) = disk(&[7; 4096], false);
    assert_eq!(driver.request(OUT, 0, 512).unwrap(), IOERR);
    assert_eq!(driver.request(FLUSH, 0, 0).unwrap(), UNSUPPORTED);
    assert_eq!(content(&file), [7; 4096]);
}

#[test]
fn a_writable_disk_writes_and_flushes_but_does_not_grow() {
    let (mut driver, file) = disk(&[7; 4096], true);
    driver.memory.write_slice(&[3; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(driver.request(OUT, 2, 512).unwrap(), OK);
    assert_eq!(driver.request(OUT, 8, 512).unwrap(), IOERR);
    assert_eq!(driver.request(FLUSH, 0, 0).unwrap(), OK);
    assert_eq!(content(&file), [[7_u8; 1024].as_slice(), &[3; 512], &[7; 2560]].concat());
}

#[test]
fn a_disk_with_room_grows_as_far_as_that_and_is_cut_to_length() {
    let kept = file(&[7; 1000]);
    let disk = Arc::new(DiskFile::writable(kept.try_clone().unwrap(), 1000, 3072));
    let mut driver = Driver::new(Block::new(disk.clone(), "source"));
    assert_eq!(driver.request(IN, 5, 512).unwrap(), OK);
    assert_eq!(driver.data(512), [0; 512]);
    driver.memory.write_slice(&[3; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(driver.request(OUT, 6, 512).unwrap(), IOERR);
    assert_eq!(disk.take_failure().map(|error| error.kind()), Some(std::io::ErrorKind::InvalidInput));
    assert_eq!(driver.request(OUT, 3, 512).unwrap(), OK);
    assert_eq!(driver.request(IN, 3, 512).unwrap(), OK);
    assert_eq!(driver.data(512), [3; 512]);
    assert_eq!(content(&kept), [[7_u8; 1000].as_slice(), &[0; 536], &[3; 512]].concat());
    disk.set_length(1537).unwrap();
    assert_eq!(content(&kept), [[7_u8; 1000].as_slice(), &[0; 536], &[3]].concat());
    assert_eq!(driver.request(IN, 3, 512).unwrap(), OK);
    assert_eq!(driver.data(2), [3, 0]);
    assert!(disk.set_length(3073).is_err());
    let other = DiskFile::read_only(kept.try_clone().unwrap(), 1537);
    assert!(other.set_length(0).is_err());
    assert_eq!(content(&kept).len(), 1537);
}

#[test]
fn sectors_become_zeros_inside_the_disk() {
    for flags in [0, UNMAP] {
        let (mut driver, file) = disk(&[7; 4096], true);
        assert_eq!(driver.zeros(2, 3, flags).unwrap(), OK);
        assert_eq!(driver.zeros(6, 0, flags).unwrap(), OK);
        assert_eq!(content(&file), [[7_u8; 1024].as_slice(), &[0; 1536], &[7; 1536]].concat());
        for (sector, count) in [(8, 1), (0, 9), (u64::MAX, 1), (u64::MAX / 512 + 1, 1), (0, u32::MAX)] {
            assert_eq!(driver.zeros(sector, count, flags).unwrap(), IOERR, "{sector} {count}");
        }
        // One range, and the whole of it.
        for length in [0, 15, 17, 32] {
            assert_eq!(driver.request(WRITE_ZEROES, 0, length).unwrap(), IOERR, "{length}");
        }
        assert_eq!(content(&file)[2560..], [7; 1536]);
    }
}

#[test]
fn a_disk_with_room_grows_by_zeros_and_one_without_says_how_many_it_takes() {
    let kept = file(&[7; 1000]);
    let disk = DiskFile::writable(kept.try_clone().unwrap(), 1000, 1 << 31);
    let mut driver = Driver::new(Block::new(Arc::new(disk), "source"));
    let mut limits = [0; 12];
    driver.transport.read(0x100 + 48, &mut limits).unwrap();
    let most = u32::from_le_bytes(limits[..4].try_into().unwrap());
    assert_eq!(limits[4..], [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(driver.zeros(0, most + 1, UNMAP).unwrap(), IOERR);
    assert_eq!(driver.zeros(1, most, UNMAP).unwrap(), OK);
    assert_eq!(kept.metadata().unwrap().len(), (u64::from(most) + 1) * 512);
    kept.set_len(2048).unwrap();
    assert_eq!(content(&kept), [[7_u8; 512].as_slice(), &[0; 1536]].concat());
}

#[test]
fn a_read_only_disk_gets_no_zeros() {
    let (mut driver, file) = disk(&[7; 4096], false);
    assert_eq!(driver.zeros(0, 1, 0).unwrap(), IOERR);
    assert_eq!(content(&file), [7; 4096]);
    // What is to become zeros is for the device to read.
    let (mut driver, _) = disk(&[7; 4096], true);
    driver.memory.write_obj([WRITE_ZEROES, 0, 0, 0], GuestAddress(HEADER)).unwrap();
    let chain = [(HEADER, 16, NEXT, 1), (DATA, 16, WRITE | NEXT, 2), (STATUS, 1, WRITE, 0)];
    assert!(matches!(driver.submit(&chain), Err(DeviceError::Chain(_))));
}

#[test]
fn a_disk_tells_its_serial_and_nothing_it_does_not_know() {
    let (mut driver, _) = disk(&[7; 4096], false);
    assert_eq!(driver.request(GET_ID, 0, 20).unwrap(), OK);
    assert_eq!(&driver.data(20), b"source\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(driver.request(99, 0, 512).unwrap(), UNSUPPORTED);
}

#[test]
fn a_broken_chain_ends_the_machine_before_any_io() {
    let header = (HEADER, 16, NEXT, 1);
    let status = (STATUS, 1, WRITE, 0);
    let chains: &[(&str, &[Descriptor])] = &[
        ("no status", &[(HEADER, 16, 0, 0)]),
        ("short header", &[(HEADER, 15, NEXT, 1), status]),
        ("writable header", &[(HEADER, 16, NEXT | WRITE, 1), status]),
        ("readable status", &[header, (STATUS, 1, 0, 0)]),
        ("long status", &[header, (STATUS, 2, WRITE, 0)]),
        ("status out of memory", &[header, (MEMORY, 1, WRITE, 0)]),
        ("header out of memory", &[(MEMORY - 8, 16, NEXT, 1), status]),
        ("data out of memory", &[header, (MEMORY - 512, 1024, NEXT | WRITE, 2), status]),
        ("data at the end of the address space", &[header, (u64::MAX - 511, 512, NEXT | WRITE, 2), status]),
        ("data that goes the wrong way", &[header, (DATA, 512, NEXT, 2), status]),
        ("readable behind writable", &[header, (DATA, 512, NEXT | WRITE, 2), (DATA, 512, NEXT, 3), status]),
        ("too long", &[header, (DATA, MAX_REQUEST as u32 + 512, NEXT | WRITE, 2), status]),
        ("loop", &[header, (DATA, 512, NEXT | WRITE, 1)]),
        ("next out of the table", &[header, (DATA, 512, NEXT | WRITE, RING_ENTRIES)]),
    ];
    for (name, chain) in chains {
        let (mut driver, _) = disk(&[7; 4096], false);
        driver.memory.write_obj([IN, 0, 0, 0], GuestAddress(HEADER)).unwrap();
        let error = driver.submit(chain).expect_err(name);
        assert!(matches!(error, DeviceError::Chain(_)), "{name}: {error:?}");
        assert_eq!(driver.data(512), [0; 512], "{name}: data was written");
        assert_eq!(driver.used(), 0, "{name}: the request was answered");
    }
}

#[test]
fn an_available_ring_that_jumps_ends_the_machine() {
    let (mut driver, _) = disk(&[7; 4096], false);
    driver.memory.write_obj(1000_u16, GuestAddress(RINGS + AVAILABLE_RING + 2)).unwrap();
    assert!(matches!(driver.write(QUEUE_NOTIFY, 0), Err(DeviceError::Queue(_))));
}

#[test]
fn registers_are_used_in_order_or_not_at_all() {
    const QUEUE_READY: u64 = 0x44;
    const QUEUE_NUM: u64 = 0x38;
    let refused = |result| assert!(matches!(result, Err(DeviceError::Register { .. })), "{result:?}");
    let (mut driver, _) = disk(&[7; 4096], false);
    refused(driver.write(QUEUE_NUM, 8));
    refused(driver.write(QUEUE_NOTIFY, 1));
    refused(driver.write(DEVICE_STATUS, 1));
    refused(driver.write(0x00, 1));
    refused(driver.write(0x104, 1));
    driver.write(DEVICE_STATUS, 0).unwrap();
    refused(driver.write(QUEUE_NOTIFY, 0));
    refused(driver.write(QUEUE_READY, 1));
    refused(driver.write(DEVICE_STATUS, 4));
    let memory = driver.memory.clone();
    refused(driver.transport.write(DEVICE_STATUS, &[1], &memory));
    refused(driver.transport.read(DEVICE_STATUS, &mut [0; 2]));
}

#[test]
fn features_that_were_not_offered_are_not_agreed_on() {
    let (mut driver, _) = disk(&[7; 4096], false);
    driver.write(DEVICE_STATUS, 0).unwrap();
    driver.write(DEVICE_STATUS, 3).unwrap();
    driver.write(0x24, 0).unwrap();
    driver.write(0x20, u32::MAX).unwrap();
    driver.write(0x24, 1).unwrap();
    driver.write(0x20, 1).unwrap();
    driver.write(DEVICE_STATUS, 11).unwrap();
    let mut status = [0; 4];
    driver.transport.read(DEVICE_STATUS, &mut status).unwrap();
    assert_eq!(u32::from_le_bytes(status), 3);
}

#[test]
fn the_console_carries_bytes_both_ways() {
    let port = Port::saying(b"hello".to_vec());
    let mut driver = Driver::new(Console::new(port.clone()));
    driver.submit(&[(DATA, 3, NEXT | WRITE, 1), (DATA + 0x1000, 100, WRITE, 0)]).unwrap();
    assert_eq!(driver.data(3), b"hel");
    let mut rest = [0; 3];
    driver.memory.read_slice(&mut rest, GuestAddress(DATA + 0x1000)).unwrap();
    assert_eq!(&rest, b"lo\0");

    driver.requests = 0;
    driver.memory.write_slice(b"thanks", GuestAddress(DATA)).unwrap();
    driver.submit_to(1, &[(DATA, 6, 0, 0)]).unwrap();
    assert_eq!(port.take(), b"thanks");
    assert_eq!(port.take(), b"");
}

#[test]
fn the_console_refuses_chains_that_go_the_wrong_way_and_floods() {
    let mut driver = Driver::new(Console::new(Port::saying(b"hello".to_vec())));
    assert!(matches!(driver.submit(&[(DATA, 3, 0, 0)]), Err(DeviceError::Chain(_))));
    let mut driver = Driver::new(Console::new(Port::default()));
    assert!(matches!(driver.submit_to(1, &[(DATA, 3, WRITE, 0)]), Err(DeviceError::Chain(_))));
    let mut driver = Driver::new(Console::new(Port::default()));
    assert!(matches!(driver.submit_to(1, &[(DATA, 5 << 20, 0, 0)]), Err(DeviceError::ConsoleFull(0))));
}
