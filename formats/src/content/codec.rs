//! Decoding one compressed cluster, never more of it than there is room for.
//!
//! What is taken for decoded is what `qemu-img` takes for it, as measured: see each codec.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use crate::Codec;

/// The most that a frame may say its window is: 2^27 bytes, as in the reference decoder's streaming interface.
const MAX_WINDOW: u64 = 1 << 27;
/// Zstandard frame header: length of the magic number, behind which the descriptor is.
const DESCRIPTOR: usize = 4;
/// Bit of the descriptor that must not be set, though [`FrameDecoder`] does not look.
const RESERVED: u8 = 1 << 3;
/// Bit of the descriptor: the frame is one segment and has no window of its own.
const SINGLE_SEGMENT: u8 = 1 << 5;
/// Bits of the descriptor of which one is set where the frame says how many bytes it holds.
const STATES_LENGTH: u8 = 0xe0;
/// Smallest window, as a power of two.
const MIN_WINDOW_BITS: u32 = 10;

/// Decodes `input` into `output`, a cluster, and gives the length of what was decoded. `input` is changed.
pub(super) fn decode(codec: Codec, input: &mut [u8], output: &mut [u8]) -> Option<usize> {
    match codec {
        Codec::Deflate => inflate(input, output),
        Codec::Zlib => inflate_zlib(input, output),
        Codec::Zstd => zstd(input, output),
        Codec::Bzip2 | Codec::Lzfse => None,
    }
}

/// Raw deflate that fills the cluster. The stream may go on behind that or end anywhere.
fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, length) = decompress(&mut DecompressorOxide::new(), input, output, 0, flags);
    let decoded = matches!(
        status,
        TINFLStatus::Done
            | TINFLStatus::HasMoreOutput
            | TINFLStatus::NeedsMoreInput
            | TINFLStatus::FailedCannotMakeProgress
    );
    (decoded && length == output.len()).then_some(length)
}

/// A whole zlib stream, its checksum right, that decodes to a cluster or less.
fn inflate_zlib(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, length) = decompress(&mut DecompressorOxide::new(), input, output, 0, flags);
    (status == TINFLStatus::Done).then_some(length)
}

/// Zstandard frames, as many as it takes to fill the cluster; the last one ends with it.
fn zstd(input: &mut [u8], output: &mut [u8]) -> Option<usize> {
    let (mut position, mut filled) = (0, 0);
    while filled < output.len() {
        let frame = input.get_mut(position..)?;
        let room = output.get_mut(filled..)?;
        let (consumed, length) = zstd_frame(frame, room)?;
        position += consumed;
        filled += length;
    }
    Some(filled)
}

/// One frame: the bytes it takes and the bytes it holds.
fn zstd_frame(frame: &mut [u8], output: &mut [u8]) -> Option<(usize, usize)> {
    narrow_window(frame, output.len())?;
    let states_length = frame.get(DESCRIPTOR)? & STATES_LENGTH != 0;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(output.len().next_power_of_two().max(1 << MIN_WINDOW_BITS) as u64);
    let mut rest = &*frame;
    match decoder.reset(&mut rest) {
        Ok(()) => {}
        Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
            let consumed = usize::try_from(length).ok()?.checked_add(2 * size_of::<u32>())?;
            return (consumed <= frame.len()).then_some((consumed, 0));
        }
        Err(_) => return None,
    }
    while !decoder.is_finished() {
        decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1)).ok()?;
        // Before the end of a frame only that is handed out which is more than a window, here more than a cluster.
        if !decoder.is_finished() && decoder.can_collect() > 0 {
            return None;
        }
    }
    let length = decoder.can_collect();
    if states_length && decoder.content_size() != length as u64
        || decoder.read(output.get_mut(..length)?).ok()? != length
        || decoder.get_checksum_from_data().is_some_and(|sum| decoder.get_calculated_checksum() != Some(sum))
    {
        return None;
    }
    Some((frame.len() - rest.len(), length))
}

/// Checks the head of a frame, and makes the window that it says it has no larger than what may come of it: memory is set
/// aside by that word. It makes no difference to what is decoded.
fn narrow_window(frame: &mut [u8], length: usize) -> Option<()> {
    let descriptor = *frame.get(DESCRIPTOR)?;
    let is_frame = frame.starts_with(&0xfd2f_b528_u32.to_le_bytes());
    if !is_frame {
        return Some(());
    }
    if descriptor & RESERVED != 0 {
        return None;
    }
    if descriptor & SINGLE_SEGMENT != 0 {
        return Some(());
    }
    let window = frame.get_mut(DESCRIPTOR + 1)?;
    let base = 1_u64.checked_shl(MIN_WINDOW_BITS + u32::from(*window >> 3))?;
    if base + base / 8 * u64::from(*window & 7) > MAX_WINDOW {
        return None;
    }
    let bits = length.next_power_of_two().trailing_zeros().saturating_sub(MIN_WINDOW_BITS);
    let narrow = u8::try_from(bits).ok()? << 3;
    *window = narrow.min(*window);
    Some(())
}
