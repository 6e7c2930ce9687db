//! Section "Snapshots": that the table can be walked within its limits, what is in it, and where a snapshot has its L1
//! table.

use alloc::format;
use alloc::vec::Vec;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::header::{Header, TABLE_ENTRY_LEN};
use super::l1::TablePlace;
use crate::reader::{Reader, c_string};
use crate::{Error, ErrorKind, Storage};

/// Longest extra data of an entry in bytes: QEMU's limit.
pub(super) const EXTRA_DATA_MAX: u32 = 1024;
/// Largest snapshot table in bytes: QEMU's limit.
pub(super) const TABLE_MAX: u64 = 1024 * 65536;

/// The fixed part of an entry; extra data, id and name follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Entry {
    l1_table_offset: U64,
    l1_size: U32,
    id_len: U16,
    name_len: U16,
    date_seconds: U32,
    date_nanoseconds: U32,
    vm_clock: U64,
    vm_state_size: U32,
    extra_data_len: U32,
}

impl Entry {
    /// File offset in bytes of the L1 table, and its number of entries; any numbers.
    pub(super) fn l1_table(&self) -> (u64, u32) {
        (self.l1_table_offset.get(), self.l1_size.get())
    }

    /// Length of the id and of the name in bytes.
    pub(super) fn text_len(&self) -> (u16, u16) {
        (self.id_len.get(), self.name_len.get())
    }

    /// The state's size in bytes, where there is no long one.
    pub(super) fn vm_state_size(&self) -> u32 {
        self.vm_state_size.get()
    }

    /// Changes the length of the extra data in bytes.
    pub(super) fn set_extra_data_len(&mut self, length: u32) {
        self.extra_data_len.set(length);
    }

    /// Length of the extra data in bytes; any number.
    pub(super) fn extra_data_len(&self) -> u32 {
        self.extra_data_len.get()
    }
}

/// Places in the extra data: where the state's long size ends, where the count of instructions begins and ends.
const VM_STATE_SIZE_END: u32 = 8;
const ICOUNT_OFFSET: u32 = 16;
const ICOUNT_END: u32 = 24;
/// Longest id and name in bytes that QEMU shows: it cuts longer ones.
const ID_MAX: usize = 127;
const NAME_MAX: usize = 255;

/// What an internal snapshot is known by: its id, its name or both. Any bytes but NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotName<'a> {
    /// The id it must have.
    pub id: Option<&'a [u8]>,
    /// The name it must have.
    pub name: Option<&'a [u8]>,
}

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id: up to 127 bytes, none of them NUL.
    pub id: Vec<u8>,
    /// Its name: up to 255 bytes, none of them NUL.
    pub name: Vec<u8>,
    /// Bytes of the machine's state.
    pub vm_state_size: u64,
    /// When it was made: seconds since 1970.
    pub date_seconds: u32,
    /// Nanoseconds of that second; any number.
    pub date_nanoseconds: u32,
    /// For how long the machine had run, in nanoseconds.
    pub vm_clock: u64,
    /// How many instructions it had executed, if that was counted.
    pub icount: Option<u64>,
}

/// Walks the snapshot table.
pub(super) fn check<S: Storage>(reader: &mut Reader<'_, S>, header: &Header) -> Result<(), Error> {
    walk(reader, header, |entry, reader| {
        reader.skip(u64::from(entry.id_len.get()) + u64::from(entry.name_len.get()));
        Ok(None::<()>)
    })
    .map(|_| ())
}

/// The L1 table of the first snapshot that is `wanted`.
pub(super) fn find<S: Storage>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    wanted: SnapshotName<'_>,
) -> Result<Option<TablePlace>, Error> {
    let found = walk(reader, header, |entry, reader| {
        let id = c_string(reader.bytes(entry.id_len.get().into())?);
        let name = c_string(reader.bytes(entry.name_len.get().into())?);
        let matches = wanted.id.is_none_or(|wanted| wanted == id)
            && wanted.name.is_none_or(|wanted| wanted == name)
            && (wanted.id.is_some() || wanted.name.is_some());
        Ok(matches.then(|| (entry.l1_table_offset.get(), entry.l1_size.get())))
    })?;
    let Some((offset, entries)) = found else { return Ok(None) };
    let place = TablePlace { name: "Snapshot L1 table", field: "snapshot l1_table_offset", offset, entries };
    header.check_l1(place.name, ("snapshot l1_size", place.field), offset, entries)?;
    Ok(Some(place))
}

/// Hands the L1 table of each snapshot to `visit`, and then their table: name, file offset and length in bytes.
pub(super) fn areas<S: Storage>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    visit: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<(), Error> {
    walk(reader, header, |entry, reader| {
        let (offset, entries) = (entry.l1_table_offset.get(), entry.l1_size.get());
        header.check_l1(
            "Snapshot L1 table",
            ("snapshot l1_size", "snapshot l1_table_offset"),
            offset,
            entries,
        )?;
        visit("snapshot L1 table", offset, u64::from(entries) * TABLE_ENTRY_LEN);
        reader.skip(u64::from(entry.id_len.get()) + u64::from(entry.name_len.get()));
        Ok(None::<()>)
    })?;
    let (count, start) = header.snapshots();
    let length = if count == 0 { 0 } else { reader.position().saturating_sub(start) };
    visit("snapshot table", start, length);
    Ok(())
}

/// Hands each snapshot to `visit`.
pub(super) fn visit<S: Storage>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    mut visit: impl FnMut(Snapshot),
) -> Result<(), Error> {
    walk(reader, header, |entry, reader| {
        let (rest, extra) = (reader.position(), entry.extra_data_len.get());
        let start = rest - u64::from(extra);
        reader.seek(start);
        let mut vm_state_size = entry.vm_state_size.get().into();
        if extra >= VM_STATE_SIZE_END {
            vm_state_size = reader.record::<U64>()?.get();
        }
        let mut icount = None;
        if extra >= ICOUNT_END {
            reader.seek(start + u64::from(ICOUNT_OFFSET));
            icount = Some(reader.record::<U64>()?.get()).filter(|&icount| icount != u64::MAX);
        }
        reader.seek(rest);
        visit(Snapshot {
            id: text(reader, entry.id_len, ID_MAX)?,
            name: text(reader, entry.name_len, NAME_MAX)?,
            vm_state_size,
            date_seconds: entry.date_seconds.get(),
            date_nanoseconds: entry.date_nanoseconds.get(),
            vm_clock: entry.vm_clock.get(),
            icount,
        });
        Ok(None::<()>)
    })
    .map(|_| ())
}

/// The next text, cut as QEMU cuts it.
fn text<S: Storage>(reader: &mut Reader<'_, S>, length: U16, max: usize) -> Result<Vec<u8>, Error> {
    let mut text = c_string(reader.bytes(length.get().into())?);
    text.truncate(max);
    Ok(text)
}

/// Calls `visit` with each entry's fixed part, the reader being at its id, until it gives something.
fn walk<S: Storage, T>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    mut visit: impl FnMut(&Entry, &mut Reader<'_, S>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let (count, start) = header.snapshots();
    reader.seek(start);
    for index in 0..count {
        reader.align_to_8(start);
        let entry: Entry = reader.record()?;
        let extra = entry.extra_data_len.get();
        if extra > EXTRA_DATA_MAX {
            let message = format!("Too much extra metadata in snapshot table entry {index}");
            return Err(Error::new(ErrorKind::Limit, "snapshot table", message));
        }
        reader.skip(extra.into());
        let found = visit(&entry, reader)?;
        if reader.position() - start > TABLE_MAX {
            return Err(Error::new(ErrorKind::Limit, "snapshot table", "Snapshot table is too big"));
        }
        if reader.position() > reader.file_len() {
            let message = format!("Snapshot table entry {index} lies beyond the end of the file");
            return Err(Error::new(ErrorKind::Corrupt, "snapshot table", message));
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
