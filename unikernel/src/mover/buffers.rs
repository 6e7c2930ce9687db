//! The buffers that data moves in: read into, looked at, and held until they are written.

use alloc::{collections::VecDeque, rc::Rc, vec::Vec};

use formats::{FileIndex, StorageError, write::Writer};

use super::StartWrite;

/// Buffers there are: one that is filled while the others are being written.
const BUFFERS: usize = 5;

/// All buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    free: Vec<Vec<u8>>,
    /// Those that are being written, with the file that was given parts of them last.
    writing: VecDeque<(FileIndex, Rc<Vec<u8>>)>,
}

impl Buffers {
    /// A buffer with room for `length` bytes, as long as it was when it was used last. Waits for one if all are being written.
    pub fn take<T: StartWrite>(
        &mut self,
        length: usize,
        target: &mut dyn Writer<Storage = T>,
    ) -> Result<Vec<u8>, StorageError> {
        loop {
            self.let_go();
            if let Some(buffer) = self.free.pop() {
                return Ok(if buffer.capacity() < length { Vec::with_capacity(length) } else { buffer });
            }
            match self.writing.front() {
                Some((file, _)) if self.writing.len() >= BUFFERS => {
                    target.file(*file).ok_or(StorageError)?.reap(true)?;
                }
                _ => return Ok(Vec::with_capacity(length)),
            }
        }
    }

    /// Takes a buffer back that nothing is written of.
    pub fn give(&mut self, buffer: Vec<u8>) {
        self.free.push(buffer);
    }

    /// Takes a buffer back once its parts are written, the last of them to `file`.
    pub fn give_written(&mut self, file: FileIndex, buffer: Rc<Vec<u8>>) {
        self.writing.push_back((file, buffer));
    }

    /// Frees what is written.
    fn let_go(&mut self) {
        for _ in 0..self.writing.len() {
            let Some((file, buffer)) = self.writing.pop_front() else { return };
            match Rc::try_unwrap(buffer) {
                Ok(buffer) => self.free.push(buffer),
                Err(buffer) => self.writing.push_back((file, buffer)),
            }
        }
    }
}
