//! Which check an image gets.

use super::Driver;
use crate::check::{Findings, Repair, Tell, Terms};
use crate::{Error, Image, Storage, StorageMut};

impl<S: Storage> Image<S> {
    /// Checks the image, and tells what is found as it is found; `None` if there is no check for its format.
    ///
    /// A failure ends the check: what was told holds, and there are no counts. Its message is the reason alone
    /// (`Invalid argument`), or begins with `ERROR`: then it says what is wrong, and the reason goes by the kind.
    pub fn check(&mut self, terms: &Terms, tell: &mut Tell<'_>) -> Result<Option<Findings>, Error> {
        match &mut self.driver {
            Driver::Qcow2(qcow2) => qcow2.check(&mut self.storage, terms, tell).map(Some),
            _ => Ok(None),
        }
    }
}

impl<S: StorageMut> Image<S> {
    /// Checks the image and repairs what is found; as [`check`](Self::check). What was repaired is on the disk then, and
    /// the image is to be opened anew.
    pub fn repair(
        &mut self,
        how: Repair,
        terms: &Terms,
        tell: &mut Tell<'_>,
    ) -> Result<Option<Findings>, Error> {
        match &mut self.driver {
            Driver::Qcow2(qcow2) => qcow2.repair(&mut self.storage, how, terms, tell).map(Some),
            _ => Ok(None),
        }
    }
}
