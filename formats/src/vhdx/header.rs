//! Section "Headers": two copies, one of which is current; which log belongs to the image and where it is.

use alloc::vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{MIB, crc32c, invalid};
use crate::{Error, ErrorKind, Storage, StorageMut};

/// Section "File Type Identifier", "Signature".
const FILE_SIGNATURE: &[u8; 8] = b"vhdxfile";
const SIGNATURE: &[u8; 4] = b"head";
/// File offsets of the two headers.
const OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Length of a header in bytes, all of which the checksum covers.
const HEADER_LEN: usize = 4096;
/// "Version".
const VERSION: u16 = 1;

/// The fields as they lie in the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    signature: [u8; 4],
    checksum: U32,
    sequence_number: U64,
    file_write_guid: [u8; 16],
    data_write_guid: [u8; 16],
    log_guid: [u8; 16],
    log_version: U16,
    version: U16,
    log_length: U32,
    log_offset: U64,
}

/// Whether the first bytes of a file are those of a VHDX image.
pub(crate) fn probe(head: &[u8]) -> bool {
    head.starts_with(FILE_SIGNATURE)
}

/// The current header, its log at a whole MiB.
#[derive(Clone, Debug)]
pub struct Header {
    data_write_guid: [u8; 16],
    log_guid: [u8; 16],
    log_offset: u64,
    log_length: u32,
}

impl Header {
    pub(super) fn read<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let mut signature = [0; 8];
        storage.read_at(0, &mut signature)?;
        if signature != *FILE_SIGNATURE {
            return Err(invalid("signature", "Image is not in VHDX format"));
        }
        let (_, fields) = current(storage)?;
        let log_offset = fields.log_offset.get();
        if log_offset < MIB || !log_offset.is_multiple_of(MIB) {
            return Err(invalid(
                "LogOffset",
                "Log offset is not a multiple of 1 MiB behind the header section",
            ));
        }
        if fields.log_version.get() != 0 {
            let message = alloc::format!("Unsupported log version {}", fields.log_version.get());
            return Err(Error::new(ErrorKind::Unsupported, "LogVersion", message));
        }
        let Fields { data_write_guid, log_guid, log_length, .. } = fields;
        Ok(Self { data_write_guid, log_guid, log_offset, log_length: log_length.get() })
    }

    /// What the parent linkage of an image whose parent this is must name.
    pub fn data_write_guid(&self) -> [u8; 16] {
        self.data_write_guid
    }

    /// The log's GUID, if there is something in the log.
    pub(super) fn log_guid(&self) -> Option<[u8; 16]> {
        (self.log_guid != [0; 16] && self.log_length != 0).then_some(self.log_guid)
    }

    /// File offset of the log and its length in bytes.
    pub(super) fn log(&self) -> (u64, u64) {
        (self.log_offset, u64::from(self.log_length))
    }
}

/// What the headers of a new image say.
#[derive(Clone, Copy, Debug)]
pub(super) struct New {
    /// Of the first of them; the second one is the next, and current.
    pub(super) sequence_number: u64,
    pub(super) guids: Guids,
    pub(super) log_length: u32,
}

/// What changes with a file: the first with every session that writes, the second with every one that writes data.
#[derive(Clone, Copy, Debug)]
pub struct Guids {
    /// "FileWriteGuid".
    pub file_write: [u8; 16],
    /// "DataWriteGuid".
    pub data_write: [u8; 16],
}

/// Writes the identifier of the file, its creator a name in UTF-16, and its headers.
pub(super) fn write_new<S: StorageMut>(storage: &mut S, creator: &[u8], new: New) -> Result<(), Error> {
    storage.write_at(0, &[FILE_SIGNATURE, creator].concat())?;
    for (number, offset) in (0..).zip(OFFSETS) {
        let fields = Fields {
            signature: *SIGNATURE,
            checksum: U32::ZERO,
            sequence_number: new.sequence_number.wrapping_add(number).into(),
            file_write_guid: new.guids.file_write,
            data_write_guid: new.guids.data_write,
            log_guid: [0; 16],
            log_version: U16::ZERO,
            version: VERSION.into(),
            log_length: new.log_length.into(),
            log_offset: MIB.into(),
        };
        let mut bytes = fields.as_bytes().to_vec();
        bytes.resize(HEADER_LEN, 0);
        crc32c::sign(&mut bytes);
        storage.write_at(offset, &bytes)?;
    }
    Ok(())
}

/// Says in the image that its log is empty.
pub(super) fn clear_log<S: StorageMut>(storage: &mut S) -> Result<(), Error> {
    change(storage, |fields| fields.log_guid = [0; 16])
}

/// Says in the image that its file and its data are others than they were, and its log is empty.
pub(super) fn begin_writing<S: StorageMut>(storage: &mut S, guids: Guids) -> Result<(), Error> {
    change(storage, |fields| {
        fields.log_guid = [0; 16];
        fields.file_write_guid = guids.file_write;
        fields.data_write_guid = guids.data_write;
    })
}

/// Changes the header: first in the copy that is not current, which is current from then on, and then in the other one.
fn change<S: StorageMut>(storage: &mut S, set: impl Fn(&mut Fields)) -> Result<(), Error> {
    for _ in OFFSETS {
        let (offset, fields) = current(storage)?;
        let mut bytes = vec![0; HEADER_LEN];
        storage.read_at(offset, &mut bytes)?;
        let Ok((changed, _)) = Fields::mut_from_prefix(&mut bytes) else { return Err(no_header()) };
        set(changed);
        changed.sequence_number.set(fields.sequence_number.get().wrapping_add(1));
        crc32c::sign(&mut bytes);
        let [first, second] = OFFSETS;
        storage.write_at(if offset == first { second } else { first }, &bytes)?;
        storage.flush()?;
    }
    Ok(())
}

/// The header that is current, and its offset.
fn current<S: Storage>(storage: &mut S) -> Result<(u64, Fields), Error> {
    let [first_at, second_at] = OFFSETS;
    match (copy(storage, first_at)?, copy(storage, second_at)?) {
        (Some(fields), None) => Ok((first_at, fields)),
        (None, Some(fields)) => Ok((second_at, fields)),
        (Some(first), Some(second)) => {
            match first.sequence_number.get().cmp(&second.sequence_number.get()) {
                core::cmp::Ordering::Greater => Ok((first_at, first)),
                core::cmp::Ordering::Less => Ok((second_at, second)),
                // Some tools write the same header twice.
                core::cmp::Ordering::Equal if first.as_bytes() == second.as_bytes() => Ok((first_at, first)),
                core::cmp::Ordering::Equal => Err(no_header()),
            }
        }
        (None, None) => Err(no_header()),
    }
}

/// The header at `offset`, if it is one.
fn copy<S: Storage>(storage: &mut S, offset: u64) -> Result<Option<Fields>, Error> {
    let mut bytes = vec![0; HEADER_LEN];
    storage.read_at(offset, &mut bytes)?;
    let Ok((fields, _)) = Fields::read_from_prefix(&bytes) else { return Ok(None) };
    let valid = fields.checksum.get() == crc32c::of_structure(&bytes)
        && fields.signature == *SIGNATURE
        && fields.version.get() == VERSION;
    Ok(valid.then_some(fields))
}

fn no_header() -> Error {
    invalid("header", "No valid VHDX header found")
}
