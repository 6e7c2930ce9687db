//! `memcpy` and its family: the compiler calls them, and there is no C library to bring them.

use core::arch::{
    asm,
    x86_64::{__m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8},
};

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

/// Bytes that are compared at once.
const BLOCK: usize = 64;

/// Whether two blocks have the same bytes.
///
/// # Safety
/// Both are [`BLOCK`] bytes that can be read.
#[target_feature(enable = "sse2")]
unsafe fn are_equal(left: *const u8, right: *const u8) -> bool {
    // SAFETY: all reads are below `BLOCK`, as promised by the caller, and SSE2 is part of what the guest is built for.
    unsafe {
        let mut equal = _mm_set1_epi8(-1);
        for at in (0..BLOCK).step_by(size_of::<__m128i>()) {
            let (one, two) = (_mm_loadu_si128(left.add(at).cast()), _mm_loadu_si128(right.add(at).cast()));
            equal = _mm_and_si128(equal, _mm_cmpeq_epi8(one, two));
        }
        _mm_movemask_epi8(equal) == 0xffff
    }
}

/// Compares `count` bytes.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let mut at = 0;
    // SAFETY: all loops read below `count` only.
    unsafe {
        while count - at >= BLOCK && are_equal(left.add(at), right.add(at)) {
            at += BLOCK;
        }
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
