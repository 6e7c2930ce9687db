//! Where the metadata of an image lies in its file.

use crate::table::{Entry, Table};
use crate::{Error, Storage};

/// A structure of the image's file, as the image says it: it may reach past the end of the file, and over another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// What it is, as the format's specification calls it.
    pub name: &'static str,
    /// File offset in bytes of its first byte.
    pub offset: u64,
    /// Length in bytes, at least 1; its end is below 2^64.
    pub length: u64,
}

impl Area {
    /// An area, unless it is empty. One that would end past 2^64 ends there.
    pub(crate) fn new(name: &'static str, offset: u64, length: u64) -> Option<Self> {
        let length = length.min(u64::MAX - offset);
        (length > 0).then_some(Self { name, offset, length })
    }
}

/// Takes areas one by one.
pub(crate) type Visit<'a> = dyn FnMut(Area) + 'a;

/// Visits the tables of `length` bytes that `table` leads to; `place` gives the file offset in an entry, 0 being none.
pub(crate) fn visit_tables<E: Entry, S: Storage>(
    storage: &mut S,
    table: &mut Table<E>,
    (name, length): (&'static str, u64),
    place: impl Fn(u64) -> u64,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let mut index = 0;
    loop {
        index = table.find(storage, index, |entry| place(entry) != 0)?;
        let Some(entry) = table.from(storage, index)?.first() else { return Ok(()) };
        Area::new(name, place(entry.value()), length).into_iter().for_each(&mut *visit);
        index += 1;
    }
}
