//! From virtual offsets to extents.

use alloc::format;
use alloc::string::String;

use super::entry::{Decoder, Kind, OFFSET_MASK};
use super::header::Header;
use super::hex;
use super::l1::{L1, TablePlace};
use super::l2::L2;
use super::refcount;
use super::types::Version;
use crate::scan::{Scan, Verdict};
use crate::{Error, ErrorKind, Extent, ExtentKind, FileIndex, Regions, Storage};

/// Longest part of an L2 table that QEMU has in memory, in bytes: its messages count entries from the start of a part.
const QEMU_SLICE_LEN: u64 = 64 << 10;

/// The state of a walk over the mapping: at any time one L2 table is at hand.
#[derive(Debug)]
pub(super) struct Walk {
    decoder: Decoder,
    l1: L1,
    l2: L2,
    /// Whether the L1 table was found fit to be followed.
    checked: bool,
    /// The last run found. Whoever follows several images at once asks for it piece by piece.
    last: Option<Extent>,
    /// L1 index of the L2 table at hand and its file offset.
    table: Option<(u64, u64)>,
    /// The L2 tables that were looked through.
    scan: Scan,
    /// Whether holes of the file count as zeros, once it is known.
    holes: Option<bool>,
    regions: Regions,
}

/// An entry and where it stands.
struct Place {
    /// Virtual offset asked for.
    offset: u64,
    /// File offset of the L2 table.
    table: u64,
    /// Index of the entry in the table.
    index: u64,
    /// First word of the entry.
    descriptor: u64,
}

impl Walk {
    /// The walk over what the L1 table `l1` maps.
    pub(super) fn new(header: &Header, l1: TablePlace) -> Self {
        Self {
            decoder: Decoder::new(header),
            l1: L1::new(header, l1),
            l2: L2::new(header),
            checked: false,
            last: None,
            table: None,
            scan: Scan::default(),
            holes: None,
            regions: Regions::default(),
        }
    }

    /// Each L1 entry is a step on its own or leads to an L2 table of its own, each subcluster of which is a step.
    pub(super) fn max_extents(&self, header: &Header, file_len: u64) -> u64 {
        let tables = self.l1.entries().min(file_len / header.cluster_bits().size());
        let per_table = u64::from(self.decoder.subclusters()) << header.l2_bits();
        tables.saturating_mul(per_table).saturating_add(self.l1.entries()).saturating_add(1)
    }

    /// Whether a hole in the data counts as zeros.
    fn holes_count<S: Storage>(&mut self, storage: &mut S, header: &Header) -> Result<bool, Error> {
        if let Some(holes) = self.holes {
            return Ok(holes);
        }
        let holes = !header.crypt_method().is_encrypted() && refcount::preallocated(storage, header)?;
        self.holes = Some(holes);
        Ok(holes)
    }

    /// `offset` is below the virtual size. `data_file` is the external data file, if there is one and it was attached:
    /// without it no hole of it counts.
    pub(super) fn extent_at<S: Storage>(
        &mut self,
        storage: &mut S,
        data_file: Option<&mut S>,
        header: &Header,
        offset: u64,
    ) -> Result<Extent, Error> {
        let extent = match self.last.and_then(|last| last.part_from(offset)) {
            Some(extent) => extent,
            None => {
                let extent = self.mapped_at(storage, header, offset)?;
                self.last = Some(extent);
                extent
            }
        };
        let ExtentKind::Data { offset: host } = extent.kind else { return Ok(extent) };
        if !self.holes_count(storage, header)? {
            return Ok(extent);
        }
        let data = match (header.has_data_file(), data_file) {
            (false, _) => storage,
            (true, Some(data_file)) => data_file,
            (true, None) => return Ok(extent),
        };
        let run = self
            .regions
            .at(data, host, extent.length)
            .map_err(|error| Error::from(error).in_file(extent.file))?;
        let kind = if run.zero { ExtentKind::Hole { offset: host } } else { extent.kind };
        Ok(Extent { start: offset, length: run.length, kind, file: extent.file })
    }

    /// What the tables say of `offset`, whatever the file has there.
    fn mapped_at<S: Storage>(
        &mut self,
        storage: &mut S,
        header: &Header,
        offset: u64,
    ) -> Result<Extent, Error> {
        let coverage_bits = header.l1_coverage_bits();
        let l1_index = offset >> coverage_bits;
        let table = match self.table {
            Some((index, table)) if index == l1_index => table,
            _ => {
                if !self.checked {
                    self.l1.check(storage, header)?;
                    self.checked = true;
                }
                let table = self.l1.get(storage, l1_index)?;
                if table == 0 {
                    let next = self.l1.skip_empty(storage, l1_index)?;
                    let end = match next < self.l1.entries() {
                        true => next << coverage_bits,
                        // A snapshot's table may end before the disk does.
                        false => header.virtual_size(),
                    };
                    let length = end.min(header.virtual_size()) - offset;
                    return Ok(Extent::own(offset, length, ExtentKind::Unallocated { offset: None }));
                }
                self.l1.check_l2(header, storage.len(), l1_index, table)?;
                match self.scan.table(storage, l1_index, table, header.cluster_bits().size())? {
                    Verdict::Read => {}
                    Verdict::Hole => {
                        let end = ((l1_index + 1) << coverage_bits).min(header.virtual_size());
                        let kind = ExtentKind::Unallocated { offset: None };
                        return Ok(Extent::own(offset, end - offset, kind));
                    }
                    Verdict::TooMany => return Err(L1::too_many_l2()),
                }
                self.table = Some((l1_index, table));
                table
            }
        };
        let end = ((l1_index + 1) << coverage_bits).min(header.virtual_size());
        self.run_at(storage, header, table, offset, end)
    }

    /// The run at `offset`, at most up to `end`, by the L2 table at `table`.
    fn run_at<S: Storage>(
        &mut self,
        storage: &mut S,
        header: &Header,
        table: u64,
        offset: u64,
        end: u64,
    ) -> Result<Extent, Error> {
        let decoder = self.decoder;
        let cluster_bits = header.cluster_bits().get();
        let subclusters = decoder.subclusters();
        let subcluster_bits = cluster_bits - subclusters.trailing_zeros();
        let index = (offset >> cluster_bits) & ((1 << header.l2_bits()) - 1);
        let first = low_bits(offset >> subcluster_bits, subclusters);
        let entry_words = decoder.entry_words();

        let words = self.l2.from(storage, table, index * entry_words as u64)?;
        let (kind, count) = decoder.decode(words, first);
        let descriptor = words.first().map_or(0, |word| word.get());
        let mut run = u64::from(count);
        if first + count == subclusters {
            let following = words.chunks_exact(entry_words).skip(1);
            let mut distance = 0;
            for entry in following {
                distance += header.cluster_bits().size();
                let (next, count) = decoder.decode(entry, 0);
                if kind.advanced(distance) != Some(next) {
                    break;
                }
                run += u64::from(count);
                if count != subclusters {
                    break;
                }
            }
        }
        let within_subcluster = offset & ((1 << subcluster_bits) - 1);
        let length = ((run << subcluster_bits) - within_subcluster).min(end - offset);
        let kind = extent_kind(header, decoder, kind, &Place { offset, table, index, descriptor })?;
        let file = match kind {
            ExtentKind::Data { .. }
            | ExtentKind::Zero { offset: Some(_) }
            | ExtentKind::Unallocated { offset: Some(_) }
                if header.has_data_file() =>
            {
                FileIndex::DATA_FILE
            }
            _ => FileIndex::OWN,
        };
        Ok(Extent { start: offset, length, kind, file })
    }
}

/// The low bits of `value` that are below `modulus`, a power of two.
fn low_bits(value: u64, modulus: u32) -> u32 {
    u32::try_from(value & u64::from(modulus - 1)).unwrap_or(0)
}

/// What the entry says, if it may say so.
fn extent_kind(header: &Header, decoder: Decoder, kind: Kind, place: &Place) -> Result<ExtentKind, Error> {
    let within = place.offset & (header.cluster_bits().size() - 1);
    match kind {
        Kind::Invalid => return Err(corrupt(header, place, "Invalid cluster entry found ")),
        Kind::Zero(_) if header.version() < Version::V3 => {
            return Err(corrupt(header, place, "Zero cluster entry found in pre-v3 image"));
        }
        Kind::Compressed(_) if header.has_data_file() => {
            return Err(corrupt(
                header,
                place,
                "Compressed cluster entry found in image with external data file",
            ));
        }
        Kind::Compressed(descriptor) => {
            let (offset, length) = decoder.compressed(descriptor);
            return Ok(ExtentKind::Compressed { offset, length });
        }
        Kind::Unallocated(_) | Kind::Zero(_) | Kind::Data(_) => {}
    }
    let host = place.descriptor & OFFSET_MASK;
    if !header.cluster_bits().aligned(host) {
        let what = format!("Cluster allocation offset {} unaligned", hex(host));
        return Err(corrupt(header, place, what));
    }
    let has_cluster = host != 0 || matches!(kind, Kind::Data(_));
    if header.has_data_file() && has_cluster && host + within != place.offset {
        let (host, guest, index) = (hex(host), hex(place.offset - within), hex(slice_index(header, place)));
        let message = format!(
            "External data file host cluster offset {host} does not match guest cluster offset: {guest}, L2 index: {index})"
        );
        return Err(Error::new(ErrorKind::Corrupt, "L2 table", message));
    }
    Ok(match kind {
        Kind::Zero(offset) => ExtentKind::Zero { offset: offset.map(|offset| offset + within) },
        Kind::Data(offset) => ExtentKind::Data { offset: offset + within },
        Kind::Unallocated(offset) => ExtentKind::Unallocated { offset: offset.map(|offset| offset + within) },
        Kind::Compressed(_) | Kind::Invalid => ExtentKind::Unallocated { offset: None },
    })
}

fn corrupt(header: &Header, place: &Place, what: impl Into<String>) -> Error {
    let (what, table, index) = (what.into(), hex(place.table), hex(slice_index(header, place)));
    Error::new(ErrorKind::Corrupt, "L2 table", format!("{what} (L2 offset: {table}, L2 index: {index})"))
}

fn slice_index(header: &Header, place: &Place) -> u64 {
    place.index % (QEMU_SLICE_LEN.min(header.cluster_bits().size()) / header.l2_entry_len())
}
