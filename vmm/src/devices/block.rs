//! virtio-blk over a file: IN, OUT, FLUSH, GET_ID (virtio 1.2, section 5.2). A request is checked whole before any
//! I/O; bytes go straight between the file and guest memory.

use std::{
    hint::spin_loop,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use virtio_bindings::bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
        VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
        VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    },
    virtio_config::VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueT, desc::split::Descriptor};
use vm_memory::{Bytes, GuestMemoryMmap, VolatileSlice};

use super::{
    DeviceError, DiskFile, VirtioDevice,
    chain::{self, Chain},
    transfer,
};

/// Device type of a block device.
const VIRTIO_ID_BLOCK: u32 = 2;

/// Bytes of a sector, the unit of the device.
pub const SECTOR: u64 = 512;

/// Most bytes in one request: what a driver may make the host move before it looks at the clock again.
pub const MAX_REQUEST: u64 = 4 << 20;

const QUEUE_SIZES: [u16; 1] = [128];

/// Data segments of one request: the queue's size less header and status.
const MAX_SEGMENTS: u32 = QUEUE_SIZES[0] as u32 - 2;

/// Bytes of a serial.
const SERIAL: usize = 20;

/// Bytes of a request's header: type, reserved, sector.
const HEADER: u32 = 16;

/// Bytes of the range of a request for zeros: sector, number of sectors, flags.
const ZERO_RANGE: usize = 16;

/// The flag by which the space may be given up.
const UNMAP: u32 = 1;

/// Sectors of the longest run of zeros that a driver may ask for at once: 1 GiB, which takes a file system without a word
/// for it about a second.
const MAX_ZERO_SECTORS: u32 = 2 << 20;

/// Bytes of the configuration, up to `write_zeroes_may_unmap` and its padding.
const CONFIG: usize = 60;

/// The device.
pub struct Block {
    /// The disk is its capacity rounded up to whole sectors; what is behind the end of the file reads as zeros.
    file: Arc<DiskFile>,
    serial: [u8; SERIAL],
    config: [u8; CONFIG],
}

/// A request whose shape has been checked.
struct Request<'m> {
    kind: u32,
    sector: u64,
    data: Vec<VolatileSlice<'m>>,
    /// Bytes of `data`.
    length: u64,
    status: &'m Descriptor,
}

impl Block {
    /// A disk named `serial` (at most 20 bytes) over `file`.
    pub fn new(file: Arc<DiskFile>, serial: &str) -> Self {
        let mut name = [0; SERIAL];
        let count = serial.len().min(SERIAL);
        name[..count].copy_from_slice(&serial.as_bytes()[..count]);
        let mut config = [0; CONFIG];
        config[..8].copy_from_slice(&file.capacity().div_ceil(SECTOR).to_le_bytes());
        config[12..16].copy_from_slice(&MAX_SEGMENTS.to_le_bytes());
        if file.is_writable() {
            // max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap.
            config[48..52].copy_from_slice(&MAX_ZERO_SECTORS.to_le_bytes());
            config[52..56].copy_from_slice(&1_u32.to_le_bytes());
            config[56] = 1;
        }
        Self { file, serial: name, config }
    }

    fn execute(&self, request: &Request) -> (u32, u64) {
        let outcome = match request.kind {
            VIRTIO_BLK_T_IN => self.place(request).and_then(|offset| self.read(offset, request)),
            VIRTIO_BLK_T_OUT if self.file.is_writable() => {
                self.place(request).and_then(|offset| self.write(offset, request)).map(|()| 0)
            }
            VIRTIO_BLK_T_WRITE_ZEROES if self.file.is_writable() => self.write_zeros(request).map(|()| 0),
            VIRTIO_BLK_T_FLUSH if self.file.is_writable() => self.file.flush().map(|()| 0),
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_WRITE_ZEROES => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            VIRTIO_BLK_T_GET_ID => self.identify(request),
            _ => return (VIRTIO_BLK_S_UNSUPP, 0),
        };
        match outcome {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(error) => {
                self.file.failed(error);
                (VIRTIO_BLK_S_IOERR, 0)
            }
        }
    }

    /// Byte offset of a transfer of whole sectors inside the disk.
    fn place(&self, request: &Request) -> io::Result<u64> {
        if !request.length.is_multiple_of(SECTOR) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.inside(request.sector, request.length / SECTOR)
    }

    /// Byte offset of sectors inside the disk.
    fn inside(&self, sector: u64, count: u64) -> io::Result<u64> {
        let sectors = self.file.capacity().div_ceil(SECTOR);
        match sector.checked_add(count) {
            Some(end) if end <= sectors => Ok(sector * SECTOR),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Makes the one range that a request names zeros.
    fn write_zeros(&self, request: &Request) -> io::Result<()> {
        let [slice] = request.data.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut range = [0; ZERO_RANGE];
        if slice.copy_to(&mut range) != ZERO_RANGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let word = |at: usize| u32::from_le_bytes([range[at], range[at + 1], range[at + 2], range[at + 3]]);
        let (sector, count) = (u64::from(word(4)) << 32 | u64::from(word(0)), word(8));
        if count > MAX_ZERO_SECTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let offset = self.inside(sector, count.into())?;
        self.file.write_zeros(offset, u64::from(count) * SECTOR, word(12) & UNMAP != 0)
    }

    fn read(&self, offset: u64, request: &Request) -> io::Result<u64> {
        let stored = self.file.length().saturating_sub(offset).min(request.length);
        let stored = usize::try_from(stored).map_err(io::Error::other)?;
        let (head, tail) = transfer::split(&request.data, stored)?;
        self.file.read(&head, offset)?;
        for slice in tail {
            slice.write_slice(&vec![0; slice.len()], 0).map_err(io::Error::other)?;
        }
        Ok(request.length)
    }

    fn write(&self, offset: u64, request: &Request) -> io::Result<()> {
        self.file.before_write(offset, request.length)?;
        self.file.write(&request.data, offset)?;
        self.file.written_to(offset + request.length);
        Ok(())
    }

    fn identify(&self, request: &Request) -> io::Result<u64> {
        let [slice] = request.data.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let count = slice.len().min(SERIAL);
        slice.copy_from(&self.serial[..count]);
        Ok(count as u64)
    }
}

impl<'m> Request<'m> {
    /// Header, data, status; the header alone in its descriptor, the status alone in its.
    fn parse(chain: &'m Chain, memory: &'m GuestMemoryMmap) -> Result<Self, DeviceError> {
        let [header, data @ .., status] = chain.descriptors.as_slice() else {
            return Err(DeviceError::Chain("has no header and status"));
        };
        if header.is_write_only() || header.len() != HEADER {
            return Err(DeviceError::Chain("does not start with a header of 16 readable bytes"));
        }
        if !status.is_write_only() || status.len() != 1 {
            return Err(DeviceError::Chain("does not end in a writable status byte"));
        }
        chain::slice(memory, status)?;
        let outside = |_| DeviceError::Chain("points outside of memory");
        let words: [u32; 4] = memory.read_obj(header.addr()).map_err(outside)?;
        let (kind, sector) = (words[0], u64::from(words[3]) << 32 | u64::from(words[2]));

        let device_writes = !matches!(kind, VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_WRITE_ZEROES);
        if data.iter().any(|descriptor| descriptor.is_write_only() != device_writes) {
            return Err(DeviceError::Chain("has data that goes the wrong way"));
        }
        let length = data.iter().map(|descriptor| u64::from(descriptor.len())).sum();
        if length > MAX_REQUEST {
            return Err(DeviceError::Chain("is longer than a request may be"));
        }
        let data =
            data.iter().map(|descriptor| chain::slice(memory, descriptor)).collect::<Result<_, _>>()?;
        Ok(Self { kind, sector, data, length, status })
    }
}

/// The next request, if there is one or comes within `patience`.
fn next_within(
    patience: Duration,
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
) -> Result<Option<Chain>, DeviceError> {
    let since = Instant::now();
    loop {
        if let Some(chain) = chain::next(queue, memory)? {
            return Ok(Some(chain));
        }
        if since.elapsed() >= patience {
            return Ok(None);
        }
        spin_loop();
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn device_features(&self) -> u64 {
        let access = match self.file.is_writable() {
            true => 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
            false => 1 << VIRTIO_BLK_F_RO,
        };
        1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_SEG_MAX | access
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process_queue(
        &mut self,
        _: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        patience: Duration,
    ) -> Result<(), DeviceError> {
        // Who writes what took long to make would find a processor busy with looking.
        let patience = if self.file.is_writable() { Duration::ZERO } else { patience };
        // While it is at work it need not be told of more.
        loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = next_within(patience, queue, memory)? {
                let request = Request::parse(&chain, memory)?;
                let (status, written) = self.execute(&request);
                let outside = |_| DeviceError::Chain("points outside of memory");
                memory.write_obj(status as u8, request.status.addr()).map_err(outside)?;
                queue.add_used(memory, chain.head, u32::try_from(written + 1).unwrap_or(u32::MAX))?;
            }
            if !queue.enable_notification(memory)? {
                return Ok(());
            }
        }
    }
}
