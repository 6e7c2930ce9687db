//! The heap: all memory behind the image, taken in steps, because the first touch of memory is what costs.

use core::{
    alloc::{GlobalAlloc, Layout},
    ops::Range,
    ptr::{NonNull, copy_nonoverlapping, null_mut},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use talc::{
    TalcCell,
    base::{Talc, binning::Binning},
    source::Source,
};

use super::workers::is_first;

/// The heap grows to multiples of this many bytes: a huge page.
const STEP: usize = 2 << 20;

/// What memory of this many bytes or more is used for is read and written by disks, which want it to begin where a page does: the
/// host copies it once less where it goes around the page cache.
const LARGE: usize = 64 << 10;
const PAGE: usize = 4096;

struct Heap(TalcCell<Growing>);

// SAFETY: only the first processor gets to the cell: `cell` sees to that.
unsafe impl Sync for Heap {}

impl Heap {
    /// The heap, for the processor that owns it. Workers have been given all the memory that they use (`codecs`).
    fn cell(&self) -> &TalcCell<Growing> {
        assert!(is_first(), "a worker uses the heap");
        &self.0
    }
}

#[global_allocator]
static HEAP: Heap = Heap(TalcCell::new(Growing { end: None, limit: 0 }));

static EXHAUSTED: AtomicBool = AtomicBool::new(false);

static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of all the memory that the heap has, in use or not.
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// Whether an allocation has failed since start: the panic that follows is a limit met, not a fault.
pub fn exhausted() -> bool {
    EXHAUSTED.load(Ordering::Relaxed)
}

/// Gives the heap its memory.
///
/// # Safety
/// `memory` is mapped read-write and used by nothing else, and nothing was allocated before.
pub unsafe fn give(memory: Range<usize>) {
    SIZE.store(memory.end.saturating_sub(memory.start), Ordering::Relaxed);
    let first = step_above(memory.start + 1).min(memory.end);
    // SAFETY: promised by the caller.
    let end = unsafe { HEAP.cell().claim(memory.start as *mut u8, first - memory.start) };
    HEAP.cell().replace_source(Growing { end, limit: memory.end });
}

/// The memory that the heap has not taken yet.
#[derive(Debug)]
struct Growing {
    /// End of the part in use.
    end: Option<NonNull<u8>>,
    /// End of the memory.
    limit: usize,
}

// SAFETY: uses no allocator but the one it is called by, as the trait asks.
unsafe impl Source for Growing {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let end = talc.source.end.ok_or(())?;
        let old = end.as_ptr() as usize;
        // Room for the allocation, its alignment and the allocator's own tags.
        let wanted =
            layout.size().checked_add(layout.align()).and_then(|size| size.checked_add(64)).ok_or(())?;
        let new = old.checked_add(wanted).map(step_above).ok_or(())?.min(talc.source.limit);
        if new < old.saturating_add(wanted) {
            return Err(());
        }
        // SAFETY: `give` was promised the memory up to `limit`, and `end` is what the last call returned.
        let end = unsafe { talc.extend(end, new as *mut u8) };
        talc.source.end = Some(end);
        Ok(())
    }
}

fn step_above(address: usize) -> usize {
    address.checked_next_multiple_of(STEP).unwrap_or(usize::MAX)
}

/// How memory is taken that is asked for like that.
fn aligned(layout: Layout) -> Layout {
    match layout.size() {
        LARGE.. => layout.align_to(PAGE).unwrap_or(layout),
        _ => layout,
    }
}

/// Remembers a failed allocation.
fn checked(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        EXHAUSTED.store(true, Ordering::Relaxed);
    }
    memory
}

// SAFETY: handed on to talc, which keeps the contract.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        checked(unsafe { self.cell().alloc(aligned(layout)) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { self.cell().dealloc(memory, aligned(layout)) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        if aligned(layout).align() == aligned(new).align() {
            // SAFETY: as promised by the caller; it is freed with this alignment, too.
            return checked(unsafe { self.cell().realloc(memory, aligned(layout), new_size) });
        }
        // SAFETY: as promised by the caller; both are as long as what is copied, and the old one is not used any more.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                copy_nonoverlapping(memory, moved, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}
