//! Moving the bytes of a disk into an image.

mod answer;
mod buffers;
mod compress;
mod copy;
pub mod pieces;
mod read_ahead;
mod salvage;
mod source;
mod start_write;

pub use answer::answer_at;
pub use compress::{Compress, method};
pub use copy::Copy;
pub use pieces::{SparseSize, is_zero};
pub use read_ahead::ReadAhead;
pub use salvage::Salvage;
pub use source::Source;
pub use start_write::StartWrite;

/// How a disk is moved.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Zeros that are left out inside of data.
    pub sparse: SparseSize,
    /// Whether the target is known to read as zeros where nothing was written yet.
    pub zero_already: bool,
    /// Whether the target lies upon an image that has all that the source's top leaves to those below.
    pub top_only: bool,
}
