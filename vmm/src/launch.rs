//! The one way to run a command: build a machine, enter the sandbox, run the guest until its terminal record.

use std::{fs::File, io, os::fd::AsFd, sync::Arc, thread, time::Duration};

use protocol::{
    Answer, CommandHeader, ErrorKind, ErrorRecord, Need, Op, Part, Reply, Role,
    handover::{Handover, MAX_WORKERS, RING_PAGE},
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    devices::{
        Block, Console, DeviceBus, DeviceError, DiskFile, EventLoop, MMIO_BASE, MMIO_STRIDE, MmioTransport,
        Port, SECTOR, SharedDevice,
    },
    error::Error,
    machine::{Deadline, Exit, Fault, Layout, Machine, WorkerFailure, Workers, symbol_at},
    records::{Event, MAX_ANSWER, RecordStream, StreamError},
    references::{self, Grant, References},
    report::{self, reason},
    sandbox::{Beneath, Sandbox, Use},
    target::Targets,
};

pub use crate::machine::{Cpu, UNIKERNEL};

/// One command a machine: its id can be constant. 0 is the guest's word for "not known yet".
const REQUEST_ID: u64 = 1;

/// A file given to the guest as a disk.
#[derive(Debug)]
pub struct Disk {
    /// Name by which the guest finds the disk, at most 20 bytes.
    pub serial: String,
    /// Who does its I/O.
    pub io: IoMode,
    file: Arc<DiskFile>,
}

impl Disk {
    /// The disk that `file` is, served in the vCPU's thread.
    pub fn new(serial: impl Into<String>, file: Arc<DiskFile>) -> Self {
        Self { serial: serial.into(), io: IoMode::Inline, file }
    }

    /// A file of `length` bytes to read.
    pub fn read_only(serial: impl Into<String>, file: File, length: u64) -> Self {
        Self::new(serial, Arc::new(DiskFile::read_only(file, length)))
    }

    /// A file of `length` bytes to write to, which may become `capacity` bytes long.
    pub fn writable(serial: impl Into<String>, file: File, length: u64, capacity: u64) -> Self {
        Self::new(serial, Arc::new(DiskFile::writable(file, length, capacity)))
    }

    /// Whether the guest may write to it.
    pub fn is_writable(&self) -> bool {
        self.file.is_writable()
    }

    /// Length of the disk in sectors.
    fn sectors(&self) -> u64 {
        self.file.capacity().div_ceil(SECTOR)
    }
}

/// Bytes of data for each byte of tables in the usual image: qcow2 with clusters of 64 KiB.
pub const DATA_PER_TABLE: u64 = 65536 / 8;

/// Who does a disk's I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// The vCPU's thread, while the guest waits: nothing to set up, for short commands.
    Inline,
    /// A thread beside it, the same for all such disks, while the guest computes: for long commands.
    Threaded,
}

impl IoMode {
    /// The mode for a command that may read this many bytes. A thread, its events and taking them down cost about
    /// 15 ms: as long as reading some tens of MiB from the page cache.
    pub fn for_reading(bytes: u64) -> Self {
        const LONG: u64 = 64 << 20;
        if bytes < LONG { Self::Inline } else { Self::Threaded }
    }

    /// The mode for a command that reads the tables of an image that takes this many bytes of disk space.
    pub fn for_tables(allocated: u64) -> Self {
        Self::for_reading(allocated / DATA_PER_TABLE)
    }

    /// `disks`, all of them in this mode.
    pub fn for_all(self, mut disks: Vec<Disk>) -> Vec<Disk> {
        disks.iter_mut().for_each(|disk| disk.io = self);
        disks
    }
}

/// Workers for a command that compresses: one on each processor beside the first.
pub fn all_workers() -> usize {
    thread::available_parallelism().map_or(0, |processors| processors.get() - 1)
}

/// Workers for a command that reads images which take `allocated` bytes of disk space, and those they name that
/// `references` allows: what is in them may be compressed. Of few bytes the guest has decoded all before a worker is up.
pub fn workers_for(allocated: u64, references: &References) -> usize {
    const MANY: u64 = 4 << 20;
    if allocated < MANY && references.slots() == 0 { 0 } else { all_workers() }
}

/// Who brings the devices up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceStart {
    /// The machine, before the first instruction: [`protocol::handover`].
    #[default]
    HandedOver,
    /// The guest, register by register, as on a machine of somebody else's.
    ByGuest,
}

/// What the guest shall do.
#[derive(Debug)]
pub struct Command {
    /// The operation.
    pub op: Op,
    /// Its JSON payload.
    pub payload: Vec<u8>,
    /// The disks it may use.
    pub disks: Vec<Disk>,
    /// Who brings the devices up.
    pub start: DeviceStart,
    /// The instructions the guest finds.
    pub cpu: Cpu,
    /// Processors beside the first one, at most [`MAX_WORKERS`]: for commands that compute for long. Each takes about a
    /// millisecond to start. With [`DeviceStart::ByGuest`] there are none.
    pub workers: usize,
    /// Who decides about the files that images name. They are served in the vCPU's thread.
    pub references: References,
    /// The files that it writes, whose disks are among `disks`; those it asks for are made in the vCPU's thread.
    pub targets: Targets,
    /// Most bytes of its answer: [`MAX_ANSWER`] where parts of it are kept.
    pub max_answer: u64,
}

impl Command {
    /// A short command that needs no files.
    pub fn new(op: Op, payload: Vec<u8>) -> Self {
        Self {
            op,
            payload,
            disks: Vec::new(),
            start: DeviceStart::HandedOver,
            cpu: Cpu::Baseline,
            workers: 0,
            references: References::denied(),
            targets: Targets::default(),
            max_answer: MAX_ANSWER,
        }
    }
}

/// Takes the parts of an answer one by one as they come, with the files that the guest has by then. An error ends the
/// command.
pub type Consumer<'a> = dyn FnMut(Part, &References) -> Result<(), Error> + 'a;

/// The [`Consumer`] for operations that answer in one piece.
pub fn no_parts(_: Part, _: &References) -> Result<(), Error> {
    Err(StreamError::Operation.into())
}

/// What the guest gets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: u64,
    /// Wall-clock time from the first instruction on.
    pub timeout: Duration,
}

/// An answer, and the machine it came from, still standing: taking it down costs time that a caller who has something
/// to print should not spend first.
pub struct Finished {
    /// What the guest found.
    pub answer: Answer,
    /// The files that it was given.
    pub references: References,
    /// The files that it has written, to be [committed](Targets::commit).
    pub targets: Targets,
    /// In the order they must go: the deadline, the workers, the I/O thread and the devices before the memory they work on.
    _parts: (Deadline, Workers, Option<EventLoop>, DeviceBus, Machine),
}

impl Finished {
    /// Leaves the machine to the kernel. For a process that ends next: everything goes at once then, and no sooner.
    pub fn leave_standing(self) {
        std::mem::forget(self);
    }

    /// The files that were written, to be committed; all else is [left standing](Self::leave_standing).
    pub fn into_targets(self) -> Targets {
        std::mem::forget(self._parts);
        self.targets
    }
}

/// Runs `command` in a machine of its own. With a sandbox, the calling process is restricted for good.
pub fn run(
    command: Command,
    limits: &Limits,
    sandbox: Option<&Sandbox>,
    consumer: &mut Consumer,
) -> Result<Finished, Error> {
    run_guest(UNIKERNEL, command, limits, sandbox, consumer)
}

/// As [`run`], with another guest than the unikernel.
pub fn run_guest(
    guest: &[u8],
    command: Command,
    limits: &Limits,
    sandbox: Option<&Sandbox>,
    consumer: &mut Consumer,
) -> Result<Finished, Error> {
    let port = Port::saying(encode(command.op, &command.payload)?);
    let (slots, workers) = match command.start {
        DeviceStart::HandedOver if command.targets.has_parts() => (references::MAX_SLOTS, command.workers),
        DeviceStart::HandedOver => (command.references.slots(), command.workers),
        DeviceStart::ByGuest => (0, 0),
    };
    let workers = workers.min(MAX_WORKERS);
    let device_count = command.disks.len() + 1;
    let devices = device_count + slots;
    // Nobody waits but for workers and for the I/O thread.
    let threads = command.disks.iter().any(|disk| disk.io == IoMode::Threaded);
    let idles = command.start == DeviceStart::HandedOver && (workers > 0 || threads);
    let idle = idles.then_some(MMIO_BASE + devices as u64 * MMIO_STRIDE);
    let start = |rings| match command.start {
        DeviceStart::HandedOver => handover_words(&command.disks, slots, rings, workers, idle),
        DeviceStart::ByGuest => foreign_words(device_count),
    };
    let layout = Layout {
        cpu: command.cpu,
        workers,
        windows: devices + usize::from(idles),
        // The console has two queues, a disk has one.
        ring_pages: devices as u64 + 1,
    };
    // Locals are dropped in reverse: the I/O thread and the devices before the memory they work on.
    let mut machine = Machine::build(guest, limits.memory, layout, start)?;

    let mut transports = vec![MmioTransport::new(Box::new(Console::new(port.clone())))?];
    let mut files = Vec::new();
    let mut threaded = Vec::new();
    for disk in command.disks {
        if disk.io == IoMode::Threaded {
            threaded.push((transports.len(), disk.is_writable()));
        }
        let (transport, file) = transport(disk)?;
        transports.push(transport);
        files.push(file);
    }
    let mut bus = DeviceBus::new(transports, machine.memory.get().clone(), idle);
    if command.start == DeviceStart::HandedOver {
        bus.bring_up(machine.rings())?;
    }
    let served = events_of_disks(&machine, &mut bus, &threaded)?;

    if let Some(sandbox) = sandbox {
        let read = |directory| Beneath(AsFd::as_fd(directory), Use::Read);
        let mut directories: Vec<_> = command.references.directories().iter().map(read).collect();
        directories.extend(command.targets.directories());
        sandbox.restrict(&directories)?;
    }
    command.targets.mind_signals(report::bar::tidy()).map_err(Error::EventLoop)?;
    let io = if served.is_empty() {
        None
    } else {
        Some(EventLoop::start(served, machine.memory.get()).map_err(Error::EventLoop)?)
    };
    let mut workers = match idle {
        Some(idle) => machine.start_workers(idle)?,
        None => Workers::default(),
    };
    let deadline = Deadline::arm(limits.timeout)?;
    if let Some(sandbox) = sandbox {
        sandbox.filter_syscalls()?;
    }
    let (mut references, mut targets) = (command.references, command.targets);
    let records = RecordStream::new(REQUEST_ID, command.max_answer);
    let mut answers =
        Answers { port: &port, records, references: &mut references, targets: &mut targets, files, consumer };
    workers.release();
    let helpers = Helpers { io: io.as_ref(), workers: &workers, deadline: &deadline };
    let answer = match converse(guest, &mut machine, &mut bus, &helpers, &mut answers) {
        Ok(answer) => answer,
        Err(error) => {
            // Nobody writes any more to files that are given up next.
            targets.stop();
            drop(io);
            return Err(error);
        }
    };
    Ok(Finished { answer, references, targets, _parts: (deadline, workers, io, bus, machine) })
}

/// The host's side of the conversation with the guest.
struct Answers<'a> {
    port: &'a Port,
    records: RecordStream,
    references: &'a mut References,
    targets: &'a mut Targets,
    /// The files of the disks, by serial.
    files: Vec<(String, Arc<DiskFile>)>,
    consumer: &'a mut Consumer<'a>,
}

impl Answers<'_> {
    /// Why the guest gave up. Of a transfer it knows only that it failed: the system's words for that are put in.
    fn error(&self, record: ErrorRecord) -> Error {
        const UNKNOWN: &str = "Input/output error";
        let mut record = self.references.named(record);
        match record.kind {
            ErrorKind::GuestFault => return Error::GuestPanic(record.message),
            ErrorKind::Io => {
                let failure = self.files.iter().find_map(|(_, file)| file.take_failure());
                if let (Some(failure), Some(words)) = (failure, record.message.strip_suffix(UNKNOWN)) {
                    record.message = format!("{words}{}", reason(&failure));
                    if failure.kind() == io::ErrorKind::FileTooLarge {
                        record.kind = ErrorKind::Limit;
                    }
                }
            }
            _ => {}
        }
        Error::Guest(record)
    }

    /// Gives the guest a file that it asks for, or not.
    fn need(&mut self, need: &Need) -> Result<Grant, ErrorRecord> {
        if need.role != Role::NewExtent {
            return self.references.answer(need);
        }
        let serial = self.references.take_slot()?;
        let (facts, disk) = self.targets.answer(need, &serial)?;
        Ok(Grant { facts, disks: vec![disk] })
    }

    /// Makes a file as long as the guest says that its image is.
    fn set_length(&self, disk: &str, length: u64) -> Result<(), Error> {
        let file = self.files.iter().find(|(serial, _)| serial == disk).map(|(_, file)| file);
        let file = file.filter(|file| file.is_writable() && length <= file.capacity());
        file.ok_or(StreamError::Length)?.set_length(length).map_err(Error::Resize)
    }
}

/// Who else may end a command: each of them kicks the thread of the first vCPU.
struct Helpers<'a> {
    io: Option<&'a EventLoop>,
    workers: &'a Workers,
    deadline: &'a Deadline,
}

impl Helpers<'_> {
    /// Why one of them did.
    fn failure(&self, guest: &[u8]) -> Option<Error> {
        if let Some(error) = self.io.and_then(EventLoop::take_failure) {
            return Some(error.into());
        }
        match self.workers.take_failure() {
            Some(WorkerFailure::Fault(fault)) => return Some(guest_fault(guest, fault)),
            Some(WorkerFailure::Device(address)) => return Some(DeviceError::NoDevice(address).into()),
            None => {}
        }
        self.deadline.passed().then(|| Error::Timeout(self.deadline.timeout()))
    }
}

/// The exit loop of the first vCPU: runs the guest until it has sent its terminal record.
fn converse(
    guest: &[u8],
    machine: &mut Machine,
    bus: &mut DeviceBus,
    helpers: &Helpers<'_>,
    answers: &mut Answers<'_>,
) -> Result<Answer, Error> {
    loop {
        let exit = machine.vcpu.run(bus);
        answers.records.push(&answers.port.take())?;
        while let Some(event) = answers.records.next_event() {
            match event {
                Event::Ended(outcome) => {
                    return outcome.map_err(|record| answers.error(record));
                }
                Event::Part(part) => (answers.consumer)(part, answers.references)?,
                Event::Length { disk, length } => answers.set_length(&disk, length)?,
                Event::Need(need) => {
                    let reply = match answers.need(&need) {
                        Ok(Grant { facts, disks }) => {
                            for disk in disks {
                                let (transport, file) = transport(disk)?;
                                bus.attach(transport)?;
                                answers.files.push(file);
                            }
                            Reply::File(facts)
                        }
                        Err(refusal) => Reply::Refused(refusal),
                    };
                    answers.port.say(&encode(Op::Reply, &serde_json::to_vec(&reply).unwrap_or_default())?);
                }
            }
        }
        match exit.map_err(|fault| guest_fault(guest, fault))? {
            Exit::Device(outcome) => outcome?,
            Exit::Kicked => {
                if let Some(error) = helpers.failure(guest) {
                    return Err(error);
                }
            }
        }
    }
}

fn encode(op: Op, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(payload.len()).ok().filter(|&length| length <= protocol::MAX_PAYLOAD);
    let Some(length) = length else {
        let message = format!("The command is longer than {} bytes", protocol::MAX_PAYLOAD);
        return Err(Error::Guest(ErrorRecord::new(ErrorKind::Limit, message)));
    };
    let header = CommandHeader { op, length, request_id: REQUEST_ID };
    Ok([header.encode().as_slice(), payload].concat())
}

/// A disk's device, and its file by its serial.
fn transport(disk: Disk) -> Result<(MmioTransport, (String, Arc<DiskFile>)), DeviceError> {
    let Disk { serial, file, .. } = disk;
    let transport = MmioTransport::new(Box::new(Block::new(file.clone(), &serial)))?;
    Ok((transport, (serial, file)))
}

/// The kernel command line that hands over the devices, whose rings begin at `rings`, the workers and the idle register.
fn handover_words(disks: &[Disk], slots: usize, rings: u64, workers: usize, idle: Option<u64>) -> String {
    let mut words = vec![Handover::Console { registers: MMIO_BASE, rings }.to_string()];
    for (index, disk) in (1_u64..).zip(disks) {
        let handover = Handover::Disk {
            serial: &disk.serial,
            sectors: disk.sectors(),
            registers: MMIO_BASE + index * MMIO_STRIDE,
            // Behind the two pages of the console.
            rings: rings + (index + 1) * RING_PAGE,
        };
        words.push(handover.to_string());
    }
    if slots > 0 {
        let first = disks.len() as u64 + 1;
        let slots = Handover::Slots {
            count: slots as u64,
            registers: MMIO_BASE + first * MMIO_STRIDE,
            rings: rings + (first + 1) * RING_PAGE,
        };
        words.push(slots.to_string());
    }
    if workers > 0 {
        words.push(Handover::Workers { count: workers as u64 }.to_string());
    }
    words.extend(idle.map(|register| Handover::Idle { register }.to_string()));
    words.join(" ")
}

/// The kernel command line that names the devices as it does for Linux. No interrupt is ever raised; the number only
/// completes the syntax.
fn foreign_words(device_count: usize) -> String {
    let word = |index| format!("virtio_mmio.device=4K@{:#x}:0", MMIO_BASE + index * MMIO_STRIDE);
    (0..device_count as u64).map(word).collect::<Vec<_>>().join(" ")
}

/// An event for the notifications of each of the disks that are not served in the vCPU's thread, where the console
/// always is.
///
/// Who writes rings seldom: the thread that serves the disk is at work then. That goes through the vCPU's thread, because taking
/// down a machine with an ioeventfd takes some 10 ms. Who reads ahead rings each time, and has an ioeventfd.
fn events_of_disks(
    machine: &Machine,
    bus: &mut DeviceBus,
    threaded: &[(usize, bool)],
) -> Result<Vec<(SharedDevice, EventFd)>, Error> {
    let mut served = vec![];
    for &(index, writable) in threaded {
        let event = EventFd::new(EFD_NONBLOCK).map_err(Error::EventLoop)?;
        match writable {
            true => bus.notify_through(index, event.try_clone().map_err(Error::EventLoop)?),
            false => machine.notify_through(index, &event)?,
        }
        served.extend(bus.device(index).map(|device| (device, event)));
    }
    Ok(served)
}

fn guest_fault(guest: &[u8], fault: Fault) -> Error {
    let place = match fault.rip.map(|rip| (rip, symbol_at(guest, rip))) {
        Some((rip, Some(symbol))) => format!("{symbol} ({rip:#x})"),
        Some((rip, None)) => format!("{rip:#x}"),
        None => "an unknown place".into(),
    };
    Error::GuestFault { reason: fault.reason, rip: fault.rip.unwrap_or(0), place }
}
