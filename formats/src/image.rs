//! An open image of any format.

mod attach;
mod check;
mod info;
mod inspect;
mod lineage;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::access::{Access, OpenOptions};
use crate::bochs::Bochs;
use crate::cloop::Cloop;
use crate::content::Decoded;
use crate::crypto::SECTOR;
use crate::dmg::Dmg;
use crate::files::Files;
use crate::luks::Luks;
use crate::parallels::Parallels;
use crate::qcow::Qcow;
use crate::qcow2::{Bitmap, Compression, CryptMethod, Qcow2};
use crate::qed::Qed;
use crate::raw::Raw;
use crate::vdi::Vdi;
use crate::vhdx::Vhdx;
use crate::vmdk::Vmdk;
use crate::vpc::{DynamicHeader, Vpc};
use crate::{Codec, Error, ErrorKind, Extent, ExtentKind, FileIndex, Format, Storage, Stream, probe};

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

/// An image over its storage, and over the storages of the files it names, once they were attached.
///
/// A walk from 0 that goes on at `start + length` of each extent meets these promises, whatever the bytes are:
/// an extent starts at the offset asked for, is at least 1 byte long, and ends at or before
/// [`virtual_size`](Self::virtual_size); the walk ends, or fails, within [`max_extents`](Self::max_extents) steps
/// over a storage that has no holes.
#[derive(Debug)]
pub struct Image<S> {
    storage: S,
    attached: Vec<S>,
    driver: Driver,
    decoded: Decoded,
}

#[derive(Debug)]
enum Driver {
    Raw(Raw),
    Qcow2(Box<Qcow2>),
    Vpc(Box<Vpc>),
    Vhdx(Box<Vhdx>),
    Vmdk(Box<Vmdk>),
    Qcow(Box<Qcow>),
    Qed(Box<Qed>),
    Vdi(Box<Vdi>),
    Parallels(Box<Parallels>),
    Luks(Luks),
    Bochs(Box<Bochs>),
    Cloop(Box<Cloop>),
    Dmg(Box<Dmg>),
}

impl<S: Storage> Image<S> {
    /// Opens an image whose data is to be read, without a key: refused if it is encrypted. Without a `format` it is
    /// probed.
    pub fn open(storage: S, format: Option<Format>) -> Result<Self, Error> {
        Self::open_with(storage, OpenOptions { format, ..OpenOptions::default() })
    }

    /// Opens an image to say what it is, as [`open`](Self::open) does but without what only its data needs.
    pub fn open_metadata(storage: S, format: Option<Format>) -> Result<Self, Error> {
        Self::open_with(storage, OpenOptions { format, access: Access::Metadata, encryption: None })
    }

    /// Opens a part of a file as a raw image: from `offset` on, `size` bytes or up to the end of the file.
    pub fn open_window(storage: S, offset: u64, size: Option<u64>) -> Result<Self, Error> {
        check_length(&storage)?;
        let driver = Driver::Raw(Raw::open_window(&storage, offset, size)?);
        Ok(Self { storage, attached: Vec::new(), driver, decoded: Decoded::default() })
    }

    /// Opens an image. With a password this can take minutes of computing, but not without end.
    pub fn open_with(mut storage: S, options: OpenOptions<'_>) -> Result<Self, Error> {
        check_length(&storage)?;
        let OpenOptions { format, access, encryption } = options;
        let format = match format {
            Some(format) => format,
            None => probe(&mut storage)?,
        };
        let driver = match format {
            Format::Raw => Driver::Raw(Raw::open(&storage)?),
            Format::Qcow2 => Driver::Qcow2(Box::new(Qcow2::open(&mut storage, access, encryption)?)),
            Format::Vpc => Driver::Vpc(Box::new(Vpc::open(&mut storage, access)?)),
            Format::Vhdx => Driver::Vhdx(Box::new(Vhdx::open(&mut storage, access)?)),
            Format::Vmdk => Driver::Vmdk(Box::new(Vmdk::open(&mut storage)?)),
            Format::Qcow => Driver::Qcow(Box::new(Qcow::open(&mut storage, access, encryption)?)),
            Format::Qed => Driver::Qed(Box::new(Qed::open(&mut storage)?)),
            Format::Vdi => Driver::Vdi(Box::new(Vdi::open(&mut storage)?)),
            Format::Parallels => Driver::Parallels(Box::new(Parallels::open(&mut storage)?)),
            Format::Luks => Driver::Luks(Luks::open(&mut storage, access)?),
            Format::Bochs => Driver::Bochs(Box::new(Bochs::open(&mut storage)?)),
            Format::Cloop => Driver::Cloop(Box::new(Cloop::open(&mut storage)?)),
            Format::Dmg => Driver::Dmg(Box::new(Dmg::open(&mut storage)?)),
        };
        Ok(Self { storage, attached: Vec::new(), driver, decoded: Decoded::default() })
    }

    /// The format it was opened as.
    pub fn format(&self) -> Format {
        match self.driver {
            Driver::Raw(_) => Format::Raw,
            Driver::Qcow2(_) => Format::Qcow2,
            Driver::Vpc(_) => Format::Vpc,
            Driver::Vhdx(_) => Format::Vhdx,
            Driver::Vmdk(_) => Format::Vmdk,
            Driver::Qcow(_) => Format::Qcow,
            Driver::Qed(_) => Format::Qed,
            Driver::Vdi(_) => Format::Vdi,
            Driver::Parallels(_) => Format::Parallels,
            Driver::Luks(_) => Format::Luks,
            Driver::Bochs(_) => Format::Bochs,
            Driver::Cloop(_) => Format::Cloop,
            Driver::Dmg(_) => Format::Dmg,
        }
    }

    /// Size of the virtual disk in bytes, a multiple of 512 below 2^63. Parts of the disk that are in files not yet
    /// attached count as the image itself has it; their own headers may say otherwise.
    pub fn virtual_size(&self) -> u64 {
        match &self.driver {
            Driver::Raw(raw) => raw.virtual_size(),
            Driver::Qcow2(qcow2) => qcow2.virtual_size(),
            Driver::Vpc(vpc) => vpc.virtual_size(),
            Driver::Vhdx(vhdx) => vhdx.virtual_size(),
            Driver::Vmdk(vmdk) => vmdk.virtual_size(),
            Driver::Qcow(qcow) => qcow.virtual_size(),
            Driver::Qed(qed) => qed.virtual_size(),
            Driver::Vdi(vdi) => vdi.virtual_size(),
            Driver::Parallels(parallels) => parallels.virtual_size(),
            Driver::Luks(luks) => luks.virtual_size(),
            Driver::Bochs(bochs) => bochs.virtual_size(),
            Driver::Cloop(cloop) => cloop.virtual_size(),
            Driver::Dmg(dmg) => dmg.virtual_size(),
        }
    }

    /// The run of bytes of one kind that begins at `offset`, which is below [`virtual_size`](Self::virtual_size).
    /// The next run may be of the same kind: a run is as long as it cheaply can be, not as long as possible.
    ///
    /// Offsets in the extent are those of [`Extent::file`].
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
            Driver::Qcow2(qcow2) => qcow2.extent_at(&mut self.storage, self.attached.first_mut(), offset),
            Driver::Vpc(vpc) => vpc.extent_at(&mut self.storage, offset),
            Driver::Vhdx(vhdx) => vhdx.extent_at(&mut self.storage, offset),
            Driver::Vmdk(vmdk) => {
                let mut files = Files { own: &mut self.storage, attached: &mut self.attached };
                vmdk.extent_at(&mut files, offset)
            }
            Driver::Qcow(qcow) => qcow.extent_at(&mut self.storage, offset),
            Driver::Qed(qed) => qed.extent_at(&mut self.storage, offset),
            Driver::Vdi(vdi) => vdi.extent_at(&mut self.storage, offset),
            Driver::Parallels(parallels) => parallels.extent_at(&mut self.storage, offset),
            Driver::Luks(luks) => Ok(luks.extent_at(offset)),
            Driver::Bochs(bochs) => bochs.extent_at(&mut self.storage, offset),
            Driver::Cloop(cloop) => cloop.extent_at(&mut self.storage, offset),
            Driver::Dmg(dmg) => dmg.extent_at(&mut self.storage, offset),
        }
    }

    /// What it takes to decode an extent that [`extent_at`](Self::extent_at) gave, if that is compressed.
    pub fn stream(&mut self, extent: &Extent) -> Result<Option<Stream>, Error> {
        let ExtentKind::Compressed { offset, length } = extent.kind else { return Ok(None) };
        match &self.driver {
            Driver::Qcow2(qcow2) => {
                let cluster_len = qcow2.header().cluster_bits().size();
                let codec = match qcow2.header().compression_type() {
                    Compression::Zlib => Codec::Deflate,
                    Compression::Zstd => Codec::Zstd,
                };
                let skip = extent.start % cluster_len;
                Ok(Some(Stream { file: extent.file, offset, length, codec, cluster_len, skip }))
            }
            Driver::Vmdk(vmdk) => {
                let mut files = Files { own: &mut self.storage, attached: &mut self.attached };
                vmdk.stream(&mut files, extent, offset).map(Some)
            }
            Driver::Qcow(qcow) => Ok(Some(Stream {
                file: extent.file,
                offset,
                length,
                codec: Codec::Deflate,
                cluster_len: qcow.cluster_len(),
                skip: extent.start % qcow.cluster_len(),
            })),
            Driver::Dmg(dmg) => dmg.stream(extent),
            _ => Ok(None),
        }
    }

    /// An upper bound of the number of extents, from the length of the file and the format's own limits; holes of the
    /// file may split extents further.
    pub fn max_extents(&self) -> u64 {
        match &self.driver {
            Driver::Raw(_) => 2,
            Driver::Qcow2(qcow2) => qcow2.max_extents(self.storage.len()),
            Driver::Vpc(vpc) => vpc.max_extents(self.storage.len()),
            Driver::Vhdx(vhdx) => vhdx.max_extents(),
            Driver::Vmdk(vmdk) => vmdk.max_extents(|file| self.file(file).map_or(0, Storage::len)),
            Driver::Qcow(qcow) => qcow.max_extents(self.storage.len()),
            Driver::Qed(qed) => qed.max_extents(self.storage.len()),
            Driver::Vdi(vdi) => vdi.max_extents(),
            Driver::Parallels(parallels) => parallels.max_extents(),
            Driver::Luks(_) => 1,
            Driver::Bochs(bochs) => bochs.max_extents(self.storage.len()),
            Driver::Cloop(cloop) => cloop.max_extents(),
            Driver::Dmg(dmg) => dmg.max_extents(),
        }
    }

    /// The image that decides where this one is unallocated.
    pub fn backing(&self) -> Option<&BackingFile> {
        match &self.driver {
            Driver::Qcow2(qcow2) => qcow2.backing(),
            Driver::Qcow(qcow) => qcow.backing(),
            Driver::Qed(qed) => qed.backing(),
            Driver::Vpc(vpc) => vpc.backing(),
            Driver::Vhdx(vhdx) => vhdx.backing(),
            Driver::Vmdk(vmdk) => vmdk.backing(),
            _ => None,
        }
    }

    /// The file with the data, if it is not the image's own.
    pub fn data_file(&self) -> Option<&DataFile> {
        self.qcow2().and_then(Qcow2::data_file)
    }

    /// Whether the data is encrypted. The bytes at a Data extent's offset are then cipher text, for
    /// [`decrypt`](Self::decrypt) to turn into what the disk holds; compressed ones are not encrypted.
    pub fn encrypted(&self) -> bool {
        match &self.driver {
            Driver::Qcow2(qcow2) => qcow2.header().crypt_method().is_encrypted(),
            Driver::Qcow(qcow) => qcow.encrypted(),
            Driver::Luks(_) => true,
            _ => false,
        }
    }

    /// Decrypts in place what was read of a Data extent, `within` bytes from its start on. In images that are not
    /// encrypted that is what the disk holds already, and stays as it is.
    ///
    /// Encrypted data is read in whole sectors of 512 bytes of the disk, or refused.
    pub fn decrypt(&self, extent: &Extent, within: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let ExtentKind::Data { offset } = extent.kind else { return Ok(()) };
        let (decryptor, base) = match &self.driver {
            _ if !self.encrypted() => return Ok(()),
            Driver::Luks(luks) => (luks.decryptor(), extent.start),
            Driver::Qcow(qcow) => (qcow.decryptor(), extent.start),
            Driver::Qcow2(qcow2) if qcow2.header().crypt_method() == CryptMethod::Luks => {
                (qcow2.decryptor(), offset)
            }
            Driver::Qcow2(qcow2) => (qcow2.decryptor(), extent.start),
            _ => (None, 0),
        };
        let decryptor = decryptor
            .ok_or_else(|| Error::new(ErrorKind::Key, "key-secret", "The image was opened without a key"))?;
        let sector_len = SECTOR as u64;
        let position = base.checked_add(within).filter(|position| position.is_multiple_of(sector_len));
        match position {
            Some(position) if buffer.len().is_multiple_of(SECTOR) => {
                decryptor.decrypt(position / sector_len, buffer);
                Ok(())
            }
            _ => {
                let message = "Encrypted data is read in whole sectors";
                Err(Error::new(ErrorKind::Limit, "offset", message))
            }
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

    /// What only VMDK has, if this is one.
    pub fn vmdk(&self) -> Option<&Vmdk> {
        match &self.driver {
            Driver::Vmdk(vmdk) => Some(vmdk),
            _ => None,
        }
    }

    /// What only VHD has, if this is one.
    pub fn vpc(&self) -> Option<&Vpc> {
        match &self.driver {
            Driver::Vpc(vpc) => Some(vpc),
            _ => None,
        }
    }

    /// What only VHDX has, if this is one.
    pub fn vhdx(&self) -> Option<&Vhdx> {
        match &self.driver {
            Driver::Vhdx(vhdx) => Some(vhdx),
            _ => None,
        }
    }

    /// Whether `qemu-img` asks images of this format which parts of the disk are data. Of the others it counts the
    /// whole disk as data in `measure` and shows it so in `map`, though this mapping knows better.
    pub fn reports_block_status(&self) -> bool {
        !matches!(
            self.driver,
            Driver::Vhdx(_) | Driver::Luks(_) | Driver::Bochs(_) | Driver::Cloop(_) | Driver::Dmg(_)
        )
    }

    /// The storage of one of the image's files, if it was attached.
    pub fn file(&self, file: FileIndex) -> Option<&S> {
        match file.reference() {
            None => Some(&self.storage),
            Some(position) => self.attached.get(position),
        }
    }

    /// The storage of one of the image's files, to read what an extent points to.
    pub fn file_mut(&mut self, file: FileIndex) -> Option<&mut S> {
        match file.reference() {
            None => Some(&mut self.storage),
            Some(position) => self.attached.get_mut(position),
        }
    }

    /// Length in bytes of a cluster, block or grain, in images that have such; of a VMDK those of its first part.
    pub(crate) fn cluster_len(&self) -> Option<u64> {
        match &self.driver {
            Driver::Raw(_) | Driver::Luks(_) | Driver::Bochs(_) | Driver::Cloop(_) | Driver::Dmg(_) => None,
            Driver::Qcow2(qcow2) => Some(qcow2.header().cluster_bits().size()),
            Driver::Vpc(vpc) => vpc.dynamic_header().map(DynamicHeader::block_size),
            Driver::Vhdx(vhdx) => Some(vhdx.metadata().block_size()),
            Driver::Vmdk(vmdk) => vmdk.extents().next().and_then(|extent| extent.grain_size),
            Driver::Qcow(qcow) => Some(qcow.cluster_len()),
            Driver::Qed(qed) => Some(qed.cluster_len()),
            Driver::Vdi(vdi) => Some(vdi.block_len()),
            Driver::Parallels(parallels) => Some(parallels.cluster_len()),
        }
    }

    /// Bytes of the disk that a table of the second level of a QED image covers.
    pub(crate) fn table_coverage(&self) -> Option<u64> {
        match &self.driver {
            Driver::Qed(qed) => Some(qed.table_coverage()),
            _ => None,
        }
    }

    /// The compressed cluster that was read last.
    pub(crate) fn decoded(&mut self) -> &mut Decoded {
        &mut self.decoded
    }

    /// The storage the image lies on.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The storage the image lies on, to read what an extent points to.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Gives the image's own storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }
}

/// The length of a file is a signed 64-bit number to `qemu-img`.
fn check_length<S: Storage>(storage: &S) -> Result<(), Error> {
    if storage.len() > i64::MAX as u64 {
        let message = "Could not refresh total sector count: File too large";
        return Err(Error::new(ErrorKind::Limit, "file length", message));
    }
    Ok(())
}
