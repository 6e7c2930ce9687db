//! What the entries of an L2 table refer to.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::big_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::counts::{COPIED, SHARED};
use super::ledger::Ledger;
use super::log::Log;
use super::pen::Pen;
use crate::check::{Release, Repair};
use crate::qcow2::entry::{self, Decoder, OFFSET_MASK};
use crate::qcow2::header::Header;
use crate::{Error, Storage, StorageError};

/// Bits of a standard cluster descriptor that must not be set.
const RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Low half of the bitmap of an extended entry: subclusters that are allocated.
const ALL_ALLOCATED: u64 = 0xffff_ffff;
/// Since then bits that must not be set are looked at.
const STRICT: Release = Release { major: 6, minor: 2 };
/// Since then compressed data begins at its first byte and not at its first sector.
const EXACT: Release = Release { major: 6, minor: 1 };

/// What a standard cluster descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Unallocated,
    /// Reads as zeros and has no place in the file.
    ZeroPlain,
    /// Has a place in the file.
    Allocated,
    Compressed,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Stays,
    /// It is to read as zeros.
    Zeros,
}

/// How L2 entries are told apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classes {
    extended: bool,
    data_file: bool,
}

impl Classes {
    pub(super) fn new(header: &Header) -> Self {
        Self { extended: header.has_extended_l2(), data_file: header.has_data_file() }
    }

    /// What the first word of an entry says.
    #[inline]
    pub(super) fn of(self, descriptor: u64) -> Class {
        let has_offset = descriptor & OFFSET_MASK != 0;
        if descriptor & entry::COMPRESSED != 0 {
            Class::Compressed
        } else if descriptor & entry::ZERO != 0 && !self.extended {
            if has_offset { Class::Allocated } else { Class::ZeroPlain }
        } else if has_offset || self.data_file && descriptor & entry::COPIED != 0 {
            Class::Allocated
        } else {
            Class::Unallocated
        }
    }
}

/// Goes through L2 tables, one at a time in memory.
pub(super) struct Tables {
    decoder: Decoder,
    classes: Classes,
    cluster_len: u64,
    extended: bool,
    data_file: bool,
    release: Release,
    words: Vec<U64>,
    /// File offset of the table that `words` are.
    at: Option<u64>,
}

/// Of the table that is gone through: clusters as they are stored, and where the next one would lie.
#[derive(Default)]
struct Stored {
    allocated: u64,
    fragmented: u64,
    compressed: u64,
    next: u64,
}

impl Stored {
    #[inline]
    fn cluster(&mut self, offset: u64, cluster_len: u64) {
        self.allocated += 1;
        self.fragmented += u64::from(self.next != 0 && offset != self.next);
        self.next = offset + cluster_len;
    }
}

impl Tables {
    pub(super) fn new(header: &Header, release: Release) -> Self {
        Self {
            decoder: Decoder::new(header),
            classes: Classes::new(header),
            cluster_len: header.cluster_bits().size(),
            extended: header.has_extended_l2(),
            data_file: header.has_data_file(),
            release,
            words: Vec::new(),
            at: None,
        }
    }

    /// The table at `table`, an offset in the file or past its end.
    fn read<S: Storage>(&mut self, storage: &mut S, table: u64) -> Result<(), Error> {
        if self.at == Some(table) {
            return Ok(());
        }
        let length = usize::try_from(self.cluster_len / 8).unwrap_or(0);
        if self.words.is_empty() {
            self.words = vec![U64::new_zeroed(); length];
        }
        self.at = None;
        if table >= storage.len() {
            self.words.fill(U64::ZERO);
        } else {
            storage.read_at(table, self.words.as_mut_bytes())?;
        }
        self.at = Some(table);
        Ok(())
    }

    /// Counts what the table at `table` refers to. An active one has marks and says how the disk is stored.
    pub(super) fn count<S: Storage>(
        &mut self,
        storage: &mut S,
        ledger: &mut Ledger<'_>,
        pen: &mut dyn Pen<S>,
        (table, active): (u64, bool),
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        self.read(storage, table)?;
        let mut stored = Stored::default();
        let mut words = core::mem::take(&mut self.words);
        let entry_words = self.decoder.entry_words();
        let mend = pen.repair() == Repair::All;
        for (index, entry) in words.chunks_exact_mut(entry_words).enumerate() {
            let descriptor = entry.first().map_or(0, |word| word.get());
            let bitmap = entry.get(1).map_or(0, |word| word.get());
            if descriptor == 0 && bitmap == 0 {
                continue;
            }
            let offset = descriptor & OFFSET_MASK;
            let plain = descriptor & !(OFFSET_MASK | entry::COPIED) == 0
                && offset & (self.cluster_len - 1) == 0
                && offset != 0
                && !self.extended
                && !self.data_file;
            if plain {
                stored.cluster(offset, self.cluster_len);
                ledger.add(offset, self.cluster_len, mark(active, descriptor), log);
            } else {
                let whose = (index, active, mend);
                if self.unusual(ledger, whose, descriptor, bitmap, &mut stored, log) == Entry::Zeros {
                    if !pen.may_write_l2(table, self.cluster_len) {
                        log.tell(format_args!("ERROR: Overlap check failed"));
                        return Err(StorageError.into());
                    }
                    self.zero(entry, bitmap);
                    let place = table + (index * entry_words * size_of::<U64>()) as u64;
                    pen.write(storage, place, entry.as_bytes())?;
                    log.repaired();
                }
            }
        }
        self.words = words;
        if active {
            log.clusters(stored.allocated, stored.fragmented, stored.compressed);
        }
        Ok(())
    }

    /// Makes an entry that cannot be read one of zeros. Subclusters that it has none for are as they were.
    fn zero(&self, entry: &mut [U64], bitmap: u64) {
        let (descriptor, zeros) = match self.extended {
            true => (0, (bitmap | bitmap << 32) & !ALL_ALLOCATED),
            false => (entry::ZERO, 0),
        };
        for (word, value) in entry.iter_mut().zip([descriptor, zeros]) {
            word.set(value);
        }
    }

    /// Whatever an entry may be but a plain cluster.
    fn unusual(
        &self,
        ledger: &mut Ledger<'_>,
        (index, active, mend): (usize, bool, bool),
        descriptor: u64,
        bitmap: u64,
        stored: &mut Stored,
        log: &mut Log<'_, '_>,
    ) -> Entry {
        let class = self.classes.of(descriptor);
        let strict = self.release >= STRICT;
        if class != Class::Compressed && strict && descriptor & RESERVED != 0 {
            log.corruption(format_args!("ERROR found l2 entry with reserved bits set: {descriptor:x}"));
        }
        match class {
            Class::Compressed => self.compressed(ledger, index, descriptor, bitmap, stored, log),
            Class::Allocated => {
                return self.allocated(ledger, (active, mend), descriptor, bitmap, stored, log);
            }
            Class::Unallocated if strict && bitmap & ALL_ALLOCATED != 0 => log.corruption(format_args!(
                "ERROR: Unallocated cluster has non-zero subcluster allocation map"
            )),
            Class::Unallocated | Class::ZeroPlain => {}
        }
        Entry::Stays
    }

    fn compressed(
        &self,
        ledger: &mut Ledger<'_>,
        index: usize,
        mut descriptor: u64,
        bitmap: u64,
        stored: &mut Stored,
        log: &mut Log<'_, '_>,
    ) {
        let (offset, length) = self.decoder.compressed(descriptor);
        if descriptor & entry::COPIED != 0 {
            log.corruption(format_args!(
                "ERROR: coffset=0x{offset:x}: copied flag must never be set for compressed clusters"
            ));
            descriptor &= !entry::COPIED;
        }
        if self.data_file {
            log.corruption(format_args!(
                "ERROR compressed cluster {index} with data file, entry=0x{descriptor:x}"
            ));
            return;
        }
        if bitmap != 0 && self.release >= STRICT {
            log.corruption(format_args!(
                "ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, entry=0x{descriptor:x}"
            ));
            return;
        }
        let within = if self.release >= EXACT { 0 } else { offset % entry::COMPRESSED_SECTOR };
        ledger.add(offset - within, length + within, 0, log);
        stored.allocated += 1;
        stored.compressed += 1;
        stored.fragmented += 1;
    }

    fn allocated(
        &self,
        ledger: &mut Ledger<'_>,
        (active, mend): (bool, bool),
        descriptor: u64,
        bitmap: u64,
        stored: &mut Stored,
        log: &mut Log<'_, '_>,
    ) -> Entry {
        let offset = descriptor & OFFSET_MASK;
        let mark = mark(active, descriptor);
        // In a data file of their own all clusters have one reference.
        let mark = if self.data_file {
            ledger.counts.doubt_if(mark == SHARED);
            0
        } else {
            mark
        };
        if self.release >= STRICT && bitmap >> 32 & bitmap != 0 {
            log.corruption(format_args!(
                "ERROR offset={offset:x}: Allocated cluster has corrupted subcluster allocation bitmap"
            ));
        }
        if !offset.is_multiple_of(self.cluster_len) {
            let has_data =
                if self.extended { bitmap & ALL_ALLOCATED != 0 } else { descriptor & entry::ZERO == 0 };
            if has_data {
                log.corruption(format_args!(
                    "ERROR offset={offset:x}: Data cluster is not properly aligned; L2 entry corrupted."
                ));
            } else {
                let what = if mend { "Repairing" } else { "ERROR" };
                log.corruption(format_args!(
                    "{what} offset={offset:x}: Preallocated cluster is not properly aligned; L2 entry corrupted."
                ));
                if mend {
                    return Entry::Zeros;
                }
            }
        }
        stored.cluster(offset, self.cluster_len);
        if !self.data_file {
            ledger.add(offset, self.cluster_len, mark, log);
        }
        Entry::Stays
    }
}

/// What an entry of an active table says of its cluster; one of another table says nothing.
pub(super) fn mark(active: bool, entry: u64) -> u8 {
    match (active, entry & entry::COPIED != 0) {
        (false, _) => 0,
        (true, true) => COPIED,
        (true, false) => SHARED,
    }
}
