//! What an image has to do with others: with the one below it, and with its own past.

use alloc::format;

use super::{Driver, Image};
use crate::qcow2::SnapshotName;
use crate::{Error, ErrorKind, Format, Storage};

impl<S: Storage> Image<S> {
    /// Whether an image of this kind can have one below it. Where no such image is unallocated it is zero, and nobody
    /// else decides.
    pub fn can_have_backing(&self) -> bool {
        match &self.driver {
            Driver::Qcow2(_) | Driver::Qcow(_) | Driver::Qed(_) | Driver::Vmdk(_) | Driver::Parallels(_) => {
                true
            }
            Driver::Vpc(_) | Driver::Vhdx(_) => self.backing().is_some(),
            Driver::Raw(_)
            | Driver::Vdi(_)
            | Driver::Luks(_)
            | Driver::Bochs(_)
            | Driver::Cloop(_)
            | Driver::Dmg(_) => false,
        }
    }

    /// Whether `parent` is the image that this one was made upon, by what identifies it: the unique id of a VHD, the
    /// GUID of a VHDX's data, the content id of a VMDK. The other formats do not say.
    ///
    /// `qemu-img` looks at a VMDK's only when it reads from the parent, and at the others' never.
    pub fn check_parent(&self, parent: &Self) -> Result<(), Error> {
        let wrong = |field, what| {
            let name = self.format().name();
            Err(Error::new(
                ErrorKind::InvalidFormat,
                field,
                format!("Parent is not the {name} image whose {what}"),
            ))
        };
        match &self.driver {
            Driver::Vpc(vpc) => {
                let id = parent.vpc().map(|parent| parent.footer().unique_id());
                match vpc.parent_unique_id() {
                    Some(wanted) if id != Some(wanted) => {
                        wrong("parent_unique_id", "unique id the differencing disk has")
                    }
                    _ => Ok(()),
                }
            }
            Driver::Vhdx(vhdx) => {
                let guid = parent.vhdx().map(|parent| parent.header().data_write_guid());
                match vhdx.metadata().parent_locator() {
                    Some(locator) if guid.is_none_or(|guid| !locator.is_linked_to(guid)) => {
                        wrong("parent_linkage", "data the differencing disk is linked to")
                    }
                    _ => Ok(()),
                }
            }
            Driver::Vmdk(vmdk) => match parent.vmdk().map(crate::vmdk::Vmdk::cid) {
                cid if cid != Some(vmdk.parent_cid()) => wrong("parentCID", "content id the image has"),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the format can have internal snapshots that can be read.
    pub fn can_have_snapshots(&self) -> bool {
        self.format() == Format::Qcow2
    }

    /// Maps the disk as it was when an internal snapshot was made; `false` if there is none such. The length of the
    /// disk stays that of the active one, what the snapshot did not know of being unallocated. So does everything
    /// else, bitmaps included.
    pub fn load_snapshot(&mut self, wanted: SnapshotName<'_>) -> Result<bool, Error> {
        match &mut self.driver {
            Driver::Qcow2(qcow2) => qcow2.load_snapshot(&mut self.storage, wanted),
            _ => Ok(false),
        }
    }
}
