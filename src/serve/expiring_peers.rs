//! Certificates of stations, operators and auditors that expire soon: as metrics at any time, in the log once a day, and when one
//! has a week left for the first time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    ledger::{EnrolledPeer, Records},
    metrics,
};

const INTERVAL: Duration = Duration::from_secs(60);

/// After how many intervals the log tells all again.
const DAY: u32 = 24 * 60;

const MONTH: Duration = Duration::from_secs(30 * 86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// How many names one line has.
const NAMES: usize = 20;

/// Watches until the daemon ends.
pub(super) async fn watch(records: Arc<dyn Records>) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut told = BTreeSet::new();
    for round in 0_u32.. {
        interval.tick().await;
        let expiring = Expiring::of(&records.peers(), Timestamp::now());
        metrics::peer_certificates_expiring("7", expiring.week.len());
        metrics::peer_certificates_expiring("30", expiring.week.len() + expiring.month.len());
        let all = round.is_multiple_of(DAY);
        if all && !expiring.month.is_empty() {
            let (peers, number) = (names(&expiring.month), expiring.month.len());
            tracing::warn!(peers, number, "certificates expire within 30 days; stations renew theirs when they sign");
        }
        let new: Vec<_> = expiring.week.iter().filter(|peer| all || !told.contains(*peer)).cloned().collect();
        if !new.is_empty() {
            let (peers, number) = (names(&new), new.len());
            tracing::warn!(
                peers,
                number,
                "certificates expire within 7 days: renew them, or these can connect no more"
            );
        }
        told = expiring.week.into_iter().collect();
    }
}

/// Who has a newest certificate that expires soon, with its day; those that were revoked, or have expired, can connect no more.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expiring {
    week: Vec<String>,
    /// Those of the week left out.
    month: Vec<String>,
}

impl Expiring {
    fn of(peers: &[Arc<EnrolledPeer>], now: Timestamp) -> Expiring {
        let mut expiring = Expiring::default();
        for peer in peers {
            let usable = peer.certificates.iter().filter(|certificate| !certificate.revoked);
            let Some(not_after) = usable.map(|certificate| certificate.not_after).max() else { continue };
            let Ok(left) = Duration::try_from(not_after.duration_since(now)) else { continue };
            let named = format!("{} ({})", peer.name, not_after.strftime("%F"));
            match left {
                left if left < WEEK => expiring.week.push(named),
                left if left < MONTH => expiring.month.push(named),
                _ => {}
            }
        }
        expiring
    }
}

fn names(peers: &[String]) -> String {
    let more = peers.len().saturating_sub(NAMES);
    let mut text = peers.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Actor, EnrolmentMethod, PeerCertificate};

    fn peer(name: &str, ends: &[(&str, bool)]) -> Arc<EnrolledPeer> {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let certificates = ends.iter().map(|(not_after, revoked)| PeerCertificate {
            sha256: [0; 32],
            serial_number: vec![1],
            key_hash: [0; 32],
            not_before: time("2026-01-01T00:00:00Z"),
            not_after: time(not_after),
            enrolled_at: time("2026-01-01T00:00:00Z"),
            enrolled_by: Actor::daemon(),
            method: EnrolmentMethod::Csr,
            revoked: *revoked,
        });
        let certificates = certificates.collect();
        Arc::new(EnrolledPeer { number: 1, name: Actor(name.into()), certificates, revoked: None })
    }

    /// The newest certificate counts; one that was revoked or has expired lets nobody in anyway.
    #[test]
    fn peer_whose_newest_certificate_ends_soon_is_told() {
        let peers = [
            peer("station:l/renewed", &[("2026-03-03T00:00:00Z", false), ("2026-09-01T00:00:00Z", false)]),
            peer("station:l/week", &[("2026-03-07T00:00:00Z", false)]),
            peer("operator:month", &[("2026-03-20T00:00:00Z", false)]),
            peer("station:l/revoked", &[("2026-03-07T00:00:00Z", true)]),
            peer("station:l/over", &[("2026-02-01T00:00:00Z", false)]),
            peer("station:l/none", &[]),
        ];
        let found = Expiring::of(&peers, "2026-03-01T00:00:00Z".parse().unwrap());
        assert_eq!(found.week, ["station:l/week (2026-03-07)"]);
        assert_eq!(found.month, ["operator:month (2026-03-20)"]);
        let many: Vec<_> = (0..NAMES + 3).map(|number| number.to_string()).collect();
        assert!(names(&many).ends_with("19 and 3 more"), "{}", names(&many));
    }
}
