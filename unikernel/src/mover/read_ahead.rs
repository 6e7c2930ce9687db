//! Reading a disk whose compressed clusters are decoded by all processors before they are asked for.
//!
//! Nothing that goes wrong ahead of time counts: what cannot be had this way is read by `formats`, whose word is the last one.

use alloc::{collections::VecDeque, vec::Vec};
use core::ops::Range;

use codecs::Method;
use formats::{Chain, ChainError, ExtentKind, FileIndex, Mapping, Storage, Stream};

use super::method;
use crate::workers::{Job, Pool, SLOTS, Task};

/// What may have to be decoded.
const TASKS: [Task; 3] =
    [Task::Decode(Method::Deflate), Task::Decode(Method::Zlib), Task::Decode(Method::Zstd)];

/// Bytes of clusters that are decoded ahead, where these are small.
const AHEAD: u64 = 1 << 20;

/// Clusters that are decoded ahead however large they are: one for each processor of a small machine.
const LEAST: usize = 2;

/// How far ahead compressed clusters are looked for, in bytes of the disk.
const DISTANCE: u64 = 8 << 20;

/// A compressed cluster.
#[derive(Clone, Debug)]
struct Cluster {
    layer: usize,
    file: FileIndex,
    /// Where its stream begins in the file.
    offset: u64,
    /// The bytes of the disk that its bytes would be, if all were read.
    place: Range<u64>,
}

impl Cluster {
    fn new(layer: usize, stream: &Stream, start: u64) -> Option<Self> {
        let start = start.checked_sub(stream.skip)?;
        let place = start..start.checked_add(stream.cluster_len)?;
        Some(Self { layer, file: stream.file, offset: stream.offset, place })
    }

    /// Whether `mapping` is a part of it.
    fn holds(&self, mapping: &Mapping) -> bool {
        let extent = &mapping.extent;
        matches!(extent.kind, ExtentKind::Compressed { offset, .. } if offset == self.offset)
            && (mapping.layer, extent.file) == (self.layer, self.file)
            && self.place.contains(&extent.start)
    }
}

/// The clusters of one disk that are decoded ahead.
#[derive(Default)]
pub struct ReadAhead {
    /// There is none before there is something to decode.
    pool: Option<Pool>,
    /// What the pool decodes, in the order of the disk.
    ahead: VecDeque<Cluster>,
    /// Up to where the disk was looked over.
    seen: u64,
    /// The cluster taken last, and what it holds: nothing, if that is for `formats` to say.
    current: Option<(Cluster, Vec<u8>)>,
    /// Buffers to be used again: of streams, of clusters.
    spare: Vec<(Vec<u8>, Vec<u8>)>,
}

impl ReadAhead {
    /// Forgets the disk: another one is read from now on.
    pub fn turn_away(&mut self) {
        while self.take().is_some() {}
        self.seen = 0;
        self.current = None;
    }

    /// Fills `buffer` with what the disk has from `offset` on, as [`Chain::read`] does. It is fast for offsets that ascend.
    pub fn read<S: Storage>(
        &mut self,
        chain: &mut Chain<S>,
        mut offset: u64,
        mut buffer: &mut [u8],
    ) -> Result<(), ChainError> {
        while !buffer.is_empty() {
            let mapping = chain.extent_at(offset)?;
            let length = usize::try_from(mapping.extent.length).unwrap_or(usize::MAX).min(buffer.len());
            let (now, later) = buffer.split_at_mut(length);
            match self.decoded(chain, &mapping, length) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => chain.read_mapping(&mapping, now)?,
            }
            offset += length as u64;
            buffer = later;
        }
        Ok(())
    }

    /// The first `length` bytes of `mapping`, if they are part of a cluster that the pool has decoded.
    fn decoded<S: Storage>(
        &mut self,
        chain: &mut Chain<S>,
        mapping: &Mapping,
        length: usize,
    ) -> Option<&[u8]> {
        let start = mapping.extent.start;
        let ExtentKind::Compressed { .. } = mapping.extent.kind else { return None };
        if !self.current.as_ref().is_some_and(|(cluster, _)| cluster.holds(mapping)) {
            if self.seen <= start {
                while self.take().is_some() {}
                self.seen = start;
            }
            self.look_ahead(chain, start);
            // Those before it are not asked for.
            for _ in 0..=self.ahead.iter().position(|cluster| cluster.holds(mapping))? {
                self.current = self.take();
            }
        }
        let (cluster, bytes) = self.current.as_ref()?;
        let skip = usize::try_from(start - cluster.place.start).ok()?;
        bytes.get(skip..)?.get(..length)
    }

    /// Has clusters decoded that follow `start`, as many as shall be on their way.
    fn look_ahead<S: Storage>(&mut self, chain: &mut Chain<S>, start: u64) {
        let end = start.saturating_add(DISTANCE).min(chain.virtual_size());
        while self.seen < end && self.has_room() {
            let Ok(mapping) = chain.extent_at(self.seen) else { return };
            if !self.ahead.back().is_some_and(|cluster| cluster.holds(&mapping)) {
                // What is no cluster to be decoded is passed by.
                let _ = self.submit(chain, &mapping);
            }
            self.seen += mapping.extent.length;
        }
    }

    fn has_room(&self) -> bool {
        let bytes: u64 = self.ahead.iter().map(|cluster| cluster.place.end - cluster.place.start).sum();
        (bytes < AHEAD || self.ahead.len() < LEAST) && self.pool.as_ref().is_none_or(Pool::has_room)
    }

    fn submit<S: Storage>(&mut self, chain: &mut Chain<S>, mapping: &Mapping) -> Option<()> {
        let (stream, image) = chain.stream(mapping).ok()??;
        stream.check().ok()?;
        let task = Task::Decode(method(stream.codec)?);
        let cluster = Cluster::new(mapping.layer, &stream, mapping.extent.start)?;
        let (mut input, mut output) = self.spare.pop().unwrap_or_default();
        input.resize(usize::try_from(stream.length).ok()?, 0);
        image.file_mut(stream.file)?.read_at(stream.offset, &mut input).ok()?;
        output.resize(usize::try_from(stream.cluster_len).ok()?, 0);
        let pool = self.pool.get_or_insert_with(|| Pool::new(&TASKS, SLOTS));
        pool.submit(Job { task, input, output }).ok()?;
        self.ahead.push_back(cluster);
        Some(())
    }

    /// Takes the first cluster that is on its way.
    fn take(&mut self) -> Option<(Cluster, Vec<u8>)> {
        let cluster = self.ahead.pop_front()?;
        let done = self.pool.as_mut()?.take()?;
        let Job { input, mut output, .. } = done.job;
        output.truncate(done.length.unwrap_or(0));
        let last = self.current.take().map(|(_, bytes)| bytes).unwrap_or_default();
        self.spare.push((input, last));
        Some((cluster, output))
    }
}
