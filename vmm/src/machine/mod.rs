//! The virtual machine: memory, page tables, the guest's image, one vCPU in ring 3. Built in a straight line, nothing
//! half-built visible on failure. Knows nothing of commands, records or image formats.

mod boot;
mod error;
mod image;
mod kick;
mod memory;
mod paging;
mod vcpu;

pub use error::MachineError;
pub use image::symbol_at;
pub use kick::{Deadline, Kicker};
pub use memory::{GuestMemory, MAX_MEMORY, MIN_MEMORY};
pub use vcpu::{Bus, Cpu, Exit, Fault, Vcpu};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::{MMIO_BASE, MMIO_STRIDE, QUEUE_NOTIFY};

/// Address of the guest's image, and of its memory: nothing is below.
pub const IMAGE_BASE: u64 = 2 << 20;

/// A machine ready to run its guest.
pub struct Machine {
    /// The one processor.
    pub vcpu: Vcpu,
    // Fields are dropped in order: the processor and the machine before the memory they use.
    vm: VmFd,
    /// The guest's memory.
    pub memory: GuestMemory,
    rings: u64,
}

impl Machine {
    /// A machine with `memory_size` bytes that will run the ELF `image`, with `device_count` register windows from
    /// [`MMIO_BASE`] on and `ring_pages` pages for their rings. `command_line` is told where those begin.
    pub fn build(
        image: &[u8],
        cpu: Cpu,
        memory_size: u64,
        device_count: usize,
        ring_pages: u64,
        command_line: impl FnOnce(u64) -> String,
    ) -> Result<Self, MachineError> {
        let image = image::Image::parse(image)?;
        let kvm = vcpu::open_kvm()?;
        let vm = vcpu::create_vm(&kvm)?;
        let memory = GuestMemory::new(memory_size)?;
        memory.register(&vm)?;
        image.load(&memory)?;
        let plan = boot::Plan::new(&image, ring_pages);
        boot::prepare(&plan, &image, &memory, device_count, &command_line(plan.rings))?;
        let vcpu = Vcpu::new(&vm, &plan, cpu)?;
        Ok(Self { vcpu, vm, memory, rings: plan.rings })
    }

    /// Guest address of the first page of rings.
    pub fn rings(&self) -> u64 {
        self.rings
    }

    /// Lets the guest's notifications of device `index` arrive at `event` instead of ending in an exit.
    pub fn notify_through(&self, index: usize, event: &EventFd) -> Result<(), MachineError> {
        let address = MMIO_BASE + index as u64 * MMIO_STRIDE + QUEUE_NOTIFY;
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|error| MachineError::kvm("register an ioeventfd", error))
    }
}
