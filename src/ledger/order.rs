//! Orders: how many certificates may be issued, under which terms.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::actor::Actor;
use crate::pattern::Pattern;

/// The terms of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderTerms {
    /// Its id.
    pub id: String,
    /// The profile that it is for.
    pub profile: String,
    /// How many certificates may be issued.
    pub quantity: u64,
    /// Nothing is issued before this moment.
    pub not_before: Option<Timestamp>,
    /// Nothing is issued at or after this moment.
    pub not_after: Option<Timestamp>,
    /// The stations that may use it; all if empty.
    pub stations: Vec<Pattern>,
    /// Values for its certificates, by name: `{order.NAME}` in a profile.
    pub attributes: BTreeMap<String, String>,
}

impl OrderTerms {
    /// An order that any station may use at any time, and without attributes.
    pub fn new(id: impl Into<String>, profile: impl Into<String>, quantity: u64) -> Self {
        OrderTerms {
            id: id.into(),
            profile: profile.into(),
            quantity,
            not_before: None,
            not_after: None,
            stations: Vec::new(),
            attributes: BTreeMap::new(),
        }
    }
}

/// An order and its counts: `issued + reserved <= terms.quantity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What was agreed.
    pub terms: OrderTerms,
    /// Whether it is closed.
    pub closed: bool,
    /// Certificates recorded and not scrapped.
    pub issued: u64,
    /// Reservations without a certificate yet.
    pub reserved: u64,
    /// Of `issued`: those that are confirmed now.
    pub confirmed: u64,
    /// Certificates scrapped; what they were charged is given back.
    pub scrapped: u64,
    /// Of `issued`: those that were revoked.
    pub revoked: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: Actor,
    /// When it was closed, and by whom.
    pub closed_by: Option<(Timestamp, Actor)>,
    /// Why nothing is issued under it for now, if it is paused.
    pub paused: Option<OrderPause>,
    /// When its quantity was changed last, and by whom.
    pub quantity_changed: Option<(Timestamp, Actor)>,
}

/// That an order is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderPause {
    /// Since when.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// Why, for people; may be empty.
    pub reason: String,
}

impl Order {
    /// One without any certificates.
    pub(super) fn new(terms: OrderTerms, created_at: Timestamp, created_by: Actor) -> Self {
        Order {
            terms,
            closed: false,
            issued: 0,
            reserved: 0,
            confirmed: 0,
            scrapped: 0,
            revoked: 0,
            created_at,
            created_by,
            closed_by: None,
            paused: None,
            quantity_changed: None,
        }
    }

    /// How many more may be reserved.
    pub fn left(&self) -> u64 {
        self.terms.quantity.saturating_sub(self.issued).saturating_sub(self.reserved)
    }
}
