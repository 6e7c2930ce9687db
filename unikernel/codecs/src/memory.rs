//! The memory of a coder.

use alloc::vec::Vec;

/// A cache line: what libraries align to.
#[repr(align(64))]
struct Line {
    _bytes: [u8; 64],
}

/// Memory that is set aside, not written to, and stays where it is.
pub(crate) struct Memory {
    lines: Vec<Line>,
    /// Bytes that [`take`](Self::take) gave away.
    taken: usize,
}

impl Memory {
    /// At least `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { lines: Vec::with_capacity(size.div_ceil(size_of::<Line>())), taken: 0 }
    }

    /// Where it begins: at a multiple of 64.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    /// The next `size` bytes of it, at a multiple of 64; `None` once it is used up.
    pub(crate) fn take(&mut self, size: usize) -> Option<*mut u8> {
        let start = self.taken;
        let end = start.checked_add(size)?.checked_next_multiple_of(size_of::<Line>())?;
        if end > self.size() {
            return None;
        }
        self.taken = end;
        Some(self.start().wrapping_add(start))
    }
}
