//! What operators do: orders, peers, approvals.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    CommitError, Committer,
    operation::{self, Changed},
};
use crate::{
    ledger::{
        Actor, Approval, DevicesListed, EnrolledPeer, Enrolment, KeyHash, Order, OrderPause, OrderTerms,
        RevocationReason,
    },
    metrics, security,
    serial::SerialNumber,
};

/// Whether something is of this moment, and not of an earlier request that was the same.
struct Asked(Timestamp);

impl Asked {
    fn now() -> Asked {
        // The ledger has microseconds.
        let now = Timestamp::now();
        Asked(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
    }

    fn is_new(&self, at: Option<Timestamp>) -> bool {
        at.is_some_and(|at| at >= self.0)
    }
}

impl Committer {
    /// Creates an order, or finds the one with the same terms.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn create_order(&self, actor: Actor, terms: OrderTerms) -> Result<Order, CommitError> {
        let asked = Asked::now();
        let order = self.change(actor.clone(), operation::create_order(terms)).await?;
        if asked.is_new(Some(order.created_at)) {
            let OrderTerms { id, profile, quantity, .. } = &order.terms;
            tracing::info!(order = id, profile, quantity, by = %actor, "created an order");
        }
        Ok(order)
    }

    /// Closes an order.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn close_order(&self, actor: Actor, id: String) -> Result<Order, CommitError> {
        let asked = Asked::now();
        let order = self.change(actor.clone(), operation::close_order(id)).await?;
        if asked.is_new(order.closed_by.as_ref().map(|(at, _)| *at)) {
            let Order { terms, issued, .. } = &order;
            tracing::info!(order = terms.id, quantity = terms.quantity, issued, by = %actor, "closed an order");
        }
        Ok(order)
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
        let asked = Asked::now();
        let order = self.change(actor.clone(), operation::change_quantity(id, quantity, reason.clone())).await?;
        if asked.is_new(order.quantity_changed.as_ref().map(|(at, _)| *at)) {
            tracing::info!(order = order.terms.id, quantity, reason, by = %actor, "changed the quantity of an order");
        }
        Ok(order)
    }

    /// Lets nothing be issued under an order until it is resumed.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn pause_order(&self, actor: Actor, id: String, reason: String) -> Result<Order, CommitError> {
        let asked = Asked::now();
        let order = self.change(actor, operation::pause_order(id, reason)).await?;
        if let Some(OrderPause { at, by, reason }) = order.paused.as_ref().filter(|pause| asked.is_new(Some(pause.at)))
        {
            tracing::info!(order = order.terms.id, reason, %by, %at, "paused an order");
        }
        Ok(order)
    }

    /// Lets an order that was paused go on.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn resume_order(&self, actor: Actor, id: String) -> Result<Order, CommitError> {
        let order = self.change(actor.clone(), operation::resume_order(id)).await?;
        tracing::info!(order = order.terms.id, by = %actor, "an order goes on");
        Ok(order)
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

    /// Records that a device is scrap.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn scrap(&self, actor: Actor, serial_number: SerialNumber, reason: String) -> Result<(), CommitError> {
        let Changed(new) = self.change(actor.clone(), operation::scrap(serial_number, reason.clone())).await?;
        if new {
            metrics::scrapped();
            tracing::info!(serial_number = %serial_number, reason, by = %actor, "scrapped a certificate");
        }
        Ok(())
    }

    /// Records that a certificate is not to be trusted any more.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn revoke(
        &self,
        actor: Actor,
        serial_number: SerialNumber,
        reason: RevocationReason,
    ) -> Result<(), CommitError> {
        let Changed(new) = self.change(actor.clone(), operation::revoke(serial_number, reason)).await?;
        if new {
            metrics::revoked();
            let reason = reason.name();
            tracing::warn!(target: security::TARGET, serial_number = %serial_number, reason, by = %actor, "revoked a certificate");
        }
        Ok(())
    }
}
