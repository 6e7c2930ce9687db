//! The options of qcow2, checked in `qemu-img`'s order.

use calc::qcow2::{ClusterSize, Geometry, L2Entries, RefcountBits};
use protocol::{ErrorRecord, QemuVersion};

use super::{LuksOptions, Quoted, Values, usage};

/// Version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// `0.10`: version 2.
    V2,
    /// `1.1`: version 3.
    V3,
}

/// How much of a new image is set aside at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    Off,
    /// The metadata.
    Metadata,
    /// Metadata and space for the data.
    Falloc,
    /// Metadata and data, written.
    Full,
}

/// What a new qcow2 image is to be like.
#[derive(Clone, Debug)]
pub struct Qcow2Options {
    /// Cluster size, L2 entries and refcount width.
    pub geometry: Geometry,
    /// Version of the format.
    pub compat: Compat,
    /// Space set aside.
    pub preallocation: Preallocation,
    /// Whether there is a backing file, of any name.
    pub has_backing_file: bool,
    /// Whether the data is in a file of its own, of any name.
    pub has_data_file: bool,
    /// Whether that file can be read on its own.
    pub has_raw_data_file: bool,
    /// Encryption with LUKS.
    pub luks: Option<LuksOptions>,
    /// The disk's size in bytes by the option `size`, not bounded; 0 when not given.
    pub size: u64,
}

impl Qcow2Options {
    /// The options of a list; `secrets` are the names of the secrets there are.
    ///
    /// Not looked at, as `qemu-img measure` does not: compression, and what of the format's features needs
    /// which version.
    pub fn new(values: &Values, secrets: &[&str], profile: QemuVersion) -> Result<Self, ErrorRecord> {
        let l2_entries = match values.flag("extended_l2") {
            true => L2Entries::Extended,
            false => L2Entries::Standard,
        };
        let geometry =
            Geometry::new(cluster_size(values)?, l2_entries, RefcountBits::DEFAULT).ok_or_else(|| {
                usage(format_args!(
                    "Extended L2 entries are only supported with cluster sizes of at least {} bytes",
                    Geometry::MIN_EXTENDED.bytes()
                ))
            })?;
        let compat = compat(values)?;
        let geometry = geometry.with_refcount_bits(refcount_bits(values, compat)?);
        let preallocation = preallocation(values)?;
        let luks = match values.text("encrypt.format") {
            Some("luks") => Some(LuksOptions::new(values, "encrypt.", secrets, profile)?),
            _ => None,
        };
        let has_backing_file = values.has("backing_file");
        let has_data_file = values.has("data_file");
        let has_raw_data_file = has_data_file && values.flag("data_file_raw");
        let size = values.number("size").unwrap_or(0);
        Ok(Self {
            geometry,
            compat,
            preallocation,
            has_backing_file,
            has_data_file,
            has_raw_data_file,
            luks,
            size,
        })
    }
}

fn cluster_size(values: &Values) -> Result<ClusterSize, ErrorRecord> {
    match values.number("cluster_size") {
        None => Ok(ClusterSize::DEFAULT),
        Some(bytes) => ClusterSize::new(bytes)
            .ok_or_else(|| usage(format_args!("Cluster size must be a power of two between 512 and 2048k"))),
    }
}

fn compat(values: &Values) -> Result<Compat, ErrorRecord> {
    match values.text("compat") {
        None | Some("1.1") => Ok(Compat::V3),
        Some("0.10") => Ok(Compat::V2),
        Some(other) => {
            Err(usage(format_args!("Invalid compatibility level: '{}'", Quoted(other.as_bytes()))))
        }
    }
}

fn refcount_bits(values: &Values, compat: Compat) -> Result<RefcountBits, ErrorRecord> {
    let bits = match values.number("refcount_bits") {
        None => RefcountBits::DEFAULT,
        Some(bits) => RefcountBits::new(bits).ok_or_else(|| {
            usage(format_args!("Refcount width must be a power of two and may not exceed 64 bits"))
        })?,
    };
    if compat == Compat::V2 && bits != RefcountBits::DEFAULT {
        return Err(usage(format_args!(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)"
        )));
    }
    Ok(bits)
}

fn preallocation(values: &Values) -> Result<Preallocation, ErrorRecord> {
    match values.text("preallocation") {
        None | Some("off") => Ok(Preallocation::Off),
        Some("metadata") => Ok(Preallocation::Metadata),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => Err(usage(format_args!("invalid parameter value: {}", Quoted(other.as_bytes())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Driver;
    use alloc::string::String;

    fn options(list: &str) -> Result<Qcow2Options, String> {
        let profile = QemuVersion::V11_1;
        let driver = Driver::find("qcow2", profile).unwrap();
        Values::parse(driver, list, profile)
            .and_then(|values| Qcow2Options::new(&values, &["s"], profile))
            .map_err(|error| error.message)
    }

    #[test]
    fn defaults_are_those_of_qemu_img() {
        let options = options("").unwrap();
        assert_eq!(options.geometry, Geometry::default());
        assert_eq!(options.compat, Compat::V3);
        assert_eq!(options.preallocation, Preallocation::Off);
        assert!(!options.has_backing_file && options.luks.is_none() && options.size == 0);
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        let extended = "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes";
        let cluster = "Cluster size must be a power of two between 512 and 2048k";
        let width = "Refcount width must be a power of two and may not exceed 64 bits";
        let needs = "Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)";
        for (list, message) in [
            ("cluster_size=3,extended_l2,compat=x", cluster),
            ("cluster_size=8k,extended_l2,compat=x", extended),
            ("cluster_size=0", cluster),
            ("compat=v3,refcount_bits=3", "Invalid compatibility level: 'v3'"),
            ("compat", "Invalid compatibility level: 'on'"),
            ("refcount_bits=128,compat=0.10", width),
            ("refcount_bits=-1", width),
            ("refcount_bits=8,compat=0.10,preallocation=x", needs),
            ("preallocation=x,encrypt.format=luks,encrypt.key-secret=t", "invalid parameter value: x"),
            ("encrypt.format=luks,encrypt.key-secret=t", "No secret with id 't'"),
        ] {
            assert_eq!(options(list).unwrap_err(), message, "{list}");
        }
    }

    #[test]
    fn what_measure_does_not_look_at_is_accepted() {
        for list in [
            "compression_type=foo",
            "compat=0.10,extended_l2=on",
            "data_file=x,data_file_raw=off",
            "encrypt.format=aes",
            "encrypt.format=foo,encrypt.cipher-alg=foo",
            "encryption=on",
            "refcount_bits=-18446744073709551615",
            "keep_data_file=on",
        ] {
            assert!(options(list).is_ok(), "{list}");
        }
    }
}
