//! Orders: how many certificates may be issued, under which terms.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{actor::Actor, device_list::DeviceList};
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
    /// The list of the devices that it is for; none: for any.
    pub list: Option<DeviceList>,
    /// How many certificates may be reserved on one day (UTC).
    pub per_day: Option<u64>,
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
            list: None,
            per_day: None,
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
    /// How many devices of its list are listed.
    pub listed: u64,
    /// The newest day, in days since 1970, on which something was reserved, and how much.
    pub day: (i64, u64),
    /// Devices that were refused, for their own sake, and have had no certificate yet.
    pub refused: u64,
    /// Those, and those that have got one since.
    pub refused_ever: u64,
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
            listed: 0,
            day: (0, 0),
            refused: 0,
            refused_ever: 0,
            created_at,
            created_by,
            closed_by: None,
            paused: None,
            quantity_changed: None,
        }
    }

    /// How many devices its list lacks.
    pub fn unlisted(&self) -> u64 {
        self.terms.list.map_or(0, |list| list.devices.saturating_sub(self.listed))
    }

    /// How many were reserved on the day of this moment, but for those whose reservation ended without a certificate.
    pub fn reserved_on_day(&self, now: Timestamp) -> u64 {
        if self.day.0 == day(now) { self.day.1 } else { 0 }
    }

    /// A reservation is made.
    pub(super) fn count_day(&mut self, now: Timestamp) {
        self.day = (day(now), self.reserved_on_day(now) + 1);
    }

    /// A reservation of a serial number that was given at `reserved` has ended without a certificate.
    pub(super) fn uncount_day(&mut self, reserved: Timestamp) {
        if self.day.0 == day(reserved) {
            self.day.1 = self.day.1.saturating_sub(1);
        }
    }

    /// Its state at a moment, in the words that clients tell people.
    pub fn state(&self, now: Timestamp) -> &'static str {
        let OrderTerms { not_before, not_after, .. } = self.terms;
        match self.closed {
            true => "closed",
            false if not_after.is_some_and(|end| now >= end) => "expired",
            false if self.unlisted() > 0 => "incomplete",
            false if self.left() == 0 => "complete",
            false if self.paused.is_some() => "paused",
            false if not_before.is_some_and(|begin| now < begin) => "scheduled",
            false => "open",
        }
    }

    /// How many more may be reserved.
    pub fn left(&self) -> u64 {
        self.terms.quantity.saturating_sub(self.issued).saturating_sub(self.reserved)
    }
}

/// The day of a moment (UTC), in days since 1970.
fn day(moment: Timestamp) -> i64 {
    moment.as_second().div_euclid(86_400)
}
