//! The lists of an image, in pieces that fit into a record each.

use alloc::vec::Vec;

use formats::{Error, ErrorKind, Image, Storage, vmdk::Vmdk};
use protocol::{BitmapInfo, ExtentInfo, InfoPart, SnapshotInfo, Text};

/// Bytes of JSON in a record; the last item, which has up to 1023 bytes of text, may be over it.
const PART_LEN: usize = 48 << 10;
/// Bytes of JSON of an item that are no text.
const ITEM_LEN: usize = 192;
/// Most bytes of JSON of the lists of all images of a command: a little less than what the host takes.
const TOTAL_LEN: usize = 15 << 20;

/// Hands lists on.
pub struct Lists<'a> {
    tell: &'a mut dyn FnMut(InfoPart),
    total: usize,
}

impl<'a> Lists<'a> {
    pub fn new(tell: &'a mut dyn FnMut(InfoPart)) -> Self {
        Self { tell, total: 0 }
    }

    /// Hands on what is no list.
    pub fn tell(&mut self, part: InfoPart) {
        (self.tell)(part);
    }

    /// Hands on all lists of an image.
    pub fn of<S: Storage>(&mut self, image: &mut Image<S>) -> Result<(), Error> {
        let mut snapshots = Pieces::new(self, InfoPart::Snapshots);
        image.visit_snapshots(|snapshot| {
            let length = json_len(&snapshot.id) + json_len(&snapshot.name);
            let snapshot = SnapshotInfo {
                id: Text(snapshot.id),
                name: Text(snapshot.name),
                vm_state_size: snapshot.vm_state_size,
                date_sec: snapshot.date_seconds,
                date_nsec: snapshot.date_nanoseconds,
                vm_clock_nsec: snapshot.vm_clock,
                icount: snapshot.icount,
            };
            snapshots.push(snapshot, length);
        })?;
        snapshots.end("snapshot table")?;

        let mut bitmaps = Pieces::new(self, InfoPart::Bitmaps);
        for bitmap in image.bitmaps() {
            let item = BitmapInfo {
                name: Text(bitmap.name.clone()),
                granularity: bitmap.granularity(),
                in_use: bitmap.in_use,
                auto: bitmap.auto,
            };
            bitmaps.push(item, json_len(&bitmap.name));
        }
        bitmaps.end("bitmap directory")?;

        let mut extents = Pieces::new(self, InfoPart::Extents);
        for extent in image.vmdk().into_iter().flat_map(Vmdk::extents) {
            let name = extent.file.reference().and_then(|position| image.references().get(position));
            let item = ExtentInfo {
                name: name.map(|name| Text(name.clone())),
                format: extent.kind.map(|kind| kind.name().into()),
                virtual_size: extent.virtual_size,
                cluster_size: extent.grain_size,
                compressed: extent.compressed,
            };
            extents.push(item, name.map_or(0, |name| json_len(name)));
        }
        extents.end("extent description")
    }
}

/// Bytes of JSON of a [`Text`].
fn json_len(text: &[u8]) -> usize {
    let byte_len = |byte: &u8| match byte {
        b'"' | b'\\' | 0x80.. => 2,
        b' '..=0x7f => 1,
        _ => 6,
    };
    text.iter().map(byte_len).sum()
}

/// A list in pieces.
struct Pieces<'a, 'b, T> {
    lists: &'a mut Lists<'b>,
    part: fn(Vec<T>) -> InfoPart,
    piece: Vec<T>,
    length: usize,
}

impl<'a, 'b, T> Pieces<'a, 'b, T> {
    fn new(lists: &'a mut Lists<'b>, part: fn(Vec<T>) -> InfoPart) -> Self {
        Self { lists, part, piece: Vec::new(), length: 0 }
    }

    /// Adds an item with text of `length` bytes in JSON. What is too much is left out, and told in the end.
    fn push(&mut self, item: T, length: usize) {
        let length = length + ITEM_LEN;
        self.lists.total += length;
        if self.lists.total > TOTAL_LEN {
            return;
        }
        if self.length + length > PART_LEN && !self.piece.is_empty() {
            self.flush();
        }
        self.length += length;
        self.piece.push(item);
    }

    fn flush(&mut self) {
        self.lists.tell((self.part)(core::mem::take(&mut self.piece)));
        self.length = 0;
    }

    fn end(mut self, field: &'static str) -> Result<(), Error> {
        if self.lists.total > TOTAL_LEN {
            return Err(Error::new(ErrorKind::Limit, field, "The image has too many to be shown"));
        }
        if !self.piece.is_empty() {
            self.flush();
        }
        Ok(())
    }
}
