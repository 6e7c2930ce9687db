//! The split virtqueue, driver side (virtio 1.2, section 2.7).

use alloc::boxed::Box;
use core::{
    ptr::{NonNull, addr_of, addr_of_mut},
    sync::atomic::{Ordering, fence},
};

const SIZE: usize = 64;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

#[derive(Clone, Copy)]
#[repr(C)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct UsedElement {
    id: u32,
    length: u32,
}

/// The three parts the device sees, in one page: descriptor table, available ring, used ring, each behind the other.
#[repr(C, align(4096))]
pub struct Rings {
    descriptors: [Descriptor; SIZE],
    avail_flags: u16,
    avail_index: u16,
    avail_ring: [u16; SIZE],
    avail_event: u16,
    used: UsedRing,
}

#[repr(C, align(4))]
struct UsedRing {
    flags: u16,
    index: u16,
    ring: [UsedElement; SIZE],
    event: u16,
}

/// A buffer of a request, as the device sees it.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub address: u64,
    pub length: u32,
    pub device_writes: bool,
}

/// A request that is on its way: the head of its descriptor chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u16);

impl Token {
    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

/// The device broke the rules of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrokenRing;

/// One split virtqueue of [`SIZE`](Virtqueue::SIZE) descriptors.
pub(crate) struct Virtqueue {
    rings: &'static mut Rings,
    /// Free descriptors are a list linked through `next`.
    free_head: u16,
    free_count: usize,
    next_avail: u16,
    next_used: u16,
    /// Length of the chain that starts at each head that is in flight; 0 elsewhere.
    chain_length: [u8; SIZE],
}

impl Virtqueue {
    /// Number of descriptors.
    pub(crate) const SIZE: u16 = 64;

    /// A queue in memory of its own, for a device that is to be brought up.
    pub(crate) fn new() -> Self {
        // SAFETY: rings are numbers, for which all zeros is a value.
        Self::over(Box::leak(unsafe { Box::new_zeroed().assume_init() }))
    }

    /// A queue over rings that the device already knows and that nothing was put into.
    ///
    /// # Safety
    /// `rings` is a page of zeros that only the device and this queue use.
    pub(crate) unsafe fn adopt(mut rings: NonNull<Rings>) -> Self {
        // SAFETY: promised by the caller.
        Self::over(unsafe { rings.as_mut() })
    }

    /// A queue over rings of zeros.
    fn over(rings: &'static mut Rings) -> Self {
        for (descriptor, next) in rings.descriptors.iter_mut().zip(1..) {
            descriptor.next = next;
        }
        rings.avail_flags = AVAIL_NO_INTERRUPT;
        Self { rings, free_head: 0, free_count: SIZE, next_avail: 0, next_used: 0, chain_length: [0; SIZE] }
    }

    pub(crate) fn descriptor_table(&self) -> u64 {
        addr_of!(self.rings.descriptors) as u64
    }

    pub(crate) fn available_ring(&self) -> u64 {
        addr_of!(self.rings.avail_flags) as u64
    }

    pub(crate) fn used_ring(&self) -> u64 {
        addr_of!(self.rings.used) as u64
    }

    /// The token that [`submit`](Self::submit) of `count` segments will return, or `None` when they do not fit now.
    pub(crate) fn next_token(&self, count: usize) -> Option<Token> {
        (count <= self.free_count).then_some(Token(self.free_head))
    }

    /// Makes `segments` available to the device, or answers `None` when too few descriptors are free. The device is
    /// not told yet.
    ///
    /// # Safety
    /// The memory of every segment must stay valid, and untouched where the device writes, until
    /// [`completed`](Self::completed) has returned the token.
    pub(crate) unsafe fn submit(&mut self, segments: &[Segment]) -> Option<Token> {
        let count = u8::try_from(segments.len()).ok().filter(|&count| count > 0)?;
        if usize::from(count) > self.free_count {
            return None;
        }
        let head = self.free_head;
        let mut index = head;
        for (position, segment) in segments.iter().enumerate() {
            let last = position + 1 == segments.len();
            let descriptor = self.rings.descriptors.get_mut(usize::from(index))?;
            let next = descriptor.next;
            let flags = if segment.device_writes { DESC_WRITE } else { 0 } | if last { 0 } else { DESC_NEXT };
            let value = Descriptor { address: segment.address, length: segment.length, flags, next };
            // SAFETY: a plain store to memory of our own that the device reads.
            unsafe { addr_of_mut!(*descriptor).write_volatile(value) };
            index = next;
        }
        self.free_head = index;
        self.free_count -= usize::from(count);
        *self.chain_length.get_mut(usize::from(head))? = count;

        let slot = self.rings.avail_ring.get_mut(usize::from(self.next_avail) % SIZE)?;
        // SAFETY: as above.
        unsafe { addr_of_mut!(*slot).write_volatile(head) };
        fence(Ordering::SeqCst);
        self.next_avail = self.next_avail.wrapping_add(1);
        // SAFETY: as above; the fence orders the chain before the index that publishes it.
        unsafe { addr_of_mut!(self.rings.avail_index).write_volatile(self.next_avail) };
        fence(Ordering::SeqCst);
        Some(Token(head))
    }

    /// Whether the device wants to be told of what was submitted: not while it is at work.
    pub(crate) fn wants_notification(&self) -> bool {
        // SAFETY: a plain load from memory of our own that the device writes; `submit` ends with a fence.
        let flags = unsafe { addr_of!(self.rings.used.flags).read_volatile() };
        flags & USED_NO_NOTIFY == 0
    }

    /// The next request the device is done with and how many bytes it wrote, if there is one.
    pub(crate) fn completed(&mut self) -> Result<Option<(Token, u32)>, BrokenRing> {
        // SAFETY: a plain load from memory of our own that the device writes.
        let index = unsafe { addr_of!(self.rings.used.index).read_volatile() };
        if index == self.next_used {
            return Ok(None);
        }
        fence(Ordering::SeqCst);
        let slot = self.rings.used.ring.get(usize::from(self.next_used) % SIZE).ok_or(BrokenRing)?;
        // SAFETY: as above; the fence orders the element after the index that published it.
        let element = unsafe { addr_of!(*slot).read_volatile() };
        self.next_used = self.next_used.wrapping_add(1);

        let head = u16::try_from(element.id).map_err(|_| BrokenRing)?;
        let length = self.chain_length.get_mut(usize::from(head)).ok_or(BrokenRing)?;
        let count = core::mem::take(length);
        if count == 0 {
            return Err(BrokenRing);
        }
        self.release(head, count)?;
        Ok(Some((Token(head), element.length)))
    }

    /// Puts a chain of `count` descriptors back on the free list.
    fn release(&mut self, head: u16, count: u8) -> Result<(), BrokenRing> {
        let mut tail = head;
        for _ in 1..count {
            tail = self.rings.descriptors.get(usize::from(tail)).ok_or(BrokenRing)?.next;
        }
        self.rings.descriptors.get_mut(usize::from(tail)).ok_or(BrokenRing)?.next = self.free_head;
        self.free_head = head;
        self.free_count += usize::from(count);
        Ok(())
    }
}

impl Rings {
    /// Descriptors in a queue.
    pub const ENTRIES: u16 = Virtqueue::SIZE;
    /// Offset of the available ring in bytes; the descriptor table is at 0.
    pub const AVAILABLE: usize = core::mem::offset_of!(Self, avail_flags);
    /// Offset of the used ring in bytes.
    pub const USED: usize = core::mem::offset_of!(Self, used);
}
