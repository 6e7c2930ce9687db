//! An open image of any format.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::bochs::Bochs;
use crate::cloop::Cloop;
use crate::luks::Luks;
use crate::parallels::Parallels;
use crate::qcow::Qcow;
use crate::qcow2::{Access, Bitmap, Qcow2};
use crate::qed::Qed;
use crate::raw::Raw;
use crate::vdi::Vdi;
use crate::{Error, ErrorKind, Extent, Format, Storage, probe};

/// The image below this one, as the image names it. The name is the image's word and never to be opened without leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingFile {
    /// File name: any bytes but NUL, at least one.
    pub name: Vec<u8>,
    /// Name of the format, if the image says it: any bytes but NUL.
    pub format: Option<Vec<u8>>,
}

/// The file that holds the data of an image which holds only metadata itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// File name, if the image says it: any bytes but NUL. Never to be opened without leave.
    pub name: Option<Vec<u8>>,
    /// Whether the file is a raw image of the same disk.
    pub raw: bool,
}

/// An image over its storage.
///
/// A walk from 0 that goes on at `start + length` of each extent meets these promises, whatever the bytes are:
/// an extent starts at the offset asked for, is at least 1 byte long, and ends at or before
/// [`virtual_size`](Self::virtual_size); the walk ends, or fails, within [`max_extents`](Self::max_extents) steps
/// over a storage that has no holes.
#[derive(Debug)]
pub struct Image<S> {
    storage: S,
    driver: Driver,
}

#[derive(Debug)]
enum Driver {
    Raw(Raw),
    Qcow2(Box<Qcow2>),
    Qcow(Box<Qcow>),
    Qed(Box<Qed>),
    Vdi(Box<Vdi>),
    Parallels(Box<Parallels>),
    Luks(Luks),
    Bochs(Box<Bochs>),
    Cloop(Box<Cloop>),
}

impl<S: Storage> Image<S> {
    /// Opens an image whose data is to be read: refused without a key if it is encrypted, or if it keeps its data in
    /// a file that it does not name. Without a `format` it is probed.
    pub fn open(storage: S, format: Option<Format>) -> Result<Self, Error> {
        Self::open_for(storage, format, Access::Data)
    }

    /// Opens an image to say what it is, as [`open`](Self::open) does but without what only its data needs.
    pub fn open_metadata(storage: S, format: Option<Format>) -> Result<Self, Error> {
        Self::open_for(storage, format, Access::Metadata)
    }

    fn open_for(mut storage: S, format: Option<Format>, access: Access) -> Result<Self, Error> {
        if storage.len() > i64::MAX as u64 {
            let message = "Could not refresh total sector count: File too large";
            return Err(Error::new(ErrorKind::Limit, "file length", message));
        }
        let format = match format {
            Some(format) => format,
            None => probe(&mut storage)?,
        };
        let driver = match format {
            Format::Raw => Driver::Raw(Raw::open(&storage)?),
            Format::Qcow2 => Driver::Qcow2(Box::new(Qcow2::open(&mut storage, access)?)),
            Format::Qcow => Driver::Qcow(Box::new(Qcow::open(&mut storage, access)?)),
            Format::Qed => Driver::Qed(Box::new(Qed::open(&mut storage)?)),
            Format::Vdi => Driver::Vdi(Box::new(Vdi::open(&mut storage)?)),
            Format::Parallels => Driver::Parallels(Box::new(Parallels::open(&mut storage)?)),
            Format::Luks => Driver::Luks(Luks::open(&mut storage, access)?),
            Format::Bochs => Driver::Bochs(Box::new(Bochs::open(&mut storage)?)),
            Format::Cloop => Driver::Cloop(Box::new(Cloop::open(&mut storage)?)),
        };
        Ok(Self { storage, driver })
    }

    /// The format it was opened as.
    pub fn format(&self) -> Format {
        match self.driver {
            Driver::Raw(_) => Format::Raw,
            Driver::Qcow2(_) => Format::Qcow2,
            Driver::Qcow(_) => Format::Qcow,
            Driver::Qed(_) => Format::Qed,
            Driver::Vdi(_) => Format::Vdi,
            Driver::Parallels(_) => Format::Parallels,
            Driver::Luks(_) => Format::Luks,
            Driver::Bochs(_) => Format::Bochs,
            Driver::Cloop(_) => Format::Cloop,
        }
    }

    /// Size of the virtual disk in bytes, a multiple of 512 below 2^63.
    pub fn virtual_size(&self) -> u64 {
        match &self.driver {
            Driver::Raw(raw) => raw.virtual_size(),
            Driver::Qcow2(qcow2) => qcow2.virtual_size(),
            Driver::Qcow(qcow) => qcow.virtual_size(),
            Driver::Qed(qed) => qed.virtual_size(),
            Driver::Vdi(vdi) => vdi.virtual_size(),
            Driver::Parallels(parallels) => parallels.virtual_size(),
            Driver::Luks(luks) => luks.virtual_size(),
            Driver::Bochs(bochs) => bochs.virtual_size(),
            Driver::Cloop(cloop) => cloop.virtual_size(),
        }
    }

    /// The run of bytes of one kind that begins at `offset`, which is below [`virtual_size`](Self::virtual_size).
    /// The next run may be of the same kind: a run is as long as it cheaply can be, not as long as possible.
    ///
    /// Offsets in the extent are in [`data_file`](Self::data_file) if there is one, else in the image's own file.
    pub fn extent_at(&mut self, offset: u64) -> Result<Extent, Error> {
        if offset >= self.virtual_size() {
            return Err(Error::new(
                ErrorKind::Limit,
                "offset",
                "Offset is beyond the end of the virtual disk",
            ));
        }
        match &mut self.driver {
            Driver::Raw(raw) => raw.extent_at(&mut self.storage, offset),
            Driver::Qcow2(qcow2) => qcow2.extent_at(&mut self.storage, offset),
            Driver::Qcow(qcow) => qcow.extent_at(&mut self.storage, offset),
            Driver::Qed(qed) => qed.extent_at(&mut self.storage, offset),
            Driver::Vdi(vdi) => vdi.extent_at(&mut self.storage, offset),
            Driver::Parallels(parallels) => parallels.extent_at(&mut self.storage, offset),
            Driver::Luks(luks) => Ok(luks.extent_at(offset)),
            Driver::Bochs(bochs) => bochs.extent_at(&mut self.storage, offset),
            Driver::Cloop(cloop) => cloop.extent_at(&mut self.storage, offset),
        }
    }

    /// An upper bound of the number of extents, from the length of the file and the format's own limits; holes of the
    /// file may split extents further.
    pub fn max_extents(&self) -> u64 {
        match &self.driver {
            Driver::Raw(_) => 2,
            Driver::Qcow2(qcow2) => qcow2.max_extents(self.storage.len()),
            Driver::Qcow(qcow) => qcow.max_extents(self.storage.len()),
            Driver::Qed(qed) => qed.max_extents(self.storage.len()),
            Driver::Vdi(vdi) => vdi.max_extents(),
            Driver::Parallels(parallels) => parallels.max_extents(),
            Driver::Luks(_) => 1,
            Driver::Bochs(bochs) => bochs.max_extents(self.storage.len()),
            Driver::Cloop(cloop) => cloop.max_extents(),
        }
    }

    /// Whether `qemu-img` tells data from zeros in this format; where it does not, all is data to it, be it
    /// [`Zero`](crate::ExtentKind::Zero) here or not.
    pub fn status_known(&self) -> bool {
        !matches!(self.driver, Driver::Luks(_) | Driver::Bochs(_) | Driver::Cloop(_))
    }

    /// The image that decides where this one is unallocated.
    pub fn backing(&self) -> Option<&BackingFile> {
        match &self.driver {
            Driver::Qcow2(qcow2) => qcow2.backing(),
            Driver::Qcow(qcow) => qcow.backing(),
            Driver::Qed(qed) => qed.backing(),
            _ => None,
        }
    }

    /// The file with the data, if it is not the image's own.
    pub fn data_file(&self) -> Option<&DataFile> {
        self.qcow2().and_then(Qcow2::data_file)
    }

    /// Whether the data is encrypted. The bytes at an extent's offset are then cipher text.
    pub fn encrypted(&self) -> bool {
        match &self.driver {
            Driver::Qcow2(qcow2) => qcow2.header().crypt_method().is_encrypted(),
            Driver::Qcow(qcow) => qcow.encrypted(),
            Driver::Luks(_) => true,
            _ => false,
        }
    }

    /// Whether the format and its version can store dirty bitmaps.
    pub fn supports_bitmaps(&self) -> bool {
        match &self.driver {
            Driver::Qcow2(qcow2) => qcow2.supports_bitmaps(),
            Driver::Parallels(_) => true,
            _ => false,
        }
    }

    /// The dirty bitmaps stored in the image, inconsistent ones included; those of a Parallels image are not read.
    pub fn bitmaps(&self) -> &[Bitmap] {
        self.qcow2().map_or(&[], Qcow2::bitmaps)
    }

    /// What only qcow2 has, if this is one.
    pub fn qcow2(&self) -> Option<&Qcow2> {
        match &self.driver {
            Driver::Qcow2(qcow2) => Some(qcow2),
            _ => None,
        }
    }

    /// Whether holes of an external [`data_file`](Self::data_file) are to be told apart by the caller, as
    /// `qemu-img` does for preallocated images: each Data extent is then cut by [`Regions::at`](crate::Regions::at)
    /// on that file, and what is zero there is Zero. Holes of the image's own file need no such care.
    pub fn data_file_holes_count(&mut self) -> Result<bool, Error> {
        match &mut self.driver {
            Driver::Qcow2(qcow2) => qcow2.data_file_holes_count(&mut self.storage),
            _ => Ok(false),
        }
    }

    /// The storage the image lies on.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The storage the image lies on, to read what an extent points to.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }
}
