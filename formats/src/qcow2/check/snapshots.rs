//! The snapshot table, as a check looks at it: what it refers to, and whether its entries are complete.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::log::Log;
use super::pen::Pen;
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
#[derive(Debug)]
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

impl SnapshotTable {
    /// Goes through the table.
    pub(super) fn read<S: Storage>(
        storage: &mut S,
        header: &Header,
        pen: &dyn Pen<S>,
        log: &mut Log<'_, '_>,
    ) -> Result<Self, Error> {
        header
            .check_snapshot_table("snapshot table")
            .map_err(|error| unreadable(error.kind, &error.message))?;
        let (count, offset) = header.snapshots();
        let mut reader = Reader::new(storage);
        let mut places = Vec::new();
        reader.seek(offset);
        for index in 0..count {
            reader.align_to_8(offset);
            let start = reader.position();
            let entry: Entry = reader.record()?;
            let extra = entry.extra_data_len();
            if extra > EXTRA_DATA_MAX {
                let why = format!(
                    "failed to read the snapshot table: Too much extra metadata in snapshot table entry {index}"
                );
                let hint = "You can force-remove this extra metadata with qemu-img check -r all";
                return Err(unreadable(ErrorKind::Limit, &why).hint(Some(hint)));
            }
            let (id_len, name_len) = entry.text_len();
            reader.skip(u64::from(extra) + u64::from(id_len) + u64::from(name_len));
            if reader.position() - offset > TABLE_MAX {
                let why = "failed to read the snapshot table: Snapshot table is too big";
                return Err(unreadable(ErrorKind::Limit, why));
            }
            let (l1_offset, l1_size) = entry.l1_table();
            places.push(Place { entry: start, l1_offset, l1_size, extra_len: extra });
        }
        let length = if count == 0 { 0 } else { reader.position() - offset };
        for (index, place) in places.iter().enumerate() {
            if header.version() == Version::V3 && place.extra_len < EXTRA_DATA_V3 {
                let what = if pen.repair() == Repair::All { "Repairing" } else { "ERROR" };
                log.corruption(format_args!("{what} snapshot table entry {index} is incomplete"));
            }
        }
        Ok(Self { offset, length, places })
    }
}
