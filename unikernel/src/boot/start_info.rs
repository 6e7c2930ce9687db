//! What the loader says: `hvm_start_info` of the PVH boot protocol (xen/include/public/arch-x86/hvm/start_info.h).

use core::{ffi::CStr, ops::Range};

use super::heap;

/// `xEn3` with the top bit of the `E` set.
const MAGIC: u32 = 0x336e_c578;

const MEMORY_RAM: u32 = 1;

/// The guest uses no memory above this address: the PVH door maps no more.
const HIGHEST_ADDRESS: u64 = 0xc000_0000;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    acpi_rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// What the guest knows when it starts.
pub struct BootInfo {
    /// The kernel command line.
    pub command_line: &'static str,
}

unsafe extern "C" {
    /// First byte behind the image (linker script).
    static __image_end: u8;
}

/// Reads the loader's data and gives the heap its memory.
///
/// # Safety
/// `address` is the `hvm_start_info` of a PVH loader; everything it points to is mapped and stays unchanged; nothing
/// was allocated before.
pub unsafe fn from_start_info(address: usize) -> BootInfo {
    // SAFETY: promised by the caller.
    let info = unsafe { &*(address as *const StartInfo) };
    assert!(info.magic == MAGIC && info.version >= 1, "not started by a PVH loader with a memory map");
    // SAFETY: promised by the caller.
    let entries = unsafe {
        core::slice::from_raw_parts(
            info.memory_map as *const MemoryMapEntry,
            info.memory_map_entries as usize,
        )
    };
    let image_end = &raw const __image_end as u64;
    let free = entries.iter().find_map(|entry| free_memory(entry, image_end));
    // SAFETY: the loader says that this is memory; it lies behind the image and nothing else uses it.
    unsafe { heap::give(free.expect("no memory behind the image")) };

    let command_line = if info.command_line == 0 {
        ""
    } else {
        // SAFETY: promised by the caller; the string is zero-terminated by the boot protocol.
        unsafe { CStr::from_ptr(info.command_line as *const _) }.to_str().expect("command line is not UTF-8")
    };
    BootInfo { command_line }
}

/// The part of `entry` that is memory behind the image.
fn free_memory(entry: &MemoryMapEntry, image_end: u64) -> Option<Range<usize>> {
    let start = entry.address.max(image_end);
    let end = entry.address.saturating_add(entry.size).min(HIGHEST_ADDRESS);
    (entry.kind == MEMORY_RAM && start < end).then_some(start as usize..end as usize)
}
