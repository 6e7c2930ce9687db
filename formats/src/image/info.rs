//! What `info` says of an image beside what its data needs.

use core::ops::Range;

use super::{Driver, Image};
use crate::luks::LuksInfo;
use crate::qcow2::{Qcow2, Snapshot};
use crate::{Error, Storage};

impl<S: Storage> Image<S> {
    /// Bytes of a cluster, block or grain: absent where the format has none, where it is not known, and where
    /// `qemu-img` does not tell.
    pub fn cluster_size(&self) -> Option<u64> {
        match self.driver {
            Driver::Parallels(_) => None,
            _ => self.cluster_len(),
        }
    }

    /// Whether the image was not closed properly; absent where `qemu-img` does not ask.
    pub fn is_dirty(&self) -> Option<bool> {
        match &self.driver {
            Driver::Qcow2(qcow2) => Some(qcow2.header().is_dirty()),
            Driver::Qed(qed) => Some(qed.needs_check()),
            Driver::Vmdk(vmdk) if !vmdk.is_uniform() => None,
            Driver::Parallels(_) | Driver::Bochs(_) | Driver::Cloop(_) | Driver::Dmg(_) => None,
            Driver::Raw(_)
            | Driver::Vpc(_)
            | Driver::Vhdx(_)
            | Driver::Vmdk(_)
            | Driver::Qcow(_)
            | Driver::Vdi(_)
            | Driver::Luks(_) => Some(false),
        }
    }

    /// What the header of LUKS says, if the data is encrypted that way.
    pub fn luks(&self) -> Option<LuksInfo> {
        match &self.driver {
            Driver::Luks(luks) => Some(luks.info()),
            Driver::Qcow2(qcow2) => qcow2.luks().cloned(),
            _ => None,
        }
    }

    /// Hands each internal snapshot to `visit`, in the order of their table.
    pub fn visit_snapshots(&mut self, visit: impl FnMut(Snapshot)) -> Result<(), Error> {
        match &self.driver {
            Driver::Qcow2(qcow2) => Qcow2::visit_snapshots(qcow2, &mut self.storage, visit),
            _ => Ok(()),
        }
    }

    /// Hands the parts of the disk, in bytes, ascending and apart from each other, that the persistent bitmap of this name has bits set
    /// for to `visit`; `false` if there is none such. A bitmap that was not saved properly is `corrupt`.
    pub fn visit_bitmap(&mut self, name: &[u8], visit: &mut dyn FnMut(Range<u64>)) -> Result<bool, Error> {
        match &self.driver {
            Driver::Qcow2(qcow2) => qcow2.visit_bitmap(&mut self.storage, name, visit),
            _ => Ok(false),
        }
    }
}
