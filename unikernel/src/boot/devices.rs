//! Finding the devices: those handed over running, and those of a foreign machine, which are brought up here.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::ptr::NonNull;

use drivers::{Block, Console, DeviceType, MmioTransport, Rings, set_idle_register};
use protocol::handover::{
    AVAILABLE_RING, Handover, RING_ENTRIES, RING_PAGE, SLOT_STRIDE, USED_RING, slot_index,
};

use super::{panic::set_console, workers::set_workers};

// Both sides mean the same rings.
const _: () = assert!(
    Rings::ENTRIES == RING_ENTRIES
        && Rings::AVAILABLE as u64 == AVAILABLE_RING
        && Rings::USED as u64 == USED_RING
        && size_of::<Rings>() as u64 == RING_PAGE
);

/// The disks of the machine, by serial.
pub struct Disks {
    named: Vec<(String, Block)>,
    /// Disks that are not up: their serials are asked for when a disk is first wanted.
    waiting: Vec<MmioTransport>,
    /// Places of disks that come when they are asked for.
    slots: Slots,
}

/// Slots side by side, from number 0 on.
#[derive(Default)]
struct Slots {
    count: u64,
    registers: u64,
    rings: u64,
    taken: BTreeSet<u64>,
}

/// Brings the console up, finds the disks.
pub fn start(command_line: &str) -> Disks {
    let mut disks = Disks { named: Vec::new(), waiting: Vec::new(), slots: Slots::default() };
    for word in command_line.split_ascii_whitespace() {
        match Handover::parse(word) {
            Some(handover) => take_over(handover, &mut disks),
            None => {
                if let Some(transport) = foreign_transport(word) {
                    bring_up(transport, &mut disks);
                }
            }
        }
    }
    disks
}

fn take_over(handover: Handover, disks: &mut Disks) {
    // SAFETY: who boots the guest says what is where, and maps it; each word is looked at once.
    unsafe {
        match handover {
            Handover::Console { registers, rings } => {
                let transport = MmioTransport::adopt(pointer(registers));
                set_console(Console::adopt(transport, pointer(rings), pointer(rings + RING_PAGE)));
            }
            Handover::Disk { serial, sectors, registers, rings } => {
                let transport = MmioTransport::adopt(pointer(registers));
                let block = Block::adopt(transport, pointer(rings), sectors);
                disks.named.push((String::from(serial), block));
            }
            Handover::Slots { count, registers, rings } => {
                disks.slots = Slots { count, registers, rings, taken: BTreeSet::new() };
            }
            Handover::Workers { count } => set_workers(count),
            Handover::Idle { register } => set_idle_register(pointer(register)),
        }
    }
}

fn pointer<T>(address: u64) -> NonNull<T> {
    NonNull::new(address as *mut T).expect("device at address 0")
}

/// The transport named by a `virtio_mmio.device=SIZE@ADDRESS:IRQ` word, as Linux reads it.
fn foreign_transport(word: &str) -> Option<MmioTransport> {
    let (_, place) = word.strip_prefix("virtio_mmio.device=")?.split_once('@')?;
    let digits = place.split(':').next()?.strip_prefix("0x")?;
    let base = NonNull::new(usize::from_str_radix(digits, 16).ok()? as *mut u8)?;
    // SAFETY: who boots the guest says that there is a register window at this address, and maps it.
    unsafe { MmioTransport::new(base) }.ok()
}

fn bring_up(transport: MmioTransport, disks: &mut Disks) {
    match transport.device_type() {
        DeviceType::Console => set_console(Console::new(transport).expect("console does not start")),
        DeviceType::Block => disks.waiting.push(transport),
        DeviceType::None | DeviceType::Other(_) => {}
    }
}

impl Disks {
    /// Takes the disk with this serial.
    pub fn take(&mut self, serial: &str) -> Option<Block> {
        if let Some(index) = slot_index(serial) {
            return self.slots.take(index);
        }
        for transport in self.waiting.drain(..) {
            // A disk that does not come up is a disk that is not there.
            let Ok(mut block) = Block::new(transport) else { continue };
            if let Ok(serial) = block.serial() {
                self.named.push((String::from(serial.as_str()), block));
            }
        }
        let index = self.named.iter().position(|(name, _)| name == serial)?;
        Some(self.named.swap_remove(index).1)
    }
}

impl Slots {
    /// The disk that was put into slot `index`, once.
    fn take(&mut self, index: u64) -> Option<Block> {
        if index >= self.count || !self.taken.insert(index) {
            return None;
        }
        // SAFETY: who boots the guest says where the slots are, and maps them; this one is taken once, and has a
        // device because the host told its serial.
        Some(unsafe {
            let transport = MmioTransport::adopt(pointer(self.registers + index * SLOT_STRIDE));
            Block::attached(transport, pointer(self.rings + index * RING_PAGE))
        })
    }
}
