//! What of an image `qemu-img convert` writes to a new one: its data without the runs of zeros in it.

use alloc::vec::Vec;

use calc::Length;
use formats::{Chain, Storage};
use protocol::ErrorRecord;

use crate::mover::{
    ReadAhead,
    pieces::{self, Kind, Pieces, SECTOR, unread},
};

pub use crate::mover::pieces::SparseSize;

/// Calls `write` for each write `[start, end)` of at most 2 MiB, in ascending order. The bytes of the image are
/// read, unless everything is written.
pub fn ranges<S: Storage>(
    chain: &mut Chain<S>,
    sparse: SparseSize,
    mut write: impl FnMut(Length, Length),
) -> Result<(), ErrorRecord> {
    let (mut buffer, mut ahead) = (Vec::new(), ReadAhead::default());
    let mut pieces = Pieces::new(chain, false);
    while let Some(piece) = pieces.next(chain, None)? {
        if sparse.is_none() {
            piece.parts().for_each(|(start, length)| write(at(start), at(start + length as u64)));
        } else if piece.kind == Kind::Data {
            for (start, length) in piece.parts() {
                buffer.resize(length, 0);
                ahead.read(chain, start, &mut buffer).map_err(|error| unread(start, &error))?;
                for (from, to) in pieces::runs(&buffer, start / SECTOR, sparse) {
                    write(at(from * SECTOR), at(to * SECTOR));
                }
            }
        }
    }
    Ok(())
}

/// An offset on a disk; none is past [`Length::MAX`], which every disk ends at or before.
fn at(offset: u64) -> Length {
    Length::new(offset).unwrap_or(Length::MAX)
}
