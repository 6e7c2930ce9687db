//! The files that one image lies in: its own and those that it names, as far as they were handed in.

use crate::{Error, ErrorKind, FileIndex, Storage};

/// All files of an image.
pub(crate) struct Files<'a, S> {
    pub(crate) own: &'a mut S,
    /// In the order of the image's references; none at all as long as they were not attached.
    pub(crate) attached: &'a mut [S],
}

impl<S: Storage> Files<'_, S> {
    /// The storage of one of them.
    pub(crate) fn get(&mut self, file: FileIndex) -> Result<&mut S, Error> {
        let Some(position) = file.reference() else { return Ok(self.own) };
        self.attached.get_mut(position).ok_or_else(|| not_attached(file))
    }
}

/// The failure to read what is in a file that was not attached.
pub(crate) fn not_attached(file: FileIndex) -> Error {
    let message = "Data is in another file, which was not attached";
    Error::new(ErrorKind::ReferenceDenied, "reference", message).in_file(file)
}
