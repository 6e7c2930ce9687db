//! What stands in guest memory before the first instruction: page tables and the PVH start information.
//!
//! Behind the segment of the image that is not mapped: the page tables, not mapped either, and one read-only page of
//! boot data. Behind the image: the rings of the devices and the heap, to the end of memory or to the workers' stacks.

use std::{ffi::CString, ops::Range};

use linux_loader::{
    cmdline::Cmdline,
    loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info},
};
use protocol::handover::{MAX_WORKERS, RING_PAGE};
use vm_memory::{Bytes, GuestAddress};

use super::{
    GuestMemory, Layout, MachineError,
    image::Image,
    paging::{Access, LARGE_PAGE, PAGE, PageTables},
};
use crate::devices::{MMIO_BASE, MMIO_STRIDE};

/// Pages set aside for page tables: root, one of 512 GiB, one per GiB of memory and devices (at most 4), and one of small
/// pages for each of the boot data, the workers' stacks, the end of memory and the devices.
const TABLE_PAGES: u64 = 16;

/// Bytes of a worker's stack, and of what is not mapped in front of it: an overrun meets it, whose frame is that large.
const WORKER_STACK: u64 = 192 << 10;
const WORKER_GUARD: u64 = 64 << 10;

// All the stacks share a large page.
const _: () = assert!((WORKER_STACK + WORKER_GUARD) * MAX_WORKERS as u64 <= LARGE_PAGE);

/// `xEn3`, top bit of the `E` set (PVH boot protocol).
const START_MAGIC: u32 = 0x336e_c578;
/// First version of the start information with a memory map.
const START_VERSION: u32 = 1;
const MEMORY_RAM: u32 = 1;

/// Places inside the page of boot data.
const MEMORY_MAP: u64 = 64;
const COMMAND_LINE: u64 = 128;
const COMMAND_LINE_SIZE: u64 = PAGE - COMMAND_LINE;

/// Where things are, and where the vCPU starts.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// First instruction.
    pub entry: u64,
    /// Root of the page tables.
    pub page_table_root: u64,
    /// Address of the start information.
    pub start_info: u64,
    /// Address of the first page of rings.
    pub rings: u64,
    /// First byte of the heap.
    pub heap: u64,
    /// Behind the last byte of the heap.
    pub heap_end: u64,
}

impl Plan {
    /// The plan for `image` with `ring_pages` pages of rings and that many `workers` in memory that ends at `memory_end`.
    pub fn new(image: &Image, ring_pages: u64, workers: usize, memory_end: u64) -> Self {
        let page_table_root = image.end(false);
        let start_info = page_table_root + TABLE_PAGES * PAGE;
        let rings = image.end(true);
        let heap = rings + ring_pages * RING_PAGE;
        let heap_end =
            if workers == 0 { memory_end } else { memory_end / LARGE_PAGE * LARGE_PAGE - LARGE_PAGE };
        Self { entry: image.entry, page_table_root, start_info, rings, heap, heap_end }
    }

    /// The stack of worker `number`, counted from 1.
    pub fn stack(&self, number: u64) -> Range<u64> {
        let end = self.heap_end + number * (WORKER_GUARD + WORKER_STACK);
        end - WORKER_STACK..end
    }
}

/// Fills in everything but the image itself.
pub fn prepare(
    plan: &Plan,
    image: &Image,
    memory: &GuestMemory,
    layout: &Layout,
    command_line: &str,
) -> Result<(), MachineError> {
    let mut tables = PageTables::new(plan.page_table_root);
    for segment in &image.segments {
        if let Some(access) = segment.access {
            let pages = segment.mapped_pages();
            tables.map(pages.start, pages.end, access);
        }
    }
    tables.map(plan.start_info, plan.start_info + PAGE, Access::ReadOnly);
    tables.map(plan.rings.next_multiple_of(LARGE_PAGE), plan.heap_end, Access::ReadWrite);
    for number in 1..=layout.workers as u64 {
        let stack = plan.stack(number);
        tables.map(stack.start, stack.end, Access::ReadWrite);
    }
    tables.map(MMIO_BASE, MMIO_BASE + layout.windows as u64 * MMIO_STRIDE, Access::ReadWrite);
    let tables = tables.bytes();
    if tables.len() as u64 > TABLE_PAGES * PAGE {
        return Err(MachineError::Image("needs more page tables than were set aside".into()));
    }

    let info = hvm_start_info {
        magic: START_MAGIC,
        version: START_VERSION,
        cmdline_paddr: plan.start_info + COMMAND_LINE,
        memmap_paddr: plan.start_info + MEMORY_MAP,
        memmap_entries: 1,
        ..Default::default()
    };
    let ram = hvm_memmap_table_entry {
        addr: plan.heap,
        size: plan.heap_end - plan.heap,
        type_: MEMORY_RAM,
        ..Default::default()
    };
    let command_line = terminated(command_line)?;
    let written = memory
        .get()
        .write_slice(&tables, GuestAddress(plan.page_table_root))
        .and_then(|()| memory.get().write_obj(info, GuestAddress(plan.start_info)))
        .and_then(|()| memory.get().write_obj(ram, GuestAddress(plan.start_info + MEMORY_MAP)))
        .and_then(|()| memory.get().write_slice(&command_line, GuestAddress(plan.start_info + COMMAND_LINE)));
    written.map_err(|error| MachineError::Image(format!("does not fit into the guest's memory: {error}")))
}

/// The kernel command line as it stands in memory.
fn terminated(command_line: &str) -> Result<Vec<u8>, MachineError> {
    let failed = |error: linux_loader::cmdline::Error| MachineError::Image(error.to_string());
    let mut line = Cmdline::new(COMMAND_LINE_SIZE as usize).map_err(failed)?;
    line.insert_str(command_line).map_err(failed)?;
    line.as_cstring().map(CString::into_bytes_with_nul).map_err(failed)
}
