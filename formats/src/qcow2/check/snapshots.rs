//! The snapshot table, as a check looks at it: what it refers to, and whether its entries are complete.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::log::Log;
use super::pen::Pen;
use super::references::L1_ENTRIES_MAX;
use crate::check::Repair;
use crate::qcow2::header::Header;
use crate::qcow2::snapshots::{EXTRA_DATA_MAX, Entry, TABLE_MAX};
use crate::qcow2::types::Version;
use crate::reader::{Reader, c_string};
use crate::{Error, ErrorKind, Storage};

/// Extra data that every entry of version 3 has: the long size of the state and the size of the disk, in bytes.
const EXTRA_DATA_V3: u32 = 16;

/// Where snapshots are, and where they have their L1 tables.
#[derive(Debug, Default)]
pub(super) struct SnapshotTable {
    /// File offset in bytes.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) length: u64,
    pub(super) places: Vec<Place>,
}

/// Where a snapshot is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// File offset in bytes of its entry.
    entry: u64,
    /// File offset in bytes of its L1 table; any number.
    pub(super) l1_offset: u64,
    /// Entries of its L1 table; any number.
    pub(super) l1_size: u32,
    /// Length in bytes of its extra data, at most 1024.
    extra_len: u32,
}

/// What a snapshot is called.
pub(super) struct Words {
    pub(super) id: String,
    pub(super) name: String,
}

impl Place {
    /// Whether the L1 table can be where the entry says.
    pub(super) fn has_table(&self, header: &Header) -> bool {
        header.cluster_bits().aligned(self.l1_offset) && self.l1_size <= L1_ENTRIES_MAX
    }

    /// Reads what the snapshot is called.
    pub(super) fn words<S: Storage>(&self, storage: &mut S) -> Result<Words, Error> {
        let mut reader = Reader::new(storage);
        reader.seek(self.entry);
        let entry: Entry = reader.record()?;
        reader.skip(entry.extra_data_len().into());
        let (id_len, name_len) = entry.text_len();
        let id = c_string(reader.bytes(id_len.into())?);
        let name = c_string(reader.bytes(name_len.into())?);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Words { id: text(&id), name: text(&name) })
    }
}

/// A table that cannot be read: it is told why before the reason, which goes by the kind.
fn unreadable(kind: ErrorKind, why: &str) -> Error {
    Error::new(kind, "snapshot table", format!("ERROR {why}"))
}

/// Most snapshots: QEMU's limit.
const COUNT_MAX: u32 = 65536;

/// Bytes of a new table that are written at once, but for the last entry.
const CHUNK: usize = 64 << 10;

impl SnapshotTable {
    /// Goes through the table. What is too much is left out of it if everything is to be repaired, and ends the check
    /// if not.
    pub(super) fn read<S: Storage>(
        storage: &mut S,
        header: &Header,
        repair: Repair,
        log: &mut Log<'_, '_>,
    ) -> Result<Self, Error> {
        let mend = repair == Repair::All;
        let (mut count, offset) = header.snapshots();
        if mend && let Some(rest) = count.checked_sub(COUNT_MAX).filter(|&rest| rest > 0) {
            log.tell(format_args!("Discarding {rest} overhanging snapshots"));
            log.findings.corruptions += u64::from(rest);
            count = COUNT_MAX;
        }
        header.with_snapshots(count, offset).check_snapshot_table("snapshot table").map_err(|error| {
            let hint = count.checked_sub(COUNT_MAX).filter(|&rest| rest > 0).map(overhanging);
            unreadable(error.kind, &error.message).hint(hint)
        })?;
        let mut reader = Reader::new(storage);
        let mut places = Vec::new();
        let mut end = offset;
        let mut length = 0_u64;
        for index in 0..count {
            reader.seek(end);
            reader.align_to_8(offset);
            let start = reader.position();
            let entry: Entry = reader.record()?;
            let mut extra = entry.extra_data_len();
            let (id_len, name_len) = entry.text_len();
            reader.skip(u64::from(extra) + u64::from(id_len) + u64::from(name_len));
            if extra > EXTRA_DATA_MAX {
                if !mend {
                    let why = format!(
                        "failed to read the snapshot table: Too much extra metadata in snapshot table entry {index}"
                    );
                    let hint = "You can force-remove this extra metadata with qemu-img check -r all";
                    return Err(unreadable(ErrorKind::Limit, &why).hint(Some(hint)));
                }
                log.corruption(format_args!(
                    "Discarding too much extra metadata in snapshot table entry {index} ({extra} > {EXTRA_DATA_MAX})"
                ));
                extra = EXTRA_DATA_MAX;
            }
            let fixed = size_of::<Entry>() as u64 + u64::from(extra);
            length = length.next_multiple_of(8) + fixed + u64::from(id_len) + u64::from(name_len);
            if length > TABLE_MAX || reader.position() - offset > i32::MAX as u64 {
                let rest = count - index;
                if !mend {
                    let why = "failed to read the snapshot table: Snapshot table is too big";
                    return Err(unreadable(ErrorKind::Limit, why).hint(Some(overhanging(rest))));
                }
                log.tell(format_args!("Discarding {rest} overhanging snapshots (snapshot table is too big)"));
                log.findings.corruptions += u64::from(rest);
                break;
            }
            end = reader.position();
            let (l1_offset, l1_size) = entry.l1_table();
            places.push(Place { entry: start, l1_offset, l1_size, extra_len: extra });
        }
        for (index, place) in places.iter().enumerate() {
            if header.version() == Version::V3 && place.extra_len < EXTRA_DATA_V3 {
                let what = if mend { "Repairing" } else { "ERROR" };
                log.corruption(format_args!("{what} snapshot table entry {index} is incomplete"));
            }
        }
        Ok(Self { offset, length: end - offset, places })
    }

    /// Length in bytes of the table as [`write`](Self::write) writes it.
    pub(super) fn new_length<S: Storage>(&self, storage: &mut S, header: &Header) -> Result<u64, Error> {
        let mut length = 0_u64;
        for place in &self.places {
            length += place.new_entry(storage, header)?.len() as u64;
        }
        Ok(length)
    }

    /// Writes all entries, complete and none too long, to the file offset `offset`.
    pub(super) fn write<S: Storage>(
        &self,
        storage: &mut S,
        header: &Header,
        pen: &mut dyn Pen<S>,
        mut offset: u64,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for place in &self.places {
            bytes.extend_from_slice(&place.new_entry(storage, header)?);
            if bytes.len() >= CHUNK {
                pen.write(storage, offset, &bytes)?;
                offset += bytes.len() as u64;
                bytes.clear();
            }
        }
        pen.write(storage, offset, &bytes)?;
        Ok(())
    }
}

/// What can be done about so many snapshots too many.
fn overhanging(rest: u32) -> String {
    format!("You can force-remove all {rest} overhanging snapshots with qemu-img check -r all")
}

impl Place {
    /// The entry as it should be, padded.
    fn new_entry<S: Storage>(&self, storage: &mut S, header: &Header) -> Result<Vec<u8>, Error> {
        let mut reader = Reader::new(storage);
        reader.seek(self.entry);
        let mut entry: Entry = reader.record()?;
        let texts = reader.position() + u64::from(entry.extra_data_len());
        let mut extra = reader.bytes(usize::try_from(self.extra_len).unwrap_or(0))?;
        if header.version() == Version::V3 && self.extra_len < EXTRA_DATA_V3 {
            let state = u64::from(entry.vm_state_size()).to_be_bytes();
            let known = [state, header.virtual_size().to_be_bytes()].concat();
            // Half a number is none.
            extra.truncate(extra.len() / 8 * 8);
            extra.extend_from_slice(known.get(extra.len()..).unwrap_or_default());
        }
        entry.set_extra_data_len(u32::try_from(extra.len()).unwrap_or(0));
        let (id_len, name_len) = entry.text_len();
        reader.seek(texts);
        let texts = reader.bytes(usize::from(id_len) + usize::from(name_len))?;
        let mut bytes = [entry.as_bytes(), &extra, &texts].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(bytes)
    }
}
