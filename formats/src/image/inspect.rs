//! What only who looks an image over asks for.

use alloc::vec::Vec;

use super::{Driver, Image};
use crate::vpc::Trailer;
use crate::{Area, Error, Storage};

impl<S: Storage> Image<S> {
    /// Visits the metadata of a qcow2 image, of a VMDK image that is one sparse file, and of a Bochs image: what nothing else
    /// of the file may lie over. An error is a table that cannot be followed.
    pub fn visit_areas(&mut self, mut visit: impl FnMut(Area)) -> Result<(), Error> {
        match &mut self.driver {
            Driver::Bochs(bochs) => bochs.visit_areas(&mut self.storage, &mut visit),
            Driver::Qcow2(qcow2) => qcow2.visit_areas(&mut self.storage, &mut visit),
            Driver::Vmdk(vmdk) => vmdk.visit_areas(&mut self.storage, &mut visit),
            _ => Ok(()),
        }
    }

    /// All names that the image has for the one below it, the one that counts first: a VHD and a VHDX may have several, for
    /// different systems.
    pub fn backing_names(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        match &self.driver {
            Driver::Vpc(vpc) => vpc.parent_names(&mut self.storage),
            Driver::Vhdx(vhdx) => {
                let locator = vhdx.metadata().parent_locator();
                Ok(locator.map_or_else(Vec::new, |locator| locator.names().to_vec()))
            }
            _ => Ok(self.backing().map(|backing| backing.name.clone()).into_iter().collect()),
        }
    }

    /// What the end of a VHD that is not fixed says of it; qemu-img does not look there.
    pub fn vpc_trailer(&mut self) -> Result<Option<Trailer>, Error> {
        match &self.driver {
            Driver::Vpc(vpc) => vpc.trailer(&mut self.storage),
            _ => Ok(None),
        }
    }
}
