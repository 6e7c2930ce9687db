//! The files that an image has beside its own: the parts of a disk that it names, and an external data file.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::{Driver, Image, check_length};
use crate::vmdk::Vmdk;
use crate::{Error, ErrorKind, FileIndex, Storage};

impl<S: Storage> Image<S> {
    /// Names of the files that hold parts of the disk, just as the image has them: any bytes but NUL, the same name
    /// perhaps more than once. They are never to be opened without leave. As long as they are not
    /// [attached](Self::attach), [`extent_at`](Self::extent_at) fails where they hold the disk.
    pub fn references(&self) -> &[Vec<u8>] {
        self.vmdk().map_or(&[], Vmdk::references)
    }

    /// Hands in the files behind [`references`](Self::references), all of them and in that order. Their headers are
    /// read and checked; if that fails, the image stays as it was. Names inside of them are not looked at.
    pub fn attach(&mut self, mut files: Vec<S>) -> Result<(), Error> {
        let needed = self.references().len();
        if files.len() != needed {
            let message = format!("{} files were attached in place of {needed}", files.len());
            return Err(Error::new(ErrorKind::ReferenceDenied, "reference", message));
        }
        check_lengths(&files)?;
        if let Driver::Vmdk(vmdk) = &mut self.driver {
            vmdk.attach(&mut files)?;
        }
        self.attached = files;
        Ok(())
    }

    /// What [`attach`](Self::attach) would find wrong with `files`, which are the first of those that it takes.
    pub fn check_files(&self, files: &mut [S]) -> Result<(), Error> {
        check_lengths(files)?;
        match &self.driver {
            Driver::Vmdk(vmdk) => vmdk.check_files(files),
            _ => Ok(()),
        }
    }

    /// Hands in the external [`data_file`](Self::data_file): [`FileIndex::DATA_FILE`] from now on, its holes being
    /// zeros where `qemu-img` takes them for such. An image that has none refuses it.
    pub fn attach_data_file(&mut self, file: S) -> Result<(), Error> {
        if self.data_file().is_none() {
            let message = "'data-file' can only be set for images with an external data file";
            return Err(Error::new(ErrorKind::InvalidFormat, "incompatible_features", message));
        }
        check_length(&file).map_err(|error| error.in_file(FileIndex::DATA_FILE))?;
        self.attached = vec![file];
        Ok(())
    }
}

fn check_lengths<S: Storage>(files: &[S]) -> Result<(), Error> {
    for (position, file) in files.iter().enumerate() {
        let index = FileIndex::of_reference(position).unwrap_or_default();
        check_length(file).map_err(|error| error.in_file(index))?;
    }
    Ok(())
}
