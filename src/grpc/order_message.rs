//! Orders as the protocol has them.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    ledger::{self, Actor, FirstPass},
    pattern, proto,
};

/// Whether the station that asks may use an order; others see all.
pub(super) fn sees(station: Option<&Arc<str>>, order: &ledger::Order) -> bool {
    station.is_none_or(|station| pattern::allows(&order.terms.stations, station))
}

/// How its devices fared at their first try.
pub(super) fn first_pass(passes: &BTreeMap<Arc<str>, FirstPass>) -> proto::FirstPass {
    let FirstPass { first, later, refused } = FirstPass::sum(passes.values());
    let stations = passes.iter().map(|(station, passes)| proto::StationFirstPass {
        station: station.strip_prefix("station:").unwrap_or_default().to_owned(),
        tried: passes.tried(),
        first: passes.first,
        later: passes.later,
        refused: passes.refused,
    });
    let tried = first + later + refused;
    proto::FirstPass { tried, first, later, refused, stations: stations.collect() }
}

/// An order with its counts.
pub(super) fn order(order: ledger::Order) -> proto::Order {
    let (left, reserved_today) = (order.left(), order.reserved_on_day(Timestamp::now()));
    let devices_listed = order.listed;
    let ledger::Order { terms, closed, issued, reserved, confirmed, scrapped, revoked, created_at, .. } = order;
    let ledger::Order { created_by, closed_by, paused, quantity_changed, .. } = order;
    let split = |who: Option<(Timestamp, Actor)>| {
        who.map_or((None, String::new()), |(at, by)| (Some(proto::timestamp(at)), by.to_string()))
    };
    let ((closed_at, closed_by), (quantity_changed_at, quantity_changed_by)) =
        (split(closed_by), split(quantity_changed));
    let pause_reason = paused.as_ref().map_or_else(String::new, |pause| pause.reason.clone());
    let (paused_at, paused_by) = split(paused.map(|pause| (pause.at, pause.by)));
    let terms = proto::OrderTerms {
        id: terms.id,
        profile: terms.profile,
        quantity: terms.quantity,
        not_before: terms.not_before.map(proto::timestamp),
        not_after: terms.not_after.map(proto::timestamp),
        stations: terms.stations.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        attributes: terms.attributes,
        devices: terms.list.map_or(0, |list| list.devices),
        devices_sha256: terms.list.map_or_else(Vec::new, |list| list.sha256.to_vec()).into(),
        per_day: terms.per_day.unwrap_or(0),
    };
    let created_at = Some(proto::timestamp(created_at));
    proto::Order {
        terms: Some(terms),
        closed,
        issued,
        reserved,
        left,
        created_at,
        confirmed,
        scrapped,
        revoked,
        created_by: created_by.to_string(),
        closed_at,
        closed_by,
        paused_at,
        paused_by,
        pause_reason,
        quantity_changed_at,
        quantity_changed_by,
        devices_listed,
        reserved_today,
        first_pass: None,
    }
}
