//! `--preset`: what those take that images are converted for.

use std::str::FromStr;

/// An importer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Azure: fixed VHD of exactly the disk's size, which is whole MiB.
    Azure,
    /// VMware ESXi and vSphere: stream-optimized VMDK with an LSI Logic adapter.
    Esxi,
    /// Google Compute Engine: raw, whole GiB; to be packed as `disk.raw`.
    Gcp,
    /// Hyper-V: dynamic VHDX.
    Hyperv,
}

impl Preset {
    /// Name of the format.
    pub fn format(self) -> &'static str {
        match self {
            Self::Azure => "vpc",
            Self::Esxi => "vmdk",
            Self::Gcp => "raw",
            Self::Hyperv => "vhdx",
        }
    }

    /// Its options, as an `-o` list.
    pub fn options(self) -> Option<&'static str> {
        match self {
            Self::Azure => Some("subformat=fixed,force_size=on"),
            Self::Esxi => Some("subformat=streamOptimized,adapter_type=lsilogic"),
            Self::Gcp => None,
            Self::Hyperv => Some("subformat=dynamic"),
        }
    }

    /// What the disk's size is rounded up to, in bytes.
    pub fn alignment(self) -> Option<u64> {
        match self {
            Self::Azure => Some(1 << 20),
            Self::Gcp => Some(1 << 30),
            Self::Esxi | Self::Hyperv => None,
        }
    }

    /// Whether it is a VMDK with its tables behind its grains.
    pub fn is_strict_stream(self) -> bool {
        self == Self::Esxi
    }

    /// Whether it is compressed.
    pub fn compresses(self) -> bool {
        self == Self::Esxi
    }
}

impl FromStr for Preset {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "azure" => Ok(Self::Azure),
            "esxi" => Ok(Self::Esxi),
            "gcp" => Ok(Self::Gcp),
            "hyperv" => Ok(Self::Hyperv),
            _ => Err("expected azure, esxi, gcp or hyperv"),
        }
    }
}
