//! Descriptor chains read strictly: whole or not at all.

use virtio_queue::{Queue, QueueOwnedT, desc::split::Descriptor};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::DeviceError;

/// The descriptors of one request.
pub struct Chain {
    /// Index of the first one, which names the request in the used ring.
    pub head: u16,
    /// All of them, in order; at least one.
    pub descriptors: Vec<Descriptor>,
}

/// Takes the next chain from `queue`.
pub fn next(queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Option<Chain>, DeviceError> {
    let Some(chain) = queue.iter(memory)?.next() else { return Ok(None) };
    let head = chain.head_index();
    let descriptors: Vec<Descriptor> = chain.collect();
    // The iterator stops without a word at a descriptor it cannot follow.
    match descriptors.last() {
        Some(last) if !last.has_next() => {}
        _ => return Err(DeviceError::Chain("is broken, endless or out of memory")),
    }
    let unordered = descriptors.windows(2).any(|pair| pair[0].is_write_only() && !pair[1].is_write_only());
    if unordered {
        return Err(DeviceError::Chain("has readable descriptors behind writable ones"));
    }
    Ok(Some(Chain { head, descriptors }))
}

/// The guest memory of a descriptor.
pub fn slice<'m>(
    memory: &'m GuestMemoryMmap,
    descriptor: &Descriptor,
) -> Result<VolatileSlice<'m>, DeviceError> {
    GuestMemoryBackend::get_slice(memory, descriptor.addr(), descriptor.len() as usize)
        .map_err(|_| DeviceError::Chain("points outside of memory"))
}
