//! The virtual machine: memory, page tables, the guest's image, its vCPUs in ring 3. Built in a straight line, nothing
//! half-built visible on failure. Knows nothing of commands, records or image formats.

mod boot;
mod error;
mod image;
mod kick;
mod memory;
mod paging;
mod ticks;
mod vcpu;
mod workers;

pub use error::MachineError;
pub use image::{UNIKERNEL, symbol_at};
pub use kick::{Deadline, Kicker};
pub use memory::{GuestMemory, MAX_MEMORY, MIN_MEMORY};
pub use ticks::ticks;
pub use vcpu::{Bus, Cpu, Exit, Fault, Vcpu};
pub use workers::{WorkerFailure, Workers, idle};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::{MMIO_BASE, MMIO_STRIDE, QUEUE_NOTIFY};

/// Address of the guest's image, and of its memory: nothing is below.
pub const IMAGE_BASE: u64 = 2 << 20;

/// What a machine has besides its memory.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The instructions that its processors have.
    pub cpu: Cpu,
    /// Processors beside the first one, at most [`MAX_WORKERS`](protocol::handover::MAX_WORKERS).
    pub workers: usize,
    /// Register windows from [`MMIO_BASE`] on.
    pub windows: usize,
    /// Pages for the rings of devices.
    pub ring_pages: u64,
}

/// A machine ready to run its guest.
pub struct Machine {
    /// The first processor.
    pub vcpu: Vcpu,
    // Fields are dropped in order: the processor and the machine before the memory they use.
    vm: VmFd,
    /// The guest's memory.
    pub memory: GuestMemory,
    layout: Layout,
    plan: boot::Plan,
}

impl Machine {
    /// A machine with `memory_size` bytes that will run the ELF `image`. `command_line` is told where the rings begin.
    pub fn build(
        image: &[u8],
        memory_size: u64,
        layout: Layout,
        command_line: impl FnOnce(u64) -> String,
    ) -> Result<Self, MachineError> {
        let image = image::Image::parse(image)?;
        let kvm = vcpu::open_kvm()?;
        let vm = vcpu::create_vm(&kvm)?;
        let memory = GuestMemory::new(memory_size)?;
        memory.register(&vm)?;
        image.load(&memory)?;
        let plan = boot::Plan::new(&image, layout.ring_pages, layout.workers, memory.end());
        if layout.workers > 0 {
            memory.use_small_pages(plan.heap_end, memory.end());
        }
        boot::prepare(&plan, &image, &memory, &layout, &command_line(plan.rings))?;
        let vcpu = Vcpu::new(vcpu::create(&vm, 0)?, &plan, layout.cpu, vcpu::Start::First)?;
        Ok(Self { vcpu, vm, memory, layout, plan })
    }

    /// Starts a thread for each of the workers that the machine was planned with; they run no instruction before
    /// [`Workers::release`]. `idle` is the address of the one register that they may write to. A worker that breaks a
    /// rule kicks the calling thread, which then asks [`Workers::take_failure`].
    pub fn start_workers(&self, idle: u64) -> Result<Workers, MachineError> {
        Workers::start(&self.vm, &self.plan, &self.layout, idle)
    }

    /// Lets the guest's notifications of device `index` arrive at `event` instead of ending in an exit.
    pub fn notify_through(&self, index: usize, event: &EventFd) -> Result<(), MachineError> {
        let address = MMIO_BASE + index as u64 * MMIO_STRIDE + QUEUE_NOTIFY;
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|error| MachineError::kvm("register an ioeventfd", error))
    }

    /// Guest address of the first page of rings.
    pub fn rings(&self) -> u64 {
        self.plan.rings
    }
}
