//! What is moved: a disk, or several one behind the other.

use alloc::{vec, vec::Vec};
use core::ops::Range;

use formats::{Chain, Image, Storage};
use protocol::ErrorRecord;

use super::{
    pieces::{self, Kind, Piece, Pieces, SECTOR, unread},
    read_ahead::ReadAhead,
    salvage::{self, Salvage},
};

/// Disks one behind the other.
pub struct Source<'a, S> {
    disks: Vec<Disk<S>>,
    /// Of the disk of this number.
    ahead: (usize, ReadAhead),
    /// What lies below the target.
    below: Option<Chain<S>>,
    salvage: Salvage<'a>,
    size: u64,
    /// What is moved of the disks, if not all is.
    part: Option<Range<u64>>,
    /// The disk that the next piece is of.
    current: usize,
    /// Bytes that are copied behind the last disk, and whether they were a piece already.
    tail: (Vec<u8>, bool),
}

struct Disk<S> {
    start: u64,
    chain: Chain<S>,
    pieces: Pieces,
}

impl<'a, S: Storage> Source<'a, S> {
    /// The disks of `chains`. With `top_only` what the top of a chain leaves to the images below is a piece
    /// [`Below`](Kind::Below). With `salvage` what cannot be read is zeros. Nothing if they are longer than 2^63 bytes together.
    pub fn new(chains: Vec<Chain<S>>, top_only: bool, salvage: Salvage<'a>) -> Option<Self> {
        let (mut disks, mut size) = (Vec::new(), 0_u64);
        for chain in chains {
            let (start, pieces) = (size, Pieces::new(&chain, top_only));
            size = start.checked_add(chain.virtual_size()).filter(|&size| size <= 1 << 63)?;
            disks.push(Disk { start, chain, pieces });
        }
        Some(Self {
            disks,
            ahead: (0, ReadAhead::default()),
            below: None,
            salvage,
            size,
            part: None,
            current: 0,
            tail: (Vec::new(), false),
        })
    }

    /// The bytes `[start, end)` of the disk, as far as it goes: one piece of data, up to a whole sector.
    pub fn part(self, start: u64, end: u64) -> Self {
        let end = end.min(self.size);
        let start = start.min(end);
        Self { part: Some(start..end), size: (end - start).next_multiple_of(SECTOR), ..self }
    }

    /// With more to be copied behind the disks, made to be `size` bytes.
    pub fn with_tail(self, size: u64, tail: Vec<u8>) -> Self {
        let mut bytes = Vec::new();
        if !tail.is_empty() {
            bytes.resize(usize::try_from(size.saturating_sub(self.size)).unwrap_or(0), 0);
            bytes.extend(tail);
        }
        Self { tail: (bytes, false), ..self }
    }

    /// Tells what lies below the target, which has the part of the disks that are [`Below`](Kind::Below).
    pub fn set_below(&mut self, below: Chain<S>) {
        for disk in &mut self.disks {
            disk.pieces.set_below_end(below.virtual_size());
        }
        self.below = Some(below);
    }

    /// Tells how many bytes the target compresses together.
    pub fn set_unit(&mut self, unit: u64) {
        for disk in &mut self.disks {
            disk.pieces.set_unit(unit);
        }
    }

    /// The disks.
    pub fn chains(&self) -> impl ExactSizeIterator<Item = &Chain<S>> {
        self.disks.iter().map(|disk| &disk.chain)
    }

    /// The image on top of the first disk.
    pub fn top_mut(&mut self) -> Option<&mut Image<S>> {
        self.disks.first_mut()?.chain.layers_mut().first_mut()
    }

    /// Bytes of all disks.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the last piece ends, in bytes.
    pub fn end(&self) -> u64 {
        self.size + self.tail.0.len() as u64
    }

    /// Bytes of the pieces that are data, or of all of them; to be asked before the first piece is.
    pub fn data_bytes(&mut self, zeros_count: bool) -> Result<u64, ErrorRecord> {
        let mut bytes = 0;
        for Disk { chain, pieces, .. } in &mut self.disks {
            let mut pieces = pieces.clone();
            while let Some(piece) = pieces.next(chain, self.salvage)? {
                if piece.kind == Kind::Data || zeros_count && piece.kind == Kind::Zero {
                    bytes += piece.length;
                }
            }
        }
        Ok(bytes)
    }

    /// The next piece, in ascending order.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, ErrorRecord> {
        if self.part.is_some() {
            let whole = self.current == 0 && self.size > 0;
            self.current = 1;
            return Ok(whole.then_some(Piece { start: 0, length: self.size, kind: Kind::Data }));
        }
        while let Some(Disk { start, chain, pieces }) = self.disks.get_mut(self.current) {
            if let Some(piece) = pieces.next(chain, self.salvage)? {
                return Ok(Some(Piece { start: *start + piece.start, ..piece }));
            }
            self.current += 1;
        }
        let (tail, given) = &mut self.tail;
        let is_next = !tail.is_empty() && !core::mem::replace(given, true);
        Ok(is_next.then_some(Piece { start: self.size, length: tail.len() as u64, kind: Kind::Data }))
    }

    /// Fills `buffer` with what is from `offset` on; behind the end, and the tail, are zeros.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ErrorRecord> {
        let Some(part) = self.part.clone() else {
            let inside = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (inside, beyond) = buffer.split_at_mut(inside.min(buffer.len()));
            beyond.fill(0);
            let behind = usize::try_from(offset.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let tail = self.tail.0.get(behind..).unwrap_or_default();
            for (byte, kept) in beyond.iter_mut().zip(tail) {
                *byte = *kept;
            }
            return self.read_whole(offset, inside);
        };
        let first = part.start + offset;
        let inside = usize::try_from(part.end.saturating_sub(first)).unwrap_or(usize::MAX);
        let (inside, beyond) = buffer.split_at_mut(inside.min(buffer.len()));
        beyond.fill(0);
        // Images are read in whole sectors.
        let start = first / SECTOR * SECTOR;
        let before = usize::try_from(first - start).unwrap_or(0);
        let mut sectors = vec![0; (before + inside.len()).next_multiple_of(SECTOR as usize)];
        self.read_whole(start, &mut sectors)?;
        if let Some(bytes) = sectors.get(before..before + inside.len()) {
            inside.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Fills `buffer`, whole sectors, with what is below the target from `offset` on; where that is not known, with what the
    /// disks have.
    pub fn read_below(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ErrorRecord> {
        let Some(below) = &mut self.below else { return self.read(offset, buffer) };
        let inside = usize::try_from(below.virtual_size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (buffer, beyond) = buffer.split_at_mut(inside.min(buffer.len()));
        beyond.fill(0);
        pieces::read(below, offset, buffer)
    }

    fn read_whole(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), ErrorRecord> {
        let next = self.disks.partition_point(|disk| disk.start <= offset);
        let (of, ahead) = &mut self.ahead;
        for (index, Disk { start, chain, .. }) in
            self.disks.iter_mut().enumerate().skip(next.saturating_sub(1))
        {
            if core::mem::replace(of, index) != index {
                ahead.turn_away();
            }
            let within = offset - *start;
            let inside = chain.virtual_size().saturating_sub(within);
            let length = usize::try_from(inside).unwrap_or(usize::MAX).min(buffer.len());
            let (now, later) = buffer.split_at_mut(length);
            match (ahead.read(chain, within, now), self.salvage) {
                (Ok(()), _) => {}
                (Err(_), Some(tell)) => salvage::read(chain, within, now, tell),
                (Err(error), None) => return Err(unread(within, &error)),
            }
            offset += length as u64;
            buffer = later;
            if buffer.is_empty() {
                return Ok(());
            }
        }
        buffer.fill(0);
        Ok(())
    }
}
