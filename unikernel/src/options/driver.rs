//! The block drivers `qemu-img` knows by name, and the options each takes for a new image.

use alloc::{format, vec::Vec};

use protocol::{
    ErrorKind, ErrorRecord,
    QemuVersion::{self, V5_2, V7_2},
};

use super::{
    Quoted,
    spec::{FILE, LUKS, PARALLELS, QCOW, QCOW2, QED, Spec, VDI, VHDX, VMDK, VPC},
};

/// A format whose images can be predicted and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The disk itself.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// LUKS version 1.
    Luks,
    /// VMware's format.
    Vmdk,
    /// VHD.
    Vpc,
    /// VHDX.
    Vhdx,
    /// VirtualBox' format.
    Vdi,
    /// QEMU's first copy-on-write format.
    Qcow,
    /// QEMU's format between the two.
    Qed,
    /// Parallels' format.
    Parallels,
}

#[derive(Clone, Copy, Debug)]
enum Create {
    /// New images cannot be made.
    No,
    /// New images take these options besides those of the file.
    Options(&'static [Spec]),
    /// As [`Create::Options`], and the size can be told beforehand.
    Measured(Target, &'static [Spec]),
    /// As [`Create::Measured`], but `qemu-img` cannot tell it.
    Beyond(Target, &'static [Spec]),
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
    new("vmdk", Create::Beyond(Target::Vmdk, VMDK)),
    new("vpc", Create::Beyond(Target::Vpc, VPC)),
    new("vhdx", Create::Beyond(Target::Vhdx, VHDX)),
    new("vdi", Create::Beyond(Target::Vdi, VDI)),
    new("qcow", Create::Beyond(Target::Qcow, QCOW)),
    new("qed", Create::Beyond(Target::Qed, QED)),
    new("parallels", Create::Beyond(Target::Parallels, PARALLELS)).since(V7_2),
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

    /// The target whose sizes can be told beforehand: by `qemu-img`, or, if `beyond`, by us.
    pub fn measured(&self, beyond: bool) -> Result<Target, ErrorRecord> {
        match self.create {
            Create::Measured(target, _) => Ok(target),
            Create::Beyond(target, _) if beyond => Ok(target),
            Create::No | Create::Options(_) | Create::Beyond(..) => Err(ErrorRecord::new(
                ErrorKind::Unsupported,
                format!("Block driver '{}' does not support size measurement", self.name),
            )),
        }
    }

    /// What its new images are.
    pub fn target(&self) -> Result<Target, ErrorRecord> {
        match self.create {
            Create::Measured(target, _) | Create::Beyond(target, _) => Ok(target),
            // A file's bytes by another name.
            Create::Options(_) if self.name == "file" => Ok(Target::Raw),
            Create::No | Create::Options(_) => Err(ErrorRecord::new(
                ErrorKind::Unsupported,
                format!("Protocol driver '{}' does not support image creation", self.name),
            )),
        }
    }

    /// The options of a new image, in the order of their names: the driver's own, and those of the file.
    pub fn options(&self, profile: QemuVersion) -> Vec<&'static Spec> {
        let own = self.own();
        let file = FILE.iter().filter(|spec| own.iter().all(|other| other.name != spec.name));
        let mut options: Vec<_> = own.iter().chain(file).filter(|spec| spec.since <= profile).collect();
        options.sort_by_key(|spec| spec.name);
        options
    }

    /// The option of this name, the driver's own or one of the file.
    pub(super) fn option(&self, name: &str, profile: QemuVersion) -> Option<&'static Spec> {
        self.own().iter().chain(FILE).find(|spec| spec.name == name && spec.since <= profile)
    }

    pub(super) fn own(&self) -> &'static [Spec] {
        match self.create {
            Create::No => &[],
            Create::Options(own) | Create::Measured(_, own) | Create::Beyond(_, own) => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::QemuVersion::{V10_0, V11_1};

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
        let refusal = |name| match Driver::for_target(name, V11_1).and_then(|driver| driver.measured(false)) {
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
            let options = driver.options(V11_1);
            assert!(options.windows(2).all(|pair| pair[0].name < pair[1].name), "{}", driver.name);
        }
    }
}
