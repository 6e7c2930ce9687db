//! The guest's memory: one anonymous mapping, aligned for huge pages, because first touch is what it costs.

use std::{io, ptr::null_mut};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::{IMAGE_BASE, MachineError};

/// Least memory in bytes: the image with its tables, and a heap for small commands.
pub const MIN_MEMORY: u64 = 16 << 20;

/// Most memory in bytes: the guest uses no address from 3 GiB on, where the devices are.
pub const MAX_MEMORY: u64 = (3 << 30) - IMAGE_BASE;

/// Size and alignment of a huge page in bytes.
const HUGE_PAGE: u64 = 2 << 20;

/// Memory of a guest, from [`IMAGE_BASE`] on.
pub struct GuestMemory {
    memory: GuestMemoryMmap,
    mapping: Mapping,
}

/// What has to be given back to the kernel.
struct Mapping {
    address: *mut libc::c_void,
    length: usize,
    aligned: *mut u8,
    size: usize,
}

// SAFETY: the pointers are only used to unmap; access to the memory goes through `GuestMemoryMmap`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl GuestMemory {
    /// Fresh memory of `size` bytes, all zero, a multiple of 4096 between [`MIN_MEMORY`] and [`MAX_MEMORY`].
    pub fn new(size: u64) -> Result<Self, MachineError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&size) {
            return Err(MachineError::MemorySize { size, min: MIN_MEMORY, max: MAX_MEMORY });
        }
        let size = size / 4096 * 4096;
        let mapping = Mapping::new(size).map_err(|error| MachineError::Memory { size, error })?;
        let failed = || MachineError::Memory { size, error: io::ErrorKind::InvalidInput.into() };
        // SAFETY: `mapping` is that long, readable and writable, and lives as long as the region.
        let region = unsafe {
            MmapRegion::build_raw(mapping.aligned, mapping.size, Mapping::PROTECTION, Mapping::FLAGS)
        };
        let region = region.map_err(|_| failed())?;
        let region = GuestRegionMmap::new(region, GuestAddress(IMAGE_BASE)).ok_or_else(failed)?;
        let memory = GuestMemoryMmap::from_regions(vec![region]).map_err(|_| failed())?;
        Ok(Self { memory, mapping })
    }

    /// The memory as devices see it. It must not be used after `self` is gone.
    pub fn get(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// First address behind the memory.
    pub fn end(&self) -> u64 {
        IMAGE_BASE + self.mapping.size as u64
    }

    /// Keeps huge pages out of the pages from guest address `start` to `end`: of those little is ever touched.
    pub(super) fn use_small_pages(&self, start: u64, end: u64) {
        let (start, end) = (start - IMAGE_BASE, end.min(self.end()) - IMAGE_BASE);
        let address = self.mapping.aligned.wrapping_add(start as usize);
        // SAFETY: the range is inside the mapping. As above, a wish.
        unsafe { libc::madvise(address.cast(), (end - start) as usize, libc::MADV_NOHUGEPAGE) };
    }

    /// Gives the memory to the machine.
    pub(super) fn register(&self, vm: &VmFd) -> Result<(), MachineError> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: IMAGE_BASE,
            memory_size: self.mapping.size as u64,
            userspace_addr: self.mapping.aligned as u64,
        };
        // SAFETY: the mapping is that long and outlives the machine, which is dropped first.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| MachineError::kvm("take the guest's memory", error))
    }
}

impl Mapping {
    const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;
    const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

    fn new(size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let length = size + HUGE_PAGE as usize;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let address = unsafe { libc::mmap(null_mut(), length, Self::PROTECTION, Self::FLAGS, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let offset = (address as usize).next_multiple_of(HUGE_PAGE as usize) - address as usize;
        let aligned = address.cast::<u8>().wrapping_add(offset);
        let mapping = Self { address, length, aligned, size };
        // SAFETY: the range is inside the mapping just made. Huge pages are a wish: without them it is only slower.
        unsafe { libc::madvise(aligned.cast(), size, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; nothing uses it any more.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
