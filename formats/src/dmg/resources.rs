//! The resource fork: data of resources one behind the other, each with its length in front. What type a resource is of,
//! which the map behind them tells, does not count.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::chunks::Chunks;
use super::{TABLE_LEN_MAX, invalid};
use crate::reader::Reader;
use crate::{Error, Storage};

/// The start of the fork as it lies in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    data_offset: U32,
    map_offset: U32,
    data_len: U32,
}

/// Adds the chunks that the fork at `offset` tells of, `length` bytes in the file.
pub(super) fn read<S: Storage>(
    storage: &mut S,
    offset: u64,
    length: u64,
    chunks: &mut Chunks,
) -> Result<(), Error> {
    let outside = || invalid("RsrcForkLength", "Resources do not end before the resource fork does");
    let mut reader = Reader::new(storage);
    reader.seek(offset);
    let header: Header = reader.record()?;
    let (start, data_len) = (u64::from(header.data_offset.get()), u64::from(header.data_len.get()));
    if data_len == 0 || start + data_len > length {
        return Err(outside());
    }
    if data_len > TABLE_LEN_MAX {
        return Err(super::too_long("RsrcForkLength"));
    }
    reader.seek(offset + start);
    let end = offset + start + data_len;
    while reader.position() < end {
        let room = end - reader.position();
        let resource: U32 = reader.record()?;
        // The length itself does not count against the room: so it is in QEMU.
        let resource = u64::from(resource.get());
        if resource == 0 || resource > room {
            return Err(outside());
        }
        let block = reader.bytes(usize::try_from(resource).map_err(|_| outside())?)?;
        chunks.add(&block)?;
    }
    Ok(())
}
