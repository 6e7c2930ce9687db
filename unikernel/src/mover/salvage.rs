//! Going on where a disk cannot be read (`--salvage`).

use alloc::{format, string::String};

use formats::{Chain, ChainError, Storage};

use super::pieces::{SECTOR, reason};

/// Who is told what cannot be read. With nobody to tell it to, it is an error.
pub type Salvage<'a> = Option<&'a dyn Fn(String)>;

/// Fills `buffer`, whole sectors, with what the disk has from `offset` on, and with zeros where a sector cannot be read.
pub fn read<S: Storage>(chain: &mut Chain<S>, offset: u64, buffer: &mut [u8], tell: &dyn Fn(String)) {
    let offsets = (offset..).step_by(SECTOR as usize);
    for (offset, sector) in offsets.zip(buffer.chunks_mut(SECTOR as usize)) {
        if let Err(ChainError { error, .. }) = chain.read(offset, sector) {
            sector.fill(0);
            tell(format!("error while reading offset {offset}: {}", reason(&error)));
        }
    }
}
