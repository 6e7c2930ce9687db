//! What is moved: a disk, or several one behind the other.

use alloc::{vec, vec::Vec};

use formats::{Chain, Image, Storage};
use protocol::ErrorRecord;

use super::pieces::{self, Kind, Piece, Pieces, SECTOR};

/// Disks one behind the other.
pub struct Source<S> {
    disks: Vec<Disk<S>>,
    size: u64,
    /// Bytes of the first disk that are left out.
    skip: u64,
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

impl<S: Storage> Source<S> {
    /// The disks of `chains`. With `top_only` what the top of a chain leaves to the images below is a piece
    /// [`Below`](pieces::Kind::Below). Nothing if they are longer than 2^63 bytes together.
    pub fn new(chains: Vec<Chain<S>>, top_only: bool) -> Option<Self> {
        let (mut disks, mut size) = (Vec::new(), 0_u64);
        for chain in chains {
            let (start, pieces) = (size, Pieces::new(&chain, top_only));
            size = start.checked_add(chain.virtual_size()).filter(|&size| size <= 1 << 63)?;
            disks.push(Disk { start, chain, pieces });
        }
        Some(Self { disks, size, skip: 0, current: 0, tail: (Vec::new(), false) })
    }

    /// The bytes `[start, end)` of the first disk, as far as it goes.
    pub fn part(mut self, start: u64, end: u64) -> Self {
        self.disks.truncate(1);
        let end = end.min(self.disks.first().map_or(0, |disk| disk.chain.virtual_size()));
        let start = start.min(end);
        for disk in &mut self.disks {
            disk.pieces.cut(start..end);
        }
        Self { size: end - start, skip: start, ..self }
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
            while let Some(piece) = pieces.next(chain)? {
                if piece.kind == Kind::Data || zeros_count && piece.kind == Kind::Zero {
                    bytes += piece.length;
                }
            }
        }
        Ok(bytes)
    }

    /// The next piece, in ascending order.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, ErrorRecord> {
        while let Some(Disk { start, chain, pieces }) = self.disks.get_mut(self.current) {
            if let Some(piece) = pieces.next(chain)? {
                return Ok(Some(Piece { start: *start + piece.start - self.skip, ..piece }));
            }
            self.current += 1;
        }
        let (tail, given) = &mut self.tail;
        let is_next = !tail.is_empty() && !core::mem::replace(given, true);
        Ok(is_next.then_some(Piece { start: self.size, length: tail.len() as u64, kind: Kind::Data }))
    }

    /// Fills `buffer` with what is from `offset` on; behind the end, and the tail, are zeros.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ErrorRecord> {
        let inside = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (buffer, beyond) = buffer.split_at_mut(inside.min(buffer.len()));
        beyond.fill(0);
        let behind = usize::try_from(offset.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let tail = self.tail.0.get(behind..).unwrap_or_default();
        for (byte, kept) in beyond.iter_mut().zip(tail) {
            *byte = *kept;
        }
        if self.skip.is_multiple_of(SECTOR) && buffer.len().is_multiple_of(SECTOR as usize) {
            return self.read_inside(offset + self.skip, buffer);
        }
        // Images are read in whole sectors.
        let start = (offset + self.skip) / SECTOR * SECTOR;
        let before = usize::try_from(offset + self.skip - start).unwrap_or(0);
        let mut sectors = vec![0; (before + buffer.len()).next_multiple_of(SECTOR as usize)];
        self.read_inside(start, &mut sectors)?;
        if let Some(bytes) = sectors.get(before..before + buffer.len()) {
            buffer.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn read_inside(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), ErrorRecord> {
        let next = self.disks.partition_point(|disk| disk.start <= offset);
        for Disk { start, chain, .. } in self.disks.iter_mut().skip(next.saturating_sub(1)) {
            let within = offset - *start;
            let inside = chain.virtual_size().saturating_sub(within);
            let length = usize::try_from(inside).unwrap_or(usize::MAX).min(buffer.len());
            let (now, later) = buffer.split_at_mut(length);
            pieces::read(chain, within, now)?;
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
