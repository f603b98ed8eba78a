//! Vending codes, and reservations by them.

use super::{
    CommitError, Committer, Reserved,
    operation::{self, Changed},
};
use crate::ledger::{Actor, Holder, VendingTerms};

impl Committer {
    /// As [`Committer::reserve`], for a device whose vending code was shown: the code must still give a certificate.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn redeem(&self, holder: &Holder, actor: &Actor) -> Result<Reserved, CommitError> {
        self.reserve_by(operation::redeem(holder.clone()), holder, actor).await
    }

    /// Creates vending codes, or finds that they were created before; gives the number of their batch.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn create_vending_codes(&self, actor: Actor, terms: VendingTerms) -> Result<u32, CommitError> {
        self.change(actor, operation::create_vending_codes(terms)).await
    }

    /// Lets a device's vending code be used no more.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn cancel_vending_code(&self, actor: Actor, device: String) -> Result<(), CommitError> {
        self.change(actor, operation::cancel_vending_code(device)).await.map(|Changed(_)| ())
    }
}
