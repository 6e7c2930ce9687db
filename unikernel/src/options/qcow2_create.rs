//! The options of a new qcow2 image, checked as `qemu-img create` does: more strictly than `measure`, and in another order.

use alloc::{borrow::ToOwned, format};

use calc::qcow2::{ClusterSize, RefcountBits};
use formats::{
    BackingFile,
    qcow2::{ClusterBits, Compression, Create, Preallocation, Version},
};
use protocol::{
    ErrorRecord,
    QemuVersion::{self, V5_2},
};

use super::{Driver, FilePreallocation, LuksWords, Quoted, Values, bad_value, unsupported, usage};

/// Longest name of an image below, and of its format, that fits in front of the first cluster's end.
const BACKING_NAME_MAX: usize = 1023;

/// What a new image is to be, and what of its data is to have disk space.
pub struct Qcow2Create<'a> {
    /// For the format.
    pub create: Create,
    /// For the file with the data.
    pub preallocation: FilePreallocation,
    /// Whether the data file is there already, and what is in it is the data.
    pub keep_data_file: bool,
    /// Whether it is to be encrypted, and how.
    pub encryption: Option<Encryption<'a>>,
}

/// How an image is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption<'a> {
    /// By AES in CBC, the key being the password.
    Aes,
    /// By LUKS in the image.
    Luks(LuksWords<'a>),
}

impl<'a> Qcow2Create<'a> {
    /// The image of `size` bytes that a list asks for.
    pub fn new(values: &'a Values, size: u64, profile: QemuVersion) -> Result<Self, ErrorRecord> {
        let encryption = encryption(values)?;
        if values.number("extent_size_hint").is_some_and(|hint| hint > u64::from(u32::MAX)) {
            return Err(usage(format_args!("Extent size hint is too large")));
        }
        // What is one word of several, in the order of QEMU's schema.
        let v2 = match values.text("compat") {
            None | Some("1.1" | "v3") => false,
            Some("0.10" | "v2") => true,
            Some(other) => return Err(bad_value("version", other, profile)),
        };
        let backing_format = values.text("backing_fmt");
        if let Some(format) = backing_format.filter(|format| !is_driver(format, profile)) {
            return Err(bad_value("backing-fmt", format, profile));
        }
        let encryption = match encryption {
            None => None,
            Some("aes" | "qcow") => {
                let given = ENCRYPT.into_iter().skip(1).find(|name| values.has(&format!("encrypt.{name}")));
                if let Some(name) = given {
                    return Err(usage(format_args!("Parameter 'encrypt.{name}' is unexpected")));
                }
                Some(Encryption::Aes)
            }
            Some("luks") => Some(Encryption::Luks(LuksWords::new(values, "encrypt.", profile)?)),
            Some(other) => return Err(bad_value("format", other, profile)),
        };
        let (preallocation, of_file) = match values.text("preallocation") {
            None | Some("off") => (Preallocation::Off, FilePreallocation::Off),
            Some("metadata") => (Preallocation::Metadata, FilePreallocation::Off),
            Some("falloc") => (Preallocation::Data, FilePreallocation::Falloc),
            Some("full") => (Preallocation::Data, FilePreallocation::Full),
            Some(other) => return Err(bad_value("preallocation", other, profile)),
        };
        let compression = match values.text("compression_type") {
            None | Some("zlib") => Compression::Zlib,
            // Debian's 5.2 is built without it.
            Some("zstd") if profile > V5_2 => Compression::Zstd,
            Some(other) => return Err(bad_value("compression-type", other, profile)),
        };
        // What they mean together.
        let cluster_bits = cluster_bits(values)?;
        let backing_file = values.text("backing_file");
        let extended_l2 = values.flag("extended_l2");
        let lazy_refcounts = values.flag("lazy_refcounts");
        if extended_l2 && cluster_bits.get() < 14 {
            return Err(usage(format_args!(
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes"
            )));
        }
        if extended_l2 && v2 {
            return Err(needs_v3("Extended L2 entries are only supported"));
        }
        if preallocation != Preallocation::Off && backing_file.is_some() && !extended_l2 {
            return Err(usage(format_args!(
                "Backing file and preallocation can only be used at the same time if extended_l2 is on"
            )));
        }
        if backing_format.is_some() && backing_file.is_none() {
            return Err(usage(format_args!("Backing format cannot be used without backing file")));
        }
        if lazy_refcounts && v2 {
            return Err(needs_v3("Lazy refcounts only supported"));
        }
        let keep_data_file = values.flag("keep_data_file");
        if keep_data_file {
            check_kept_file(values, preallocation)?;
        }
        let refcount_bits = match values.number("refcount_bits") {
            None => RefcountBits::DEFAULT,
            Some(bits) => RefcountBits::new(bits).ok_or_else(|| {
                usage(format_args!("Refcount width must be a power of two and may not exceed 64 bits"))
            })?,
        };
        if backing_file.is_some_and(|name| name.len() > BACKING_NAME_MAX) {
            return Err(unsupported(format_args!("Could not store the backing file name: it is too long")));
        }
        let create = Create {
            size,
            version: if v2 { Version::V2 } else { Version::V3 },
            cluster_bits,
            refcount_bits: u32::try_from(refcount_bits.bits()).unwrap_or_default(),
            lazy_refcounts,
            extended_l2,
            compression,
            backing: backing_file.map(|name| BackingFile {
                name: name.as_bytes().to_owned(),
                format: backing_format.map(|format| format.as_bytes().to_owned()),
            }),
            data_file: values.text("data_file").map(|name| name.as_bytes().to_owned()),
            data_file_raw: values.flag("data_file_raw"),
            encryption: None,
            preallocation,
        };
        Ok(Self { create, preallocation: of_file, keep_data_file, encryption })
    }
}

/// Whether the image can be one of the data that is in its data file already.
fn check_kept_file(values: &Values, preallocation: Preallocation) -> Result<(), ErrorRecord> {
    if !values.has("data_file") {
        return Err(usage(format_args!("Must not use 'keep_data_file=on' without 'data_file'")));
    }
    match preallocation {
        Preallocation::Data => Err(usage(format_args!(
            "Preallocating more than only metadata would overwrite the external data file's content and is therefore \
             incompatible with 'keep_data_file=on'"
        ))),
        Preallocation::Off if !values.flag("data_file_raw") => Err(usage(format_args!(
            "'keep_data_file=on' requires 'preallocation=metadata' or 'data_file_raw=on', or the file contents will not \
             be visible"
        ))),
        _ => Ok(()),
    }
}

/// The word for the encryption, whichever way it is given.
fn encryption(values: &Values) -> Result<Option<&str>, ErrorRecord> {
    let old_word = values.flag("encryption");
    match values.text("encrypt.format") {
        Some(_) if old_word => Err(usage(format_args!(
            "'encrypt.format' and its alias 'encryption' can't be used at the same time"
        ))),
        Some(format) => Ok(Some(format)),
        None if old_word => Ok(Some("aes")),
        None if ENCRYPT.iter().any(|name| values.has(&format!("encrypt.{name}"))) => {
            Err(usage(format_args!("Parameter 'encrypt.format' is missing")))
        }
        None => Ok(None),
    }
}

/// The options behind `encrypt.` that need a format, that of every format first.
const ENCRYPT: [&str; 7] =
    ["key-secret", "cipher-alg", "cipher-mode", "ivgen-alg", "ivgen-hash-alg", "hash-alg", "iter-time"];

/// Whether QEMU knows a driver of this name, be it in a module.
fn is_driver(name: &str, profile: QemuVersion) -> bool {
    const MODULES: [&str; 9] = ["ftp", "ftps", "gluster", "http", "https", "iscsi", "nfs", "rbd", "ssh"];
    MODULES.contains(&name) || Driver::find(name, profile).is_some()
}

fn cluster_bits(values: &Values) -> Result<ClusterBits, ErrorRecord> {
    let size = match values.number("cluster_size") {
        None => Some(ClusterSize::DEFAULT),
        Some(bytes) => ClusterSize::new(bytes),
    };
    size.and_then(|size| ClusterBits::new(size.bytes().trailing_zeros()))
        .ok_or_else(|| usage(format_args!("Cluster size must be a power of two between 512 and 2048k")))
}

fn needs_v3(what: &str) -> ErrorRecord {
    let what = Quoted(what.as_bytes());
    usage(format_args!("{what} with compatibility level 1.1 and above (use version=v3 or greater)"))
}
