//! Zstandard, by the reference library.

use core::ptr::NonNull;

use zstd_sys::{
    ZSTD_CCtx, ZSTD_DCtx, ZSTD_compressCCtx, ZSTD_decompressDCtx, ZSTD_estimateCCtxSize,
    ZSTD_estimateDCtxSize, ZSTD_findFrameCompressedSize, ZSTD_initStaticCCtx, ZSTD_initStaticDCtx,
    ZSTD_isError,
};

use crate::memory::Memory;

/// `ZSTD_CLEVEL_DEFAULT`.
const LEVEL: i32 = 3;

/// The most that a frame may say its window is: 2^27 bytes, `ZSTD_WINDOWLOG_LIMIT_DEFAULT` of the streaming interface that
/// `qemu-img` uses.
const MAX_WINDOW: u64 = 1 << 27;
/// `ZSTD_MAGICNUMBER` (RFC 8878, section 3.1.1).
const MAGIC: u32 = 0xfd2f_b528;
/// Bit of the frame header's descriptor: the frame is one segment and has no window of its own.
const SINGLE_SEGMENT: u8 = 1 << 5;

/// The result of a call, unless it is an error.
fn checked(result: usize) -> Option<usize> {
    // SAFETY: a function of one number.
    (unsafe { ZSTD_isError(result) } == 0).then_some(result)
}

/// An encoder.
pub(crate) struct ZstdEncoder {
    context: NonNull<ZSTD_CCtx>,
    /// What `context` is in.
    _memory: Memory,
}

// SAFETY: the context is in the memory beside it, and is used by who has the encoder.
unsafe impl Send for ZstdEncoder {}

impl ZstdEncoder {
    pub(crate) fn new() -> Self {
        // SAFETY: a function of one number.
        let mut memory = Memory::new(unsafe { ZSTD_estimateCCtxSize(LEVEL) });
        // SAFETY: the memory is that long, aligned to 64, and lives as long as the context.
        let context = unsafe { ZSTD_initStaticCCtx(memory.start().cast(), memory.size()) };
        let context = NonNull::new(context).expect("memory as large as the library says");
        Self { context, _memory: memory }
    }

    pub(crate) fn encode(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        // SAFETY: the context is alive; both slices are as long as said.
        checked(unsafe {
            ZSTD_compressCCtx(
                self.context.as_ptr(),
                output.as_mut_ptr().cast(),
                output.len(),
                input.as_ptr().cast(),
                input.len(),
                LEVEL,
            )
        })
    }
}

/// A decoder.
pub(crate) struct ZstdDecoder {
    context: NonNull<ZSTD_DCtx>,
    /// What `context` is in.
    _memory: Memory,
}

// SAFETY: as for the encoder.
unsafe impl Send for ZstdDecoder {}

impl ZstdDecoder {
    pub(crate) fn new() -> Self {
        // SAFETY: a function of nothing.
        let mut memory = Memory::new(unsafe { ZSTD_estimateDCtxSize() });
        // SAFETY: the memory is that long, aligned to 64, and lives as long as the context.
        let context = unsafe { ZSTD_initStaticDCtx(memory.start().cast(), memory.size()) };
        let context = NonNull::new(context).expect("memory as large as the library says");
        Self { context, _memory: memory }
    }

    /// Frames, as many as it takes to fill `output`; the last one ends with it.
    pub(crate) fn decode(&mut self, mut input: &[u8], output: &mut [u8]) -> Option<usize> {
        let mut filled = 0;
        while filled < output.len() {
            // SAFETY: the slice is as long as said.
            let length =
                checked(unsafe { ZSTD_findFrameCompressedSize(input.as_ptr().cast(), input.len()) })?;
            let (frame, rest) = input.split_at_checked(length)?;
            if window_too_large(frame) {
                return None;
            }
            let room = output.get_mut(filled..)?;
            // SAFETY: the context is alive; both slices are as long as said.
            filled += checked(unsafe {
                ZSTD_decompressDCtx(
                    self.context.as_ptr(),
                    room.as_mut_ptr().cast(),
                    room.len(),
                    frame.as_ptr().cast(),
                    frame.len(),
                )
            })?;
            input = rest;
        }
        Some(filled)
    }
}

/// Whether a frame says that it needs a larger window than is allowed (RFC 8878, section 3.1.1.1.2).
fn window_too_large(frame: &[u8]) -> bool {
    let Some((magic, [descriptor, window, ..])) = frame.split_first_chunk() else { return false };
    if u32::from_le_bytes(*magic) != MAGIC || descriptor & SINGLE_SEGMENT != 0 {
        return false;
    }
    let base = 1_u64 << (10 + (window >> 3));
    base + base / 8 * u64::from(window & 7) > MAX_WINDOW
}
