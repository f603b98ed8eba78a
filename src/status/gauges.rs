//! The metrics that a snapshot has. They are set anew for each scrape, so what is gone has none, and none contradicts the page.

use std::collections::BTreeMap;

use jiff::Timestamp;
use metrics::{counter, gauge};

use super::snapshot::{Condition, OpenOrder, RevocationList, Snapshot, Station, Token, Waiting};
use crate::metrics::list;

/// The station that stands for those that are not listed: no station is called so.
const OTHER_STATIONS: &str = "other";

/// The order that stands for those that are not listed: no order is called so.
const OTHER_ORDERS: &str = "(other)";

type Labels<'a> = &'a [(&'static str, &'a str)];

fn set(name: &'static str, labels: Labels<'_>, value: f64) {
    let labels: Vec<_> = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
    gauge!(name, &labels).set(value);
}

fn count(name: &'static str, labels: Labels<'_>, value: u64) {
    let labels: Vec<_> = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
    counter!(name, &labels).absolute(value);
}

fn flag(name: &'static str, labels: Labels<'_>, value: bool) {
    set(name, labels, f64::from(u8::from(value)));
}

fn moment(name: &'static str, labels: Labels<'_>, value: Option<Timestamp>) {
    if let Some(value) = value {
        set(name, labels, value.as_duration().as_secs_f64());
    }
}

impl Snapshot {
    /// Sets the metrics of what it has.
    pub(crate) fn set_metrics(&self) {
        self.state();
        self.stations();
        self.orders();
        tokens(&self.hsm);
        self.ledger();
        self.ends();
        self.revocation_lists.iter().for_each(RevocationList::set_metrics);
        self.destinations.iter().for_each(|waiting| waiting.set_metrics(self.at));
    }

    fn state(&self) {
        flag(list::READY, &[], self.ready);
        let all = [(list::OBSTACLE, &self.obstacles), (list::DEGRADED, &self.warnings)];
        for (name, conditions) in all {
            for Condition { component, .. } in conditions {
                flag(name, &[("component", component.as_str())], true);
            }
        }
        flag(list::CLOCK_PLAUSIBLE, &[], self.clock.implausible.is_none());
    }

    fn stations(&self) {
        self.stations.listed.iter().for_each(Station::set_metrics);
        if self.stations.left_out > 0 {
            let (labels, others) = (&[("station", OTHER_STATIONS)], &self.stations.others);
            set(list::STATION_CONNECTED, labels, others.connected as f64);
            count(list::STATION_CERTIFICATES, labels, others.issued);
            count(list::STATION_REFUSALS, labels, others.refused);
        }
    }

    fn orders(&self) {
        set(list::ORDERS_OPEN, &[], (self.orders.listed.len() + self.orders.left_out) as f64);
        self.orders.listed.iter().for_each(OpenOrder::set_metrics);
        if self.orders.left_out > 0 {
            let (labels, others) = (&[("order", OTHER_ORDERS)], &self.orders.others);
            set(list::ORDER_QUANTITY, labels, others.quantity as f64);
            set(list::ORDER_ISSUED, labels, others.issued as f64);
            set(list::ORDER_LEFT, labels, others.left as f64);
        }
    }

    fn ledger(&self) {
        let ledger = &self.ledger;
        set(list::LEDGER_CERTIFICATES, &[], ledger.certificates as f64);
        set(list::LEDGER_ENTRIES, &[], ledger.entries as f64);
        set(list::JOURNAL_BYTES, &[], ledger.bytes as f64);
        set(list::INDEX_LAG, &[], ledger.index_lag as f64);
        if let Some(free) = ledger.disk_free {
            set(list::DISK_FREE, &[], free as f64);
        }
        set(list::DISK_NEEDED, &[], ledger.disk_needed as f64);
        if let Some(mirrored) = ledger.mirrored {
            flag(list::JOURNAL_MIRROR, &[], mirrored);
        }
        if let Some(checkpoint) = &self.checkpoint {
            set(list::CHECKPOINT_LAG, &[], checkpoint.lag);
            moment(list::CHECKPOINT_TIME, &[], checkpoint.at);
        }
        moment(list::BACKUP_TIME, &[], self.backup.as_ref().map(|backup| backup.at));
    }

    fn ends(&self) {
        // The first to expire of several of one kind comes last, and stays.
        for end in self.certificates.iter().rev() {
            let name = end.name.as_deref().unwrap_or_default();
            match end.kind {
                "issuer" => moment(list::ISSUER_NOT_AFTER, &[("issuer", name)], Some(end.expires)),
                "station_ca" => moment(list::STATION_CA_NOT_AFTER, &[], Some(end.expires)),
                "server" => moment(list::SERVER_CERTIFICATE_NOT_AFTER, &[], Some(end.expires)),
                // Each station has its own.
                _ => {}
            }
        }
    }
}

impl Station {
    fn set_metrics(&self) {
        let labels = &[("station", self.name.as_str())];
        flag(list::STATION_CONNECTED, labels, self.connected);
        moment(list::STATION_LAST_CONTACT, labels, self.last_seen);
        count(list::STATION_CERTIFICATES, labels, self.issued);
        count(list::STATION_REFUSALS, labels, self.refused());
        if !self.revoked {
            moment(list::STATION_CERTIFICATE_NOT_AFTER, labels, self.certificate_expires);
        }
    }
}

impl OpenOrder {
    fn set_metrics(&self) {
        let labels = &[("order", self.id.as_str())];
        flag(
            list::ORDER_INFO,
            &[("order", self.id.as_str()), ("profile", self.profile.as_str()), ("state", self.state)],
            true,
        );
        count(list::ORDER_CERTIFICATES, labels, self.issued + self.scrapped);
        for (name, number) in [
            (list::ORDER_QUANTITY, self.quantity),
            (list::ORDER_ISSUED, self.issued),
            (list::ORDER_RESERVED, self.reserved),
            (list::ORDER_CONFIRMED, self.confirmed),
            (list::ORDER_SCRAPPED, self.scrapped),
            (list::ORDER_LEFT, self.left),
        ] {
            set(name, labels, number as f64);
        }
        moment(list::ORDER_EXPECTED_END, labels, self.expected_end);
    }
}

fn tokens(tokens: &[Token]) {
    let mut queued = BTreeMap::new();
    for token in tokens {
        let labels = &[("issuer", token.issuer.as_str()), ("token", token.token.as_str())];
        set(list::HSM_SESSIONS, labels, token.working as f64);
        set(list::HSM_SESSIONS_WANTED, labels, token.wanted as f64);
        set(list::HSM_SESSIONS_BUSY, labels, token.busy as f64);
        set(list::HSM_CALLS_HUNG, labels, token.hung as f64);
        flag(list::HSM_BREAKER_OPEN, labels, token.outage.is_some());
        flag(list::HSM_NEEDS_OPERATOR, labels, token.needs_operator);
        // The tokens of an issuer share a queue.
        queued.insert(&token.issuer, token.queued);
    }
    for (issuer, queued) in queued {
        set(list::HSM_QUEUE_DEPTH, &[("issuer", issuer.as_str())], queued as f64);
    }
}

impl RevocationList {
    fn set_metrics(&self) {
        let labels = &[("issuer", self.issuer.as_str())];
        set(list::CRL_NUMBER, labels, self.number as f64);
        moment(list::CRL_THIS_UPDATE, labels, Some(self.made));
        moment(list::CRL_NEXT_UPDATE, labels, Some(self.expires));
        set(list::CRL_ENTRIES, labels, self.entries as f64);
        set(list::CRL_BYTES, labels, self.bytes as f64);
    }
}

impl Waiting {
    fn set_metrics(&self, now: Timestamp) {
        let labels = &[("destination", self.destination.as_str())];
        let age =
            |since: Option<Timestamp>| since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
        set(list::DESTINATION_BACKLOG, labels, self.certificates as f64);
        set(list::DESTINATION_BACKLOG_AGE, labels, age(self.since));
        set(list::DESTINATION_WITHDRAWALS, labels, self.withdrawals as f64);
        set(list::DESTINATION_UNFIT, labels, self.unfit as f64);
        set(list::DESTINATION_UNACKNOWLEDGED, labels, f64::from(self.unacknowledged));
        set(list::DESTINATION_UNACKNOWLEDGED_AGE, labels, age(self.unacknowledged_since));
        flag(list::DESTINATION_HELD, labels, self.held.is_some());
    }
}
