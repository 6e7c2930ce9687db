//! Moving the bytes of a disk into an image.

mod buffers;
mod copy;
pub mod pieces;
mod start_write;

use formats::{Chain, Storage};
use protocol::ErrorRecord;

pub use copy::Copy;
pub use pieces::SparseSize;
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

impl Terms {
    /// Fills `buffer` with what the disk has from `offset` on.
    fn read<S: Storage>(
        &self,
        source: &mut Chain<S>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), ErrorRecord> {
        pieces::read(source, offset, buffer)
    }
}
