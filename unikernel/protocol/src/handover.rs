//! Devices handed over running. The machine has brought them up itself (reset, features, queues, `DRIVER_OK`) through
//! the registers any driver would use, and says on the kernel command line where their rings are. The guest goes on
//! from there: nothing but notifications is left of the register accesses, each of which is an exit.
//!
//! A guest booted by somebody else finds `virtio_mmio.device=` words instead and brings the devices up itself.

use alloc::{format, string::String};
use core::fmt;

/// Descriptors in every queue handed over.
pub const RING_ENTRIES: u16 = 64;
/// Bytes that the rings of one queue take: the descriptor table first.
pub const RING_PAGE: u64 = 4096;
/// Offset of the available ring in the page, in bytes.
pub const AVAILABLE_RING: u64 = 16 * RING_ENTRIES as u64;
/// Offset of the used ring in the page, in bytes: behind the available ring, aligned to 4.
pub const USED_RING: u64 = AVAILABLE_RING + (6 + 2 * RING_ENTRIES as u64).next_multiple_of(4);

/// A word of the kernel command line that hands over a device. Addresses are guest-physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover<'a> {
    /// The console: `instar.console=REGISTERS,RINGS`, with two pages of rings (receive, transmit).
    Console {
        /// Address of the registers.
        registers: u64,
        /// Address of the first page of rings.
        rings: u64,
    },
    /// A block device: `instar.disk=SERIAL,SECTORS,REGISTERS,RINGS`, with one page of rings.
    Disk {
        /// The disk's serial: no comma, no white space.
        serial: &'a str,
        /// Its length in sectors of 512 bytes.
        sectors: u64,
        /// Address of the registers.
        registers: u64,
        /// Address of the page of rings.
        rings: u64,
    },
    /// Places for block devices to come: `instar.slots=COUNT,REGISTERS,RINGS`. A device is put into the next free one
    /// when the guest gets a file that it asked for; its serial is [`slot_serial`] of its number. Windows of registers
    /// and pages of rings follow one another, 4096 bytes each.
    Slots {
        /// How many there are.
        count: u64,
        /// Address of the first one's registers.
        registers: u64,
        /// Address of the first one's page of rings.
        rings: u64,
    },
    /// Workers: `instar.workers=COUNT`, processors that run beside the first one, with a stack each. At its entry the
    /// first one finds 0 in `rsi`, and they their number, counted from 1, in `rsi` and the address of the idle
    /// register in `rdi`. They may use no other register of a device.
    Workers {
        /// How many there are, at most [`MAX_WORKERS`].
        count: u64,
    },
    /// The idle register: `instar.idle=REGISTER`, four bytes; who waits for another processor or for a disk writes to it from
    /// time to time for how many microseconds it shall be put to sleep, of which the machine grants a few thousand.
    Idle {
        /// Its address.
        register: u64,
    },
}

/// Most processors beside the first one.
pub const MAX_WORKERS: usize = 8;

/// Bytes from one slot's registers to the next one's.
pub const SLOT_STRIDE: u64 = 4096;

/// In front of the number of a slot in its serial.
const SLOT: &str = "slot.";

/// The serial of the disk in slot number `index`, counted from 0.
pub fn slot_serial(index: usize) -> String {
    format!("{SLOT}{index}")
}

/// The number of the slot whose disk has this serial.
pub fn slot_index(serial: &str) -> Option<u64> {
    serial.strip_prefix(SLOT)?.parse().ok()
}

impl<'a> Handover<'a> {
    /// Reads a word; `None` when it is about something else.
    pub fn parse(word: &'a str) -> Option<Self> {
        let (key, value) = word.split_once('=')?;
        let mut fields = value.split(',');
        let number = |fields: &mut core::str::Split<'a, char>| {
            u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()
        };
        let handover = match key {
            "instar.console" => {
                Self::Console { registers: number(&mut fields)?, rings: number(&mut fields)? }
            }
            "instar.disk" => Self::Disk {
                serial: fields.next()?,
                sectors: number(&mut fields)?,
                registers: number(&mut fields)?,
                rings: number(&mut fields)?,
            },
            "instar.slots" => Self::Slots {
                count: number(&mut fields)?,
                registers: number(&mut fields)?,
                rings: number(&mut fields)?,
            },
            "instar.workers" => Self::Workers { count: number(&mut fields)? },
            "instar.idle" => Self::Idle { register: number(&mut fields)? },
            _ => return None,
        };
        fields.next().is_none().then_some(handover)
    }
}

impl fmt::Display for Handover<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console { registers, rings } => write!(f, "instar.console={registers:#x},{rings:#x}"),
            Self::Disk { serial, sectors, registers, rings } => {
                write!(f, "instar.disk={serial},{sectors:#x},{registers:#x},{rings:#x}")
            }
            Self::Slots { count, registers, rings } => {
                write!(f, "instar.slots={count:#x},{registers:#x},{rings:#x}")
            }
            Self::Workers { count } => write!(f, "instar.workers={count:#x}"),
            Self::Idle { register } => write!(f, "instar.idle={register:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn words_survive_the_command_line() {
        let console = Handover::Console { registers: 0xd000_0000, rings: 0x2b_0000 };
        let disk =
            Handover::Disk { serial: "source.extents", sectors: 9, registers: 0xd000_1000, rings: 0x2b_2000 };
        let slots = Handover::Slots { count: 1280, registers: 0xd000_2000, rings: 0x2b_3000 };
        let workers = Handover::Workers { count: 3 };
        let idle = Handover::Idle { register: 0xd000_3000 };
        for word in [console, disk, slots, workers, idle] {
            assert_eq!(Handover::parse(&word.to_string()), Some(word));
        }
        assert_eq!(disk.to_string(), "instar.disk=source.extents,0x9,0xd0001000,0x2b2000");
    }

    #[test]
    fn other_words_are_left_alone() {
        for word in [
            "quiet",
            "instar.console=0x1",
            "instar.console=0x1,0x2,0x3",
            "instar.console=1,2",
            "instar.x=0x1",
        ] {
            assert_eq!(Handover::parse(word), None, "{word}");
        }
    }
}
