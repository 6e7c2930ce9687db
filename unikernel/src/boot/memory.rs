//! `memcpy` and its family: the compiler calls them, and there is no C library to bring them.

use core::arch::asm;

/// Copies `count` bytes between places that do not overlap.
///
/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, count: usize) -> *mut u8 {
    // SAFETY: copies exactly the ranges promised by the caller.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") target => _, inout("rsi") source => _,
            options(nostack, preserves_flags));
    }
    target
}

/// Copies `count` bytes between places that may overlap.
///
/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, count: usize) -> *mut u8 {
    if (target as usize).wrapping_sub(source as usize) >= count {
        // SAFETY: going upwards never overwrites what is still to be read.
        return unsafe { memcpy(target, source, count) };
    }
    // SAFETY: going downwards never overwrites what is still to be read; the direction flag is restored.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") target.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") source.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    target
}

/// Sets `count` bytes to `value`.
///
/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: writes exactly the range promised by the caller.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") target => _, in("al") value as u8,
            options(nostack, preserves_flags));
    }
    target
}

/// Compares `count` bytes.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let mut at = 0;
    // SAFETY: both loops read below `count` only.
    unsafe {
        while count - at >= 8
            && left.add(at).cast::<u64>().read_unaligned() == right.add(at).cast::<u64>().read_unaligned()
        {
            at += 8;
        }
        while at < count {
            let (l, r) = (left.add(at).read(), right.add(at).read());
            if l != r {
                return i32::from(l) - i32::from(r);
            }
            at += 1;
        }
    }
    0
}

/// Whether `count` bytes differ.
///
/// # Safety
/// As C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: as promised by the caller.
    unsafe { memcmp(left, right, count) }
}

/// Length of a zero-terminated string.
///
/// # Safety
/// As C's `strlen`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: reads no further than the terminator promised by the caller.
    while unsafe { text.add(length).read() } != 0 {
        length += 1;
    }
    length
}

/// Memory for C code, of which there is none: libraries get theirs when they are made (crate `codecs`).
#[unsafe(no_mangle)]
extern "C" fn malloc(_: usize) -> *mut u8 {
    core::ptr::null_mut()
}

/// As [`malloc`].
#[unsafe(no_mangle)]
extern "C" fn calloc(_: usize, _: usize) -> *mut u8 {
    core::ptr::null_mut()
}

/// What [`malloc`] gave is nothing.
#[unsafe(no_mangle)]
extern "C" fn free(_: *mut u8) {}
