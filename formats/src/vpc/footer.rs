//! Section "Hard Disk Footer Format": what disk it is and how long. At the end of every image, and a copy of it at the
//! start of those that are not fixed.

use alloc::format;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::create::Create;
use super::geometry::Geometry;
use super::{SECTOR, invalid};
use crate::{Error, ErrorKind, Storage};

/// "Cookie".
const COOKIE: &[u8; 8] = b"conectix";
/// "Features": the bit that is always set.
const FEATURES: u32 = 2;
/// "File Format Version": 1.0.
const VERSION: u32 = 1 << 16;
/// "Creator Version" that `qemu-img` writes: 5.3.
const CREATOR_VERSION: u32 = 0x0005_0003;
/// Length of the footer in bytes.
pub(super) const FOOTER_LEN: u64 = 512;
/// Longest disk in sectors: 2040 GiB, the limit of the format's makers and of QEMU.
pub(super) const SECTORS_MAX: u64 = 0xff00_0000;
/// The largest "Disk Geometry" in sectors. A longer disk cannot say its length by its geometry.
pub(super) const GEOMETRY_MAX: u64 = 65535 * 16 * 255;
/// Values of "Creator Application" whose makers take the geometry for the length of the disk; for all others the
/// length is "Current Size".
const GEOMETRY_CREATORS: [&[u8; 4]; 2] = [b"vpc ", b"qemu"];

/// The fields as they lie in the file.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Fields {
    cookie: [u8; 8],
    features: U32,
    version: U32,
    data_offset: U64,
    timestamp: U32,
    creator_app: [u8; 4],
    creator_version: U32,
    creator_os: [u8; 4],
    original_size: U64,
    current_size: U64,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    disk_type: U32,
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

const _: () = assert!(size_of::<Fields>() as u64 == FOOTER_LEN);

/// Whether the first bytes of a file are those of an image that is not fixed. A fixed one cannot be told by its start,
/// and its end is the guest's to write when it is a raw disk.
pub(crate) fn probe(head: &[u8]) -> bool {
    head.starts_with(COOKIE)
}

/// Values of "Disk Type".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskType {
    /// The disk's bytes and a footer.
    Fixed,
    /// Blocks that are there or not.
    Dynamic,
    /// Blocks, parts of which are in a parent image.
    Differencing,
}

/// The footer, checked.
#[derive(Clone, Debug)]
pub struct Footer {
    disk_type: DiskType,
    data_offset: u64,
    virtual_size: u64,
    creator_app: [u8; 4],
    unique_id: [u8; 16],
}

/// Length of the file as QEMU counts it, in whole sectors: so it makes no difference whether a footer is 512 bytes
/// long or, as in old images, 511.
pub(super) fn file_len<S: Storage>(storage: &S) -> u64 {
    storage.len().next_multiple_of(SECTOR)
}

/// The footer at the end of a file that has its copy at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// It is of the same disk.
    Same,
    /// There is none.
    Missing,
    /// It has a wrong checksum.
    Invalid,
    /// It is of another disk: its type, its length or the place of its header is another.
    Differs,
}

impl Footer {
    /// What the footer at the end of the file is to this one.
    pub(super) fn trailer<S: Storage>(&self, storage: &mut S) -> Result<Trailer, Error> {
        let Some(offset) = file_len(storage).checked_sub(FOOTER_LEN) else { return Ok(Trailer::Missing) };
        let fields = read_at(storage, offset)?;
        let disk_type = match fields.disk_type.get() {
            2 => Some(DiskType::Fixed),
            3 => Some(DiskType::Dynamic),
            4 => Some(DiskType::Differencing),
            _ => None,
        };
        let disk = (disk_type, sectors(&fields).saturating_mul(SECTOR), fields.data_offset.get());
        Ok(match () {
            () if fields.cookie != *COOKIE => Trailer::Missing,
            () if disk != (Some(self.disk_type), self.virtual_size, self.data_offset) => Trailer::Differs,
            () if checksum(&fields) != fields.checksum.get() => Trailer::Invalid,
            () => Trailer::Same,
        })
    }

    /// Reads and checks the copy at the start or, if there is none, the footer at the end.
    pub(super) fn read<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let mut fields = read_at(storage, 0)?;
        let at_end = fields.cookie != *COOKIE;
        if at_end {
            let Some(offset) = file_len(storage).checked_sub(FOOTER_LEN) else {
                return Err(invalid("file length", "File too small for a VHD header"));
            };
            fields = read_at(storage, offset)?;
            if fields.cookie != *COOKIE || fields.disk_type.get() != 2 {
                return Err(invalid("cookie", "invalid VPC image"));
            }
        }
        if checksum(&fields) != fields.checksum.get() {
            return Err(invalid("checksum", "Incorrect header checksum"));
        }
        let disk_type = match fields.disk_type.get() {
            2 if at_end => DiskType::Fixed,
            2 => return Err(invalid("disk_type", "Footer of a fixed disk at the start of the file")),
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => {
                let message = format!("Unsupported disk type {other}");
                return Err(Error::new(ErrorKind::Unsupported, "disk_type", message));
            }
        };
        let sectors = sectors(&fields);
        if sectors > SECTORS_MAX {
            return Err(Error::new(ErrorKind::Limit, "current_size", "Disk is larger than 2040 GiB"));
        }
        let virtual_size = sectors * SECTOR;
        if disk_type == DiskType::Fixed && virtual_size > file_len(storage) - FOOTER_LEN {
            let message = "Disk is longer than the file, which has probably been truncated";
            return Err(Error::new(ErrorKind::Corrupt, "current_size", message));
        }
        let Fields { data_offset, creator_app, unique_id, .. } = fields;
        Ok(Self { disk_type, data_offset: data_offset.get(), virtual_size, creator_app, unique_id })
    }

    /// What is wrong with the footer at the end of an image that is not fixed, which was opened by its copy at the start.
    pub(super) fn fault_at_end<S: Storage>(storage: &mut S) -> Result<Option<&'static str>, Error> {
        let copy = read_at(storage, 0)?;
        let end = read_at(storage, file_len(storage).saturating_sub(FOOTER_LEN))?;
        Ok(if end.cookie != *COOKIE {
            Some("there is no footer at the end of the file")
        } else if checksum(&end) != end.checksum.get() {
            Some("checksum of the footer at the end of the file is wrong")
        } else if end.as_bytes() != copy.as_bytes() {
            Some("footer at the end of the file and its copy at the start differ")
        } else {
            None
        })
    }

    /// How the disk is stored.
    pub fn disk_type(&self) -> DiskType {
        self.disk_type
    }

    /// Size of the virtual disk in bytes: whole sectors, at most 2040 GiB.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The program that made the image.
    pub fn creator_app(&self) -> [u8; 4] {
        self.creator_app
    }

    /// What an image whose parent this is knows it by.
    pub fn unique_id(&self) -> [u8; 16] {
        self.unique_id
    }

    /// File offset of the dynamic disk header, not yet checked.
    pub(super) fn data_offset(&self) -> u64 {
        self.data_offset
    }
}

pub(super) fn read_at<S: Storage>(storage: &mut S, offset: u64) -> Result<Fields, Error> {
    let mut fields = Fields::new_zeroed();
    storage.read_at(offset, fields.as_mut_bytes())?;
    Ok(fields)
}

/// What the footer of a new image says.
pub(super) struct New<'a> {
    pub(super) create: &'a Create,
    pub(super) geometry: Geometry,
    /// Of the disk.
    pub(super) sectors: u64,
}

impl New<'_> {
    /// The footer as it lies in the file.
    pub(super) fn fields(&self) -> Fields {
        let Create { fixed, force_size, timestamp, unique_id, .. } = *self.create;
        let mut fields = Fields {
            cookie: *COOKIE,
            features: FEATURES.into(),
            version: VERSION.into(),
            data_offset: if fixed { u64::MAX } else { FOOTER_LEN }.into(),
            timestamp: timestamp.into(),
            creator_app: if force_size { *b"qem2" } else { *b"qemu" },
            creator_version: CREATOR_VERSION.into(),
            creator_os: *b"Wi2k",
            original_size: (self.sectors * SECTOR).into(),
            current_size: (self.sectors * SECTOR).into(),
            cylinders: self.geometry.cylinders.into(),
            heads: self.geometry.heads,
            sectors: self.geometry.sectors,
            disk_type: if fixed { 2 } else { 3 }.into(),
            checksum: U32::ZERO,
            unique_id,
            saved_state: 0,
            reserved: [0; 427],
        };
        fields.checksum = checksum(&fields).into();
        fields
    }
}

/// Field "Checksum": the one's complement of the sum of all bytes but those of the checksum.
fn checksum(fields: &Fields) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    !(sum(fields.as_bytes()) - sum(fields.checksum.as_bytes()))
}

/// Fields "Current Size" and "Disk Geometry": which of the two is the length of the disk.
fn sectors(fields: &Fields) -> u64 {
    let geometry = u64::from(fields.cylinders.get()) * u64::from(fields.heads) * u64::from(fields.sectors);
    if GEOMETRY_CREATORS.contains(&&fields.creator_app) && geometry != GEOMETRY_MAX {
        return geometry;
    }
    fields.current_size.get() / SECTOR
}
