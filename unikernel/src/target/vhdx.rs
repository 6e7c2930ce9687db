//! New VHDX images.

use alloc::boxed::Box;

use calc::{Length, vhdx::BlockSize};
use formats::{StorageMut, vhdx, write::Writer};
use protocol::ErrorRecord;

use super::{NewImage, empty, random::Random};
use crate::{
    files::Files,
    options::{self, Values},
    source::record,
};

/// "Creator".
const CREATOR: &str = "instar";

const MIB: u64 = 1 << 20;

/// Makes one.
pub fn create<S: StorageMut + 'static>(
    values: &Values,
    length: Length,
    new: &NewImage<'_>,
    random: &mut Random,
    files: &mut dyn Files<Storage = S>,
) -> Result<Box<dyn Writer<Storage = S>>, ErrorRecord> {
    options::vhdx_image(values, length, new.profile)?;
    let block_size = match values.number("block_size") {
        None | Some(0) => None,
        Some(bytes) => BlockSize::new(bytes),
    };
    let log_size = values.number("log_size").unwrap_or(MIB);
    let mut sequence_number = [0; 8];
    random.fill(&mut sequence_number);
    let create = vhdx::Create {
        size: new.size,
        fixed: values.text("subformat") == Some("fixed"),
        block_size: u32::try_from(block_size.unwrap_or(BlockSize::for_disk(length)).bytes())
            .unwrap_or(u32::MAX),
        log_size: u32::try_from(log_size.next_multiple_of(MIB)).unwrap_or(u32::MAX),
        block_state_zero: values.flag("block_state_zero") || !values.has("block_state_zero"),
        creator: CREATOR,
        // Half of what there is, so that it can be counted up.
        sequence_number: u64::from_le_bytes(sequence_number) >> 1,
        guids: vhdx::Guids { file_write: random.uuid(), data_write: random.uuid() },
        disk_id: random.uuid(),
    };
    Ok(Box::new(vhdx::create(empty(new.file, files)?, &create).map_err(record)?))
}
