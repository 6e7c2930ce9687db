//! The block drivers `qemu-img` knows by name, and the options each takes for a new image.

use alloc::format;

use protocol::{
    ErrorKind, ErrorRecord,
    QemuVersion::{self, V5_2, V7_2, V10_0, V11_1},
};

use super::Quoted;

/// What the value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Number,
    Size,
    Text,
}

/// An option, by the first release that has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    since: QemuVersion,
}

impl Spec {
    const fn since(self, since: QemuVersion) -> Self {
        Self { since, ..self }
    }
}

const fn boolean(name: &'static str) -> Spec {
    Spec { name, kind: Kind::Bool, since: V5_2 }
}

const fn number(name: &'static str) -> Spec {
    Spec { name, kind: Kind::Number, since: V5_2 }
}

const fn size(name: &'static str) -> Spec {
    Spec { name, kind: Kind::Size, since: V5_2 }
}

const fn text(name: &'static str) -> Spec {
    Spec { name, kind: Kind::Text, since: V5_2 }
}

/// Options of the file every image lies in: each format takes them besides its own.
const FILE: &[Spec] = &[size("extent_size_hint"), boolean("nocow"), text("preallocation"), size("size")];

const QCOW2: &[Spec] = &[
    text("backing_file"),
    text("backing_fmt"),
    size("cluster_size"),
    text("compat"),
    text("compression_type"),
    text("data_file"),
    boolean("data_file_raw"),
    text("encrypt.cipher-alg"),
    text("encrypt.cipher-mode"),
    text("encrypt.format"),
    text("encrypt.hash-alg"),
    number("encrypt.iter-time"),
    text("encrypt.ivgen-alg"),
    text("encrypt.ivgen-hash-alg"),
    text("encrypt.key-secret"),
    boolean("encryption"),
    boolean("extended_l2"),
    boolean("keep_data_file").since(V11_1),
    boolean("lazy_refcounts"),
    number("refcount_bits"),
];

const LUKS: &[Spec] = &[
    text("cipher-alg"),
    text("cipher-mode"),
    boolean("detached-header").since(V10_0),
    text("hash-alg"),
    number("iter-time"),
    text("ivgen-alg"),
    text("ivgen-hash-alg"),
    text("key-secret"),
];

const VMDK: &[Spec] = &[
    text("adapter_type"),
    text("backing_file"),
    text("backing_fmt"),
    boolean("compat6"),
    text("hwversion"),
    text("subformat"),
    text("toolsversion").since(V7_2),
    boolean("zeroed_grain"),
];

const VPC: &[Spec] = &[boolean("force_size"), text("subformat")];
const VHDX: &[Spec] = &[size("block_size"), boolean("block_state_zero"), size("log_size"), text("subformat")];
const VDI: &[Spec] = &[boolean("static")];
const QCOW: &[Spec] = &[
    text("backing_file"),
    text("backing_fmt"),
    text("encrypt.format"),
    text("encrypt.key-secret"),
    boolean("encryption"),
];
const QED: &[Spec] = &[text("backing_file"), text("backing_fmt"), size("cluster_size"), size("table_size")];
const PARALLELS: &[Spec] = &[size("cluster_size")];

/// A format whose images can be predicted and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The disk itself.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// LUKS version 1.
    Luks,
}

#[derive(Clone, Copy, Debug)]
enum Create {
    /// New images cannot be made.
    No,
    /// New images take these options besides those of the file.
    Options(&'static [Spec]),
    /// As [`Create::Options`], and the size can be told beforehand.
    Measured(Target, &'static [Spec]),
}

/// A block driver of the release that is followed.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The name it is selected by.
    pub name: &'static str,
    since: QemuVersion,
    create: Create,
}

const fn new(name: &'static str, create: Create) -> Driver {
    Driver { name, since: V5_2, create }
}

/// Every driver that is part of `qemu-img` itself; those in loadable modules (ssh, curl, iscsi, ...) are unknown to it
/// where the modules are not installed, and unknown here.
const DRIVERS: &[Driver] = &[
    new("raw", Create::Measured(Target::Raw, &[])),
    new("qcow2", Create::Measured(Target::Qcow2, QCOW2)),
    new("luks", Create::Measured(Target::Luks, LUKS)),
    new("vmdk", Create::Options(VMDK)),
    new("vpc", Create::Options(VPC)),
    new("vhdx", Create::Options(VHDX)),
    new("vdi", Create::Options(VDI)),
    new("qcow", Create::Options(QCOW)),
    new("qed", Create::Options(QED)),
    new("parallels", Create::Options(PARALLELS)).since(V7_2),
    new("file", Create::Options(&[])),
    new("host_cdrom", Create::Options(&[])),
    new("host_device", Create::Options(&[])),
    new("nbd", Create::Options(&[])),
    new("nvme", Create::Options(&[])),
    new("blkdebug", Create::No),
    new("blklogwrites", Create::No),
    new("blkverify", Create::No),
    new("bochs", Create::No),
    new("cloop", Create::No),
    new("compress", Create::No),
    new("copy-before-write", Create::No).since(V7_2),
    new("copy-on-read", Create::No),
    new("dmg", Create::No),
    new("null-aio", Create::No),
    new("null-co", Create::No),
    new("preallocate", Create::No).since(V7_2),
    new("quorum", Create::No),
    new("replication", Create::No),
    new("snapshot-access", Create::No).since(V7_2),
    new("throttle", Create::No),
    new("vvfat", Create::No),
];

impl Driver {
    const fn since(self, since: QemuVersion) -> Self {
        Self { since, ..self }
    }

    /// The driver of this name in the release `profile`.
    pub fn find(name: &str, profile: QemuVersion) -> Option<&'static Self> {
        DRIVERS.iter().find(|driver| driver.name == name && driver.since <= profile)
    }

    /// The driver that is to make a new image.
    pub fn for_target(name: &str, profile: QemuVersion) -> Result<&'static Self, ErrorRecord> {
        let unsupported = |message| Err(ErrorRecord::new(ErrorKind::Unsupported, message));
        match Self::find(name, profile) {
            None => unsupported(format!("Unknown file format '{}'", Quoted(name.as_bytes()))),
            Some(Self { create: Create::No, .. }) => {
                unsupported(format!("Format driver '{name}' does not support image creation"))
            }
            Some(driver) => Ok(driver),
        }
    }

    /// The target whose sizes can be told beforehand.
    pub fn measured(&self) -> Result<Target, ErrorRecord> {
        match self.create {
            Create::Measured(target, _) => Ok(target),
            Create::No | Create::Options(_) => Err(ErrorRecord::new(
                ErrorKind::Unsupported,
                format!("Block driver '{}' does not support size measurement", self.name),
            )),
        }
    }

    /// The option of this name, the driver's own or one of the file.
    pub(super) fn option(&self, name: &str, profile: QemuVersion) -> Option<&'static Spec> {
        let own = match self.create {
            Create::No => &[],
            Create::Options(own) | Create::Measured(_, own) => own,
        };
        own.iter().chain(FILE).find(|spec| spec.name == name && spec.since <= profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_and_options_come_with_their_release() {
        assert!(Driver::find("parallels", V5_2).is_none());
        assert!(Driver::find("parallels", V7_2).is_some());
        let luks = Driver::find("luks", V11_1).unwrap();
        assert!(luks.option("detached-header", V7_2).is_none());
        assert!(luks.option("detached-header", V10_0).is_some());
        assert!(luks.option("size", V5_2).is_some());
    }

    #[test]
    fn targets_are_refused_in_qemu_img_s_words() {
        let refusal = |name| match Driver::for_target(name, V11_1).and_then(Driver::measured) {
            Ok(target) => panic!("{target:?}"),
            Err(error) => error.message,
        };
        assert_eq!(refusal("RAW"), "Unknown file format 'RAW'");
        assert_eq!(refusal("a\nb"), "Unknown file format 'a\\nb'");
        assert_eq!(refusal("dmg"), "Format driver 'dmg' does not support image creation");
        assert_eq!(refusal("vmdk"), "Block driver 'vmdk' does not support size measurement");
    }

    #[test]
    fn no_name_stands_twice() {
        for (index, driver) in DRIVERS.iter().enumerate() {
            assert!(DRIVERS[..index].iter().all(|other| other.name != driver.name), "{}", driver.name);
            if let Create::Options(own) | Create::Measured(_, own) = driver.create {
                for (index, spec) in own.iter().chain(FILE).enumerate() {
                    let earlier = own.iter().chain(FILE).take(index);
                    assert!(earlier.clone().all(|other| other.name != spec.name), "{}", spec.name);
                }
            }
        }
    }
}
