//! zlib-rs at its own level 6, which finds matches of 4 bytes or more.

use alloc::{alloc::Layout, boxed::Box};
use core::{
    ffi::{c_int, c_uint, c_void},
    mem::size_of,
};

use libz_rs_sys::{
    Z_DEFAULT_COMPRESSION, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_STREAM_END, deflate, deflateInit2_,
    deflateReset, z_stream, zlibVersion,
};

use super::Coder;

/// Memory that is never given back: a benchmark makes one coder.
unsafe extern "C" fn allocate(_: *mut c_void, count: c_uint, size: c_uint) -> *mut c_void {
    let layout = Layout::from_size_align((count * size).max(1) as usize, 64).expect("a size");
    // SAFETY: the size is not 0.
    unsafe { alloc::alloc::alloc(layout).cast() }
}

unsafe extern "C" fn keep(_: *mut c_void, _: *mut c_void) {}

/// An encoder with this window and memory level.
pub fn encoder(window_bits: c_int, memory_level: c_int) -> Coder {
    let stream = z_stream { zalloc: Some(allocate), zfree: Some(keep), ..z_stream::default() };
    let mut stream = Box::new(stream);
    // SAFETY: the stream has its allocator, and is not moved.
    let status = unsafe {
        deflateInit2_(
            &raw mut *stream,
            Z_DEFAULT_COMPRESSION,
            Z_DEFLATED,
            window_bits,
            memory_level,
            Z_DEFAULT_STRATEGY,
            zlibVersion(),
            size_of::<z_stream>() as c_int,
        )
    };
    assert!(status == 0, "zlib does not start: {status}");
    Box::new(move |input, output| {
        stream.next_in = input.as_ptr();
        stream.avail_in = input.len() as c_uint;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = output.len() as c_uint;
        // SAFETY: the stream was made by `deflateInit2_`; both slices are as long as said.
        let status = unsafe {
            deflateReset(&raw mut *stream);
            deflate(&raw mut *stream, Z_FINISH)
        };
        (status == Z_STREAM_END).then(|| output.len() - stream.avail_out as usize)
    })
}
