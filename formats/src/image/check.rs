//! Which check an image gets.

use super::{Driver, Image};
use crate::check::{Findings, Repair, Tell, Terms};
use crate::files::Files;
use crate::parallels::Parallels;
use crate::qed::Qed;
use crate::read_only::ReadOnly;
use crate::vdi::Vdi;
use crate::{Error, Storage, StorageMut};

impl<S: Storage> Image<S> {
    /// Checks the image, and tells what is found as it is found; `None` if there is no check for its format. The check of
    /// VHD images, which `qemu-img` does not have, is one.
    ///
    /// A failure ends the check: what was told holds, and there are no counts. Its message is the reason alone
    /// (`Invalid argument`), or begins with `ERROR`: then it says what is wrong, and the reason goes by the kind.
    pub fn check(&mut self, terms: &Terms, tell: &mut Tell<'_>) -> Result<Option<Findings>, Error> {
        match &mut self.driver {
            Driver::Qcow2(qcow2) => qcow2.check(&mut self.storage, terms, tell).map(Some),
            Driver::Vdi(_) => Vdi::check(&mut self.storage, terms, tell).map(Some),
            Driver::Vpc(vpc) => vpc.check(&mut self.storage, terms, tell).map(Some),
            Driver::Vmdk(vmdk) => {
                let mut files = Files { own: &mut self.storage, attached: &mut self.attached };
                vmdk.check(&mut files, terms, tell).map(Some)
            }
            driver => driver.mend(&mut ReadOnly(&mut self.storage), Repair::None, terms, tell),
        }
    }
}

impl<S: StorageMut> Image<S> {
    /// Checks the image and repairs what is found; as [`check`](Self::check), but `None` also if images of its format are
    /// not repaired. What was repaired is on the disk then, and the image is to be opened anew.
    pub fn repair(
        &mut self,
        how: Repair,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Option<Findings>, Error> {
        match &mut self.driver {
            Driver::Qcow2(qcow2) => qcow2.repair(&mut self.storage, how, terms, tell).map(Some),
            driver => driver.mend(&mut self.storage, how, terms, tell),
        }
    }
}

impl Driver {
    /// Checks of which some repair on the way.
    fn mend<S: StorageMut>(
        &mut self,
        storage: &mut S,
        how: Repair,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Option<Findings>, Error> {
        match self {
            Self::Qed(_) => Qed::check(storage, how, terms).map(Some),
            Self::Parallels(_) => Parallels::check(storage, how, terms, tell).map(Some),
            Self::Vhdx(vhdx) => vhdx.check(storage, how, tell).map(Some),
            _ => Ok(None),
        }
    }
}
