//! New images, laid out as `qemu-img create` does.

use alloc::vec::Vec;

use zerocopy::FromZeros;
use zerocopy::big_endian::{U32, U64};

use super::super::header::{
    AUTOCLEAR_DATA_FILE_RAW, COMPATIBLE_LAZY_REFCOUNTS, Fields, INCOMPATIBLE_COMPRESSION,
    INCOMPATIBLE_DATA_FILE, INCOMPATIBLE_EXTENDED_L2, L1_TABLE_MAX, MAGIC, SUBCLUSTERS, TABLE_ENTRY_LEN,
};
use super::super::types::{CLUSTER_BITS_MIN, ClusterBits, Compression, Version};
use super::encrypted::Encryption;
use super::head::HeaderCluster;
use super::map::As;
use super::pages::{Kind, Pages};
use super::space::{Geometry, Space};
use super::{Shape, Writer};
use crate::{BackingFile, Codec, Error, ErrorKind, FileIndex, StorageMut};

/// Most bytes that are reserved at once: `qemu-img`'s longest request.
const REQUEST_MAX: u64 = i32::MAX as u64;

/// What is set aside when an image is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// L2 tables and data clusters as they come, so that the file is long and has holes.
    Metadata,
    /// All data clusters in a row (`falloc`, `full`). That they take disk space is for who has the file to see to.
    Data,
}

/// What a new image is to be.
#[derive(Clone, Debug)]
pub struct Create {
    /// Length of the disk in bytes; rounded up to 512.
    pub size: u64,
    /// Version of the format.
    pub version: Version,
    /// Cluster size.
    pub cluster_bits: ClusterBits,
    /// Width of a refcount in bits: a power of two from 1 to 64, and 16 in version 2.
    pub refcount_bits: u32,
    /// Whether writers may leave refcounts for later. Not in version 2.
    pub lazy_refcounts: bool,
    /// Whether L2 entries tell subclusters apart: clusters of 16 KiB at least. Not in version 2.
    pub extended_l2: bool,
    /// How clusters are compressed; always zlib in version 2.
    pub compression: Compression,
    /// The image below, the name being 1 to 1023 bytes and the name of its format at most 15.
    pub backing: Option<BackingFile>,
    /// Name of the file that has the data. Not in version 2.
    pub data_file: Option<Vec<u8>>,
    /// Whether that file is a raw image of the same disk, for which space is always set aside.
    pub data_file_raw: bool,
    /// What is set aside.
    pub preallocation: Preallocation,
    /// How the data is encrypted.
    pub encryption: Option<Encryption>,
}

impl Create {
    /// A disk of `size` bytes with all that `qemu-img` has as a default.
    pub fn new(size: u64) -> Option<Self> {
        Some(Self {
            size,
            version: Version::V3,
            cluster_bits: ClusterBits::new(16)?,
            refcount_bits: 16,
            lazy_refcounts: false,
            extended_l2: false,
            compression: Compression::Zlib,
            backing: None,
            data_file: None,
            data_file_raw: false,
            preallocation: Preallocation::Off,
            encryption: None,
        })
    }
}

/// Lays out an empty image in `storage`, and opens it for writing. The file is an image once the writer has
/// [finished](crate::write::Writer::finish).
///
/// `data_file` is there if [`Create::data_file`] is. Both are empty, or what is in them is of no use. `unsupported` is a
/// combination that the format does not have, `limit` a disk that is too large for its clusters; messages are `qemu-img`'s.
pub fn create<S: StorageMut>(
    mut storage: S,
    data_file: Option<S>,
    options: &Create,
) -> Result<Writer<S>, Error> {
    let shape = options.shape()?;
    let l1_entries = shape.size.div_ceil(1 << (shape.cluster_bits + shape.l2_bits()));
    if l1_entries * TABLE_ENTRY_LEN > L1_TABLE_MAX {
        let message = "The image size is too large for file format 'qcow2' (try using a larger cluster size)";
        return Err(Error::new(ErrorKind::Limit, "size", message));
    }
    let geometry = Geometry {
        cluster_bits: shape.cluster_bits,
        refcount_order: options.refcount_bits.trailing_zeros(),
        compressed_end: 1 << shape.sectors_shift(),
    };
    let pages = Pages::new(shape.cluster(), false);
    let mut space = Space::new(pages, geometry, 1..2, u64::MAX >> shape.cluster_bits);
    space.lay_out(&mut storage)?;
    let mut writer = Writer {
        storage,
        data_file,
        shape: Shape { slice: 1 << shape.l2_bits(), ..shape },
        space,
        l1_offset: 0,
        l1_entries,
        table: None,
        end: 3 * shape.cluster(),
        // What has a place already is noise when it is decrypted.
        untouched: match options.encryption {
            Some(_) if options.preallocation != Preallocation::Off => shape.size,
            _ if shape.has_backing => shape.size,
            _ => 0,
        },
        head: Some(options.head(&shape)),
        bitmaps: Vec::new(),
        directory: (0, Vec::new()),
        cipher: options.encryption.as_ref().map(Encryption::cipher).transpose()?,
    };
    // A name that does not fit is told before anything is written.
    writer.head.as_ref().map_or(Ok(()), |head| head.bytes(shape.cluster()).map(|_| ()))?;
    writer.make_l1()?;
    writer.preallocate(options)?;
    if let Some(Encryption::Luks(header)) = &options.encryption {
        writer.put_luks(header)?;
    }
    writer.shape.slice = shape.slice;
    Ok(writer)
}

impl Create {
    fn shape(&self) -> Result<Shape, Error> {
        let unsupported =
            |field, message: &'static str| Err(Error::new(ErrorKind::Unsupported, field, message));
        let order = self.refcount_bits.trailing_zeros();
        if !self.refcount_bits.is_power_of_two() || order > 6 {
            let message = "Refcount width must be a power of two and may not exceed 64 bits";
            return unsupported("refcount_order", message);
        }
        let v2 = self.version == Version::V2;
        if v2 && self.refcount_bits != 16 {
            let message = "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)";
            return unsupported("refcount_order", message);
        }
        if v2 && self.lazy_refcounts {
            let message = "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)";
            return unsupported("compatible_features", message);
        }
        if v2 && self.data_file.is_some() {
            let message = "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)";
            return unsupported("incompatible_features", message);
        }
        if v2 && self.extended_l2 {
            let message = "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)";
            return unsupported("incompatible_features", message);
        }
        if v2 && self.compression != Compression::Zlib {
            let message = "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)";
            return unsupported("compression_type", message);
        }
        if self.data_file_raw && self.data_file.is_none() {
            return unsupported("autoclear_features", "data-file-raw requires data-file");
        }
        if self.backing.is_some() && self.data_file_raw {
            let message = "Backing file and data-file-raw cannot be used at the same time";
            return unsupported("autoclear_features", message);
        }
        let cluster = self.cluster_bits.size();
        if self.extended_l2 && cluster / u64::from(SUBCLUSTERS) < 1 << CLUSTER_BITS_MIN {
            let message = "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes";
            return unsupported("cluster_bits", message);
        }
        let size = self.size.checked_next_multiple_of(512).filter(|&size| size <= i64::MAX as u64);
        let Some(size) = size else {
            let message =
                "The image size is too large for file format 'qcow2' (try using a larger cluster size)";
            return Err(Error::new(ErrorKind::Limit, "size", message));
        };
        let entry_len = if self.extended_l2 { 16 } else { 8 };
        let codec = match self.compression {
            _ if self.data_file.is_some() || self.encryption.is_some() => None,
            Compression::Zlib => Some(Codec::Deflate),
            Compression::Zstd => Some(Codec::Zstd),
        };
        let shape = Shape {
            cluster_bits: self.cluster_bits.get(),
            entry_len,
            size,
            slice: 0,
            has_zero_clusters: !v2,
            has_backing: self.backing.is_some(),
            data_file: self.data_file.is_some(),
            data_file_raw: self.data_file_raw,
            codec,
        };
        Ok(Shape { slice: shape.slice_for(), ..shape })
    }

    /// The header cluster, but for the tables.
    fn head(&self, shape: &Shape) -> HeaderCluster {
        let zstd = self.compression == Compression::Zstd;
        let feature = |is: bool, bit: u64| if is { bit } else { 0 };
        let mut fields = Fields::new_zeroed();
        fields.magic = U32::new(MAGIC);
        fields.version = U32::new(if self.version == Version::V2 { 2 } else { 3 });
        fields.cluster_bits = U32::new(shape.cluster_bits);
        fields.size = U64::new(shape.size);
        fields.crypt_method = U32::new(self.encryption.as_ref().map_or(0, Encryption::method));
        fields.incompatible_features = U64::new(
            feature(shape.data_file, INCOMPATIBLE_DATA_FILE)
                | feature(zstd, INCOMPATIBLE_COMPRESSION)
                | feature(self.extended_l2, INCOMPATIBLE_EXTENDED_L2),
        );
        fields.compatible_features = U64::new(feature(self.lazy_refcounts, COMPATIBLE_LAZY_REFCOUNTS));
        fields.autoclear_features = U64::new(feature(self.data_file_raw, AUTOCLEAR_DATA_FILE_RAW));
        fields.refcount_order = U32::new(self.refcount_bits.trailing_zeros());
        fields.compression_type = u8::from(zstd);
        HeaderCluster {
            version: self.version,
            fields,
            backing: self.backing.as_ref().map(|backing| backing.name.clone()),
            backing_format: self.backing.as_ref().and_then(|backing| backing.format.clone()),
            data_file: self.data_file.clone(),
            crypto: None,
            bitmaps: None,
        }
    }
}

impl<S: StorageMut> Writer<S> {
    fn make_l1(&mut self) -> Result<(), Error> {
        let length = self.l1_entries * TABLE_ENTRY_LEN;
        if length > 0 {
            let clusters = length.div_ceil(self.shape.cluster());
            self.l1_offset = self.space.allocate(&mut self.storage, clusters)?;
            self.space.pages.l1_end = self.l1_offset + length;
            self.space.pages.begin(&mut self.storage, Kind::L1, self.l1_offset, length)?;
            self.end = self.end.max(self.l1_offset + length);
        }
        if let Some(head) = &mut self.head {
            head.fields.l1_table_offset = U64::new(self.l1_offset);
            head.fields.l1_size = U32::new(u32::try_from(self.l1_entries).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn preallocate(&mut self, options: &Create) -> Result<(), Error> {
        let size = self.shape.size;
        match options.preallocation {
            Preallocation::Off if !options.data_file_raw => {}
            Preallocation::Data if !self.shape.data_file => self.set_data_aside()?,
            _ => {
                let most = REQUEST_MAX - REQUEST_MAX % self.shape.cluster();
                let mut at = 0;
                while at < size {
                    at += self.place(at, size.min(at + most), As::Reserve)?.length;
                }
            }
        }
        let Some(data_file) = &mut self.data_file else { return Ok(()) };
        let length = match options.preallocation {
            Preallocation::Off if !options.data_file_raw => size,
            _ => size.next_multiple_of(self.shape.subcluster()),
        };
        if self.shape.data_file && data_file.len() < length {
            data_file.set_length(length).map_err(|error| Error::from(error).in_file(FileIndex::DATA_FILE))?;
        }
        Ok(())
    }

    /// All data clusters behind a refcount table that counts them and the L2 tables, then the L2 tables.
    fn set_data_aside(&mut self) -> Result<(), Error> {
        let (cluster_len, bits) = (self.shape.cluster(), self.shape.cluster_bits);
        let clusters = self.shape.size.div_ceil(cluster_len);
        let tables = self.shape.size.div_ceil(1 << (bits + self.shape.l2_bits()));
        let end = self.end.next_multiple_of(cluster_len);
        let start = self.space.make_table_for(&mut self.storage, end, clusters + tables + 1)?;
        self.space.allocate_at(&mut self.storage, start, clusters)?;
        self.end = self.end.max(start + (clusters << bits));
        let mut at = 0;
        while at < self.shape.size {
            let entry = self.entry_for_writing(at >> bits)?;
            let stop = self
                .shape
                .size
                .min(((at >> (bits + self.shape.l2_bits())) + 1) << (bits + self.shape.l2_bits()));
            self.link(entry, (at, stop), start + at, As::Reserve)?;
            at = stop;
        }
        Ok(())
    }
}
