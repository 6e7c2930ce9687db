//! libdeflate (libdeflate.h): its crate wants std, so what is called is declared here; `build.rs` links the library.

use alloc::{alloc::Layout, boxed::Box};
use core::ffi::{c_int, c_void};

use super::Coder;

#[repr(C)]
struct Options {
    size: usize,
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn libdeflate_alloc_compressor_ex(level: c_int, options: *const Options) -> *mut c_void;
    fn libdeflate_zlib_compress(
        compressor: *mut c_void,
        input: *const c_void,
        input_length: usize,
        output: *mut c_void,
        output_length: usize,
    ) -> usize;
    fn libdeflate_alloc_decompressor_ex(options: *const Options) -> *mut c_void;
    fn libdeflate_deflate_decompress(
        decompressor: *mut c_void,
        input: *const c_void,
        input_length: usize,
        output: *mut c_void,
        output_length: usize,
        length: *mut usize,
    ) -> c_int;
}

/// Memory that is never given back: a benchmark makes one coder.
unsafe extern "C" fn allocate(size: usize) -> *mut c_void {
    let layout = Layout::from_size_align(size.max(1), 64).expect("a size");
    // SAFETY: the size is not 0.
    unsafe { alloc::alloc::alloc(layout).cast() }
}

unsafe extern "C" fn keep(_: *mut c_void) {}

const OPTIONS: Options = Options { size: size_of::<Options>(), malloc: allocate, free: keep };

/// Its default level, 6, in a zlib stream.
pub fn encoder() -> Coder {
    // SAFETY: as libdeflate.h has it.
    let compressor = unsafe { libdeflate_alloc_compressor_ex(6, &OPTIONS) };
    Box::new(move |input, output| {
        // SAFETY: as libdeflate.h has it; both slices are as long as said.
        let length = unsafe {
            libdeflate_zlib_compress(
                compressor,
                input.as_ptr().cast(),
                input.len(),
                output.as_mut_ptr().cast(),
                output.len(),
            )
        };
        (length > 0).then_some(length)
    })
}

/// Raw deflate.
pub fn decoder() -> Coder {
    // SAFETY: as libdeflate.h has it.
    let decompressor = unsafe { libdeflate_alloc_decompressor_ex(&OPTIONS) };
    Box::new(move |input, output| {
        let mut length = 0;
        // SAFETY: as libdeflate.h has it; both slices are as long as said.
        let status = unsafe {
            libdeflate_deflate_decompress(
                decompressor,
                input.as_ptr().cast(),
                input.len(),
                output.as_mut_ptr().cast(),
                output.len(),
                &mut length,
            )
        };
        (status == 0).then_some(length)
    })
}
