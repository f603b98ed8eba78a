//! What operators do: orders, peers, approvals.

use std::sync::Arc;

use super::{CommitError, Committer, operation};
use crate::ledger::{Actor, Approval, DevicesListed, EnrolledPeer, Enrolment, KeyHash, Order, OrderTerms};

impl Committer {
    /// Creates an order, or finds the one with the same terms.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn create_order(&self, actor: Actor, terms: OrderTerms) -> Result<Order, CommitError> {
        self.change(actor, operation::create_order(terms)).await
    }

    /// Closes an order.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn close_order(&self, actor: Actor, id: String) -> Result<Order, CommitError> {
        self.change(actor, operation::close_order(id)).await
    }

    /// Raises or lowers the quantity of an order.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn change_quantity(
        &self,
        actor: Actor,
        id: String,
        quantity: u64,
        reason: String,
    ) -> Result<Order, CommitError> {
        self.change(actor, operation::change_quantity(id, quantity, reason)).await
    }

    /// Lets nothing be issued under an order until it is resumed.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn pause_order(&self, actor: Actor, id: String, reason: String) -> Result<Order, CommitError> {
        self.change(actor, operation::pause_order(id, reason)).await
    }

    /// Lets an order that was paused go on.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn resume_order(&self, actor: Actor, id: String) -> Result<Order, CommitError> {
        self.change(actor, operation::resume_order(id)).await
    }

    /// Takes in the next devices of an order's list.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn list_devices(&self, actor: Actor, list: DevicesListed) -> Result<Order, CommitError> {
        self.change(actor, operation::list_devices(list)).await
    }

    /// Records a certificate of the station CA. Gives its holder.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn enroll(&self, actor: Actor, enrolment: Enrolment) -> Result<Arc<EnrolledPeer>, CommitError> {
        self.change(actor, operation::enroll(enrolment)).await
    }

    /// Lets a station, an operator or an auditor connect no more with what it has.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn revoke_peer(
        &self,
        actor: Actor,
        peer: Actor,
        reason: String,
    ) -> Result<Arc<EnrolledPeer>, CommitError> {
        self.change(actor, operation::revoke_peer(peer, reason, None)).await
    }

    /// Lets a peer connect no more with what it has, but for the certificates of one key.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn supersede_peer(
        &self,
        actor: Actor,
        peer: Actor,
        keep: KeyHash,
    ) -> Result<Arc<EnrolledPeer>, CommitError> {
        let reason = "superseded by a certificate with another key".to_owned();
        self.change(actor, operation::revoke_peer(peer, reason, Some(keep))).await
    }

    /// Uses the agreement of a second operator to `what`, or asks for it. What is used may be done now.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn ask_approval(&self, actor: Actor, what: String) -> Result<Arc<Approval>, CommitError> {
        self.change(actor, operation::ask_approval(what)).await
    }

    /// Agrees to what another operator asks for.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn grant_approval(&self, actor: Actor, number: u64) -> Result<Arc<Approval>, CommitError> {
        self.change(actor, operation::grant_approval(number)).await
    }
}
