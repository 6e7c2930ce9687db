//! Memory that a device fills while its owner does something else.

use alloc::{boxed::Box, rc::Rc, vec};
use core::{
    cell::{Cell, UnsafeCell},
    ops::Range,
};

/// Bytes that disks read into. A disk that is still reading shares them, and nobody can look at them meanwhile.
pub struct Landing {
    bytes: Box<[UnsafeCell<u8>]>,
    failed: Cell<bool>,
}

impl Landing {
    /// `length` bytes, zeros at first.
    pub fn new(length: usize) -> Rc<Self> {
        let bytes: Box<[u8]> = vec![0; length].into_boxed_slice();
        let pointer = Box::into_raw(bytes) as *mut [UnsafeCell<u8>];
        // SAFETY: the same memory; an `UnsafeCell` is laid out as what is in it.
        let bytes = unsafe { Box::from_raw(pointer) };
        Rc::new(Self { bytes, failed: Cell::new(false) })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes, once no disk shares them.
    pub fn bytes(landing: &mut Rc<Self>) -> Option<&mut [u8]> {
        let bytes: *mut [UnsafeCell<u8>] = &raw mut *Rc::get_mut(landing)?.bytes;
        // SAFETY: nobody else has them, and they are borrowed for as long as `landing` is.
        Some(unsafe { &mut *(bytes as *mut [u8]) })
    }

    /// Whether a read into them has failed since this was asked last.
    pub fn take_failure(&self) -> bool {
        self.failed.take()
    }

    pub(crate) fn fail(&self) {
        self.failed.set(true);
    }

    /// Address and length of a part.
    pub(crate) fn place(&self, part: Range<usize>) -> Option<(u64, u32)> {
        let part = self.bytes.get(part)?;
        Some((part.as_ptr() as u64, u32::try_from(part.len()).ok()?))
    }
}
