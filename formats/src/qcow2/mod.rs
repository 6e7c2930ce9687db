//! qcow2, versions 2 and 3. Section names in comments are those of the qcow2 specification
//! (QEMU's `docs/interop/qcow2.rst`); checks come in `qemu-img`'s order and in its words, so that the first fault found
//! is the one it finds.

mod areas;
mod bitmaps;
mod bits;
mod check;
mod entry;
mod extensions;
mod header;
mod l1;
mod l2;
mod refcount;
mod snapshots;
mod types;
mod walk;
mod write;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

pub use bitmaps::Bitmap;
pub use header::Header;
pub use snapshots::{Snapshot, SnapshotName};
pub use types::{ClusterBits, Compression, CryptMethod, Version};
pub use write::{Create, Encryption, Preallocation, Writer, create, open};

use crate::access::{Access, check_encryption};
use crate::area::Visit;
use crate::crypto::DiskCipher;
use crate::luks::{Area, LuksInfo};
use crate::qcow::aes;
use crate::reader::{Reader, c_string};
use crate::{BackingFile, DataFile, Error, ErrorKind, Extent, Storage};
use extensions::{BitmapDirectory, Extensions};
use l1::TablePlace;
use walk::Walk;

pub(crate) use header::probe;

/// Longest backing file name in bytes. Section "Header", `backing_file_size`.
const BACKING_NAME_MAX: u32 = 1023;

/// An open qcow2 image.
#[derive(Debug)]
pub struct Qcow2 {
    header: Header,
    backing: Option<BackingFile>,
    data_file: Option<DataFile>,
    data_file_name: Option<Vec<u8>>,
    bitmaps: Vec<Bitmap>,
    stale_bitmaps: bool,
    /// Where the directory of the bitmaps is, if there are any.
    bitmap_directory: Option<BitmapDirectory>,
    luks: Option<LuksInfo>,
    /// Where the LUKS header is, if there is one.
    luks_area: Option<Area>,
    decryptor: Option<DiskCipher>,
    walk: Walk,
}

impl Qcow2 {
    pub(crate) fn open<S: Storage>(
        storage: &mut S,
        access: Access<'_>,
        encryption: Option<&str>,
    ) -> Result<Self, Error> {
        let mut reader = Reader::new(storage);
        let header = Header::read(&mut reader, access)?;
        check_encryption(header.crypt_method().name(), encryption)?;
        let mut extensions = Extensions::read(&mut reader, &header, access)?;
        let data_file = data_file(&header, &extensions, access)?;
        let luks_area = extensions.encryption.as_ref().map(|encryption| encryption.area);
        let luks = extensions.encryption.as_ref().map(|encryption| encryption.info.clone());
        let decryptor = decryptor(&header, &mut extensions, access)?;
        let backing = backing_file(&mut reader, &header, &extensions)?;
        if !matches!(access, Access::Check) {
            snapshots::check(&mut reader, &header)?;
        }
        let bitmaps = match &extensions.bitmaps {
            Some(directory) => bitmaps::read(&mut reader, &header, directory)?,
            None => Vec::new(),
        };
        header.check_disk_length()?;
        let walk = Walk::new(&header, TablePlace::active(&header));
        let stale_bitmaps = extensions.stale_bitmaps;
        let data_file_name = extensions.data_file;
        Ok(Self {
            header,
            backing,
            data_file,
            data_file_name,
            bitmaps,
            stale_bitmaps,
            bitmap_directory: extensions.bitmaps,
            luks,
            luks_area,
            decryptor,
            walk,
        })
    }

    /// The header, checked.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the image has bitmaps that its data went on without, so that they are not looked at.
    pub fn has_stale_bitmaps(&self) -> bool {
        self.stale_bitmaps
    }

    /// The name that the image has for a file with its data, even if it has all of it itself: any bytes but NUL.
    pub fn data_file_name(&self) -> Option<&[u8]> {
        self.data_file_name.as_deref()
    }

    /// What decrypts the data, if it is encrypted and the image was opened with a key. Sectors are those of the disk
    /// with [`CryptMethod::Aes`], and those of the file that they lie in with [`CryptMethod::Luks`].
    pub(crate) fn decryptor(&self) -> Option<&DiskCipher> {
        self.decryptor.as_ref()
    }

    /// What the LUKS header says, if there is one.
    pub(crate) fn luks(&self) -> Option<&LuksInfo> {
        self.luks.as_ref()
    }

    /// Hands each internal snapshot to `visit`.
    pub(crate) fn visit_snapshots<S: Storage>(
        &self,
        storage: &mut S,
        visit: impl FnMut(Snapshot),
    ) -> Result<(), Error> {
        snapshots::visit(&mut Reader::new(storage), &self.header, visit)
    }

    /// Visits the image's metadata.
    pub(crate) fn visit_areas<S: Storage>(
        &self,
        storage: &mut S,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        areas::visit(storage, &self.header, visit)
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.header.virtual_size()
    }

    pub(crate) fn backing(&self) -> Option<&BackingFile> {
        self.backing.as_ref()
    }

    pub(crate) fn data_file(&self) -> Option<&DataFile> {
        self.data_file.as_ref()
    }

    pub(crate) fn bitmaps(&self) -> &[Bitmap] {
        &self.bitmaps
    }

    /// Hands the parts of the disk that the bitmap of this name has bits set for to `visit`, or says that there is none such.
    pub(crate) fn visit_bitmap<S: Storage>(
        &self,
        storage: &mut S,
        name: &[u8],
        visit: &mut dyn FnMut(Range<u64>),
    ) -> Result<bool, Error> {
        let bitmap = self.bitmaps.iter().find(|bitmap| bitmap.name == name && !bitmap.shadowed);
        let Some(bitmap) = bitmap else { return Ok(false) };
        bits::visit(storage, &self.header, bitmap, visit).map(|()| true)
    }

    pub(crate) fn supports_bitmaps(&self) -> bool {
        self.header.version() == Version::V3
    }

    pub(crate) fn max_extents(&self, file_len: u64) -> u64 {
        self.walk.max_extents(&self.header, file_len)
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size); `data_file` is the external data file, if there is one
    /// and it was attached.
    pub(crate) fn extent_at<S: Storage>(
        &mut self,
        storage: &mut S,
        data_file: Option<&mut S>,
        offset: u64,
    ) -> Result<Extent, Error> {
        self.walk.extent_at(storage, data_file, &self.header, offset)
    }

    /// Maps the disk as it was when an internal snapshot was made, or says that there is none such. The length of the
    /// disk stays.
    pub(crate) fn load_snapshot<S: Storage>(
        &mut self,
        storage: &mut S,
        wanted: SnapshotName<'_>,
    ) -> Result<bool, Error> {
        let Some(l1) = snapshots::find(&mut Reader::new(storage), &self.header, wanted)? else {
            return Ok(false);
        };
        self.walk = Walk::new(&self.header, l1);
        Ok(true)
    }
}

/// Section "Header", incompatible feature bit 2 and autoclear feature bit 1.
fn data_file(
    header: &Header,
    extensions: &Extensions,
    access: Access<'_>,
) -> Result<Option<DataFile>, Error> {
    if header.has_data_file() {
        let name = extensions.data_file.clone().filter(|name| !name.is_empty());
        return Ok(Some(DataFile { name, raw: header.data_file_raw() }));
    }
    if header.data_file_raw() && matches!(access, Access::Data(_)) {
        let message = "data-file-raw requires a data file";
        return Err(Error::new(ErrorKind::InvalidFormat, "autoclear_features", message));
    }
    Ok(None)
}

/// What decrypts the data. A LUKS image without its extension is no image at all.
fn decryptor(
    header: &Header,
    extensions: &mut Extensions,
    access: Access<'_>,
) -> Result<Option<DiskCipher>, Error> {
    match (header.crypt_method(), access) {
        (CryptMethod::None, _) | (CryptMethod::Aes, Access::Metadata | Access::Check) => Ok(None),
        (CryptMethod::Aes, Access::Data(key)) => aes::decryptor(key).map(Some),
        (CryptMethod::Luks, _) => match extensions.encryption.take() {
            Some(encryption) => Ok(encryption.decryptor),
            None => {
                let message = "Missing CRYPTO header for crypt method 2";
                Err(Error::new(ErrorKind::InvalidFormat, "crypt_method", message))
            }
        },
    }
}

/// Section "Header", `backing_file_offset` and `backing_file_size`.
fn backing_file<S: Storage>(
    reader: &mut Reader<'_, S>,
    header: &Header,
    extensions: &Extensions,
) -> Result<Option<BackingFile>, Error> {
    let Some((offset, size)) = header.backing_name() else { return Ok(None) };
    let room = header.cluster_bits().size().saturating_sub(offset);
    let length = usize::try_from(size).ok().filter(|_| size <= BACKING_NAME_MAX && u64::from(size) <= room);
    let Some(length) = length else {
        return Err(Error::new(ErrorKind::InvalidFormat, "backing_file_size", "Backing file name too long"));
    };
    reader.seek(offset);
    let name = c_string(reader.bytes(length)?);
    if name.is_empty() {
        return Ok(None);
    }
    Ok(Some(BackingFile { name, format: extensions.backing_format.clone() }))
}

/// A number as C's `%#x` prints it: zero has no prefix.
fn hex(value: u64) -> String {
    if value == 0 { value.to_string() } else { format!("{value:#x}") }
}
