//! Deflate, by zlib-rs.

use alloc::boxed::Box;
use core::{
    ffi::{c_int, c_uint, c_void},
    ptr::null_mut,
};

use libz_rs_sys::{
    Z_BEST_COMPRESSION, Z_BUF_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_OK, Z_STREAM_END, deflate,
    deflateInit2_, deflateReset, deflateTune, inflate, inflateInit2_, inflateReset, z_stream, zlibVersion,
};

use crate::memory::Memory;

/// What the library takes for its tables at most: two windows, as much for chains, 128 KiB of hash heads, and up to 160 KiB of
/// symbols and output.
const ENCODER_MEMORY: usize = 512 << 10;
/// Of a decoder: its state and a window.
const DECODER_MEMORY: usize = 96 << 10;

// How matches are searched for: as zlib does at its default level, 6, with a shorter chain. The library's own level 6 finds no
// match of 3 bytes, which makes ELF files 4 % larger; its level 9 does. Measured in docs/convert.md.
const GOOD_LENGTH: c_int = 8;
const MAX_LAZY: c_int = 16;
const NICE_LENGTH: c_int = 128;
const MAX_CHAIN: c_int = 32;

/// A zlib stream and the memory it works in.
struct Stream {
    /// In a place of its own, because the library may keep its address.
    stream: Box<z_stream>,
    /// Likewise. Dropped with the stream, which has nothing else to give back.
    _memory: Box<Memory>,
}

// SAFETY: the pointers in the stream lead to its own memory, and to slices that are borrowed during a call only.
unsafe impl Send for Stream {}

/// Gives the library memory: `zalloc` of its interface.
unsafe extern "C" fn take(opaque: *mut c_void, count: c_uint, size: c_uint) -> *mut c_void {
    // SAFETY: it is the address of the memory of the `Stream` that is being used, by its only user.
    let memory = unsafe { &mut *opaque.cast::<Memory>() };
    let size = (count as usize).checked_mul(size as usize);
    size.and_then(|size| memory.take(size)).map_or(null_mut(), <*mut u8>::cast)
}

/// Takes nothing back: `zfree` of the library's interface. Memory goes as a whole.
unsafe extern "C" fn keep(_: *mut c_void, _: *mut c_void) {}

impl Stream {
    /// A stream with `size` bytes of memory, made ready by `init`.
    fn new(size: usize, init: impl FnOnce(*mut z_stream) -> c_int) -> Self {
        let mut memory = Box::new(Memory::new(size));
        let mut stream = Box::new(z_stream {
            zalloc: Some(take),
            zfree: Some(keep),
            opaque: (&raw mut *memory).cast(),
            ..z_stream::default()
        });
        let status = init(&raw mut *stream);
        assert!(status == Z_OK, "zlib does not start: {status}");
        Self { stream, _memory: memory }
    }

    /// Runs `step` from `input` to `output`: its status, and the bytes that it wrote.
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        step: impl FnOnce(*mut z_stream) -> c_int,
    ) -> Option<(c_int, usize)> {
        self.stream.next_in = input.as_ptr();
        self.stream.avail_in = c_uint::try_from(input.len()).ok()?;
        self.stream.next_out = output.as_mut_ptr();
        self.stream.avail_out = c_uint::try_from(output.len()).ok()?;
        let status = step(&raw mut *self.stream);
        Some((status, output.len() - self.stream.avail_out as usize))
    }
}

/// An encoder.
pub(crate) struct Deflate(Stream);

impl Deflate {
    /// Raw deflate with a window of 4 KiB. Window and memory level are those of `qemu-img` (block/qcow2-threads.c).
    pub(crate) fn raw() -> Self {
        Self::new(-12, 9)
    }

    /// A zlib stream with a window of 32 KiB: zlib's defaults.
    pub(crate) fn zlib() -> Self {
        Self::new(15, 8)
    }

    fn new(window_bits: c_int, memory_level: c_int) -> Self {
        // SAFETY: the stream has its allocator, and is not moved.
        Self(Stream::new(ENCODER_MEMORY, |stream| unsafe {
            deflateInit2_(
                stream,
                Z_BEST_COMPRESSION,
                Z_DEFLATED,
                window_bits,
                memory_level,
                Z_DEFAULT_STRATEGY,
                zlibVersion(),
                SIZE,
            )
        }))
    }

    pub(crate) fn encode(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        // SAFETY: the stream was made by `deflateInit2_`; what it points to is borrowed for the call.
        let (status, length) = self.0.run(input, output, |stream| unsafe {
            deflateReset(stream);
            deflateTune(stream, GOOD_LENGTH, MAX_LAZY, NICE_LENGTH, MAX_CHAIN);
            deflate(stream, Z_FINISH)
        })?;
        if status != Z_STREAM_END {
            self.drain()?;
            return None;
        }
        Some(length)
    }

    /// Takes what is left of a stream that was too long. A reset of zlib-rs 0.6.8 forgets those bytes, and does not give the room
    /// for them back.
    fn drain(&mut self) -> Option<()> {
        let mut rest = [0; 512];
        loop {
            // SAFETY: as in `encode`; all of the input was taken, or what is left of it is not looked at.
            let (status, length) =
                self.0.run(&[], &mut rest, |stream| unsafe { deflate(stream, Z_FINISH) })?;
            if status == Z_STREAM_END || length == 0 {
                return Some(());
            }
        }
    }
}

/// A decoder.
pub(crate) struct Inflate(Stream);

impl Inflate {
    pub(crate) fn raw() -> Self {
        Self::new(-15)
    }

    pub(crate) fn zlib() -> Self {
        Self::new(15)
    }

    fn new(window_bits: c_int) -> Self {
        // SAFETY: the stream has its allocator, and is not moved.
        Self(Stream::new(DECODER_MEMORY, |stream| unsafe {
            inflateInit2_(stream, window_bits, zlibVersion(), SIZE)
        }))
    }

    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Option<(c_int, usize)> {
        // SAFETY: the stream was made by `inflateInit2_`; what it points to is borrowed for the call.
        self.0.run(input, output, |stream| unsafe {
            inflateReset(stream);
            inflate(stream, Z_FINISH)
        })
    }

    /// A raw stream that fills `output`. It may go on behind that, or end anywhere.
    pub(crate) fn fill(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let (status, length) = self.decode(input, output)?;
        (matches!(status, Z_STREAM_END | Z_BUF_ERROR | Z_OK) && length == output.len()).then_some(length)
    }

    /// A whole zlib stream, its checksum right, of at most `output`.
    pub(crate) fn whole(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let (status, length) = self.decode(input, output)?;
        (status == Z_STREAM_END).then_some(length)
    }
}

/// The length of the stream's structure, which the library asks for.
#[expect(clippy::cast_possible_truncation, reason = "it is some hundred bytes long")]
const SIZE: c_int = size_of::<z_stream>() as c_int;
