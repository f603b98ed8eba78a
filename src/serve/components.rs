//! The components whose state decides whether the daemon is ready; the table is in [`crate::readiness`].

use std::{collections::BTreeSet, fmt::Display, sync::Arc};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{open::Opened, reload::Replaceable};
use crate::{
    expiry::{self, MonitoredCertificate, Purpose},
    live::Live,
    metrics::AUDIT,
    readiness::{Component, Readiness},
};

/// Their checks, and what only degrades the service.
pub(super) fn readiness(draining: &watch::Receiver<bool>, opened: &Opened) -> Readiness {
    let Opened { pools, records, publisher, signers, .. } = opened;
    let Replaceable { policy, watched, .. } = &opened.replaceable;
    let (mut checks, mut warnings): (Vec<Component>, Vec<Component>) = (Vec::new(), Vec::new());
    for (issuer, pool) in pools {
        let component = format!("hsm of issuer {issuer}");
        let (healthy, degraded) = (Arc::clone(pool), Arc::clone(pool));
        let check = move || {
            let cause = healthy.healthy().err()?;
            Some(format!(
                "{cause}; operations have to look at the HSM, and stations go on by themselves when it signs again"
            ))
        };
        checks.push((component.clone(), Box::new(check)));
        warnings.push((component, Box::new(move || degraded.degraded())));
    }
    if let Some(audit) = signers.get(AUDIT).map(Arc::clone) {
        let outage = move || {
            let outage = audit.figures().into_iter().find_map(|token| token.outage)?;
            Some(format!("{outage}; certificates are made, and checkpoints and signed manifests are not"))
        };
        warnings.push(("hsm of the audit key".to_owned(), Box::new(outage)));
    }
    if let Some(publisher) = publisher {
        for issuer in &publisher.issuers {
            let component = format!("revocation list of issuer {}", issuer.issuer.name());
            let (publisher, issuer) = (Arc::clone(publisher), Arc::clone(issuer));
            warnings.push((component, Box::new(move || publisher.degraded(&issuer))));
        }
    }
    let at_start: BTreeSet<_> = policy.get().profiles.keys().cloned().collect();
    for name in &at_start {
        let (policy, component, name) = (Arc::clone(policy), format!("profile {name}"), name.clone());
        let check = move || cause(policy.get().profiles.get(&name)?.check_issuer(Timestamp::now()));
        checks.push((component, Box::new(check)));
    }
    let reloaded = Arc::clone(policy);
    let check_later_ones = move || {
        let policy = reloaded.get();
        let later = policy.profiles.iter().filter(|(name, _)| !at_start.contains(*name));
        let mut wrong = later.filter_map(|(name, profile)| Some((name, profile.check_issuer(Timestamp::now()).err()?)));
        wrong.next().map(|(name, error)| format!("{name}: {error}"))
    };
    checks.push(("profiles".to_owned(), Box::new(check_later_ones)));
    let (healthy, intact) = (records.clone(), records.clone());
    checks.push(("ledger".to_owned(), Box::new(move || cause(healthy.healthy()))));
    warnings.push(("ledger".to_owned(), Box::new(move || cause(intact.intact()))));
    let mirrored = records.clone();
    warnings.push(("journal mirror".to_owned(), Box::new(move || cause(mirrored.mirrored()))));
    for purpose in [Purpose::Server, Purpose::StationCa] {
        let of = |watched: &Arc<Live<Vec<MonitoredCertificate>>>| {
            let (watched, purpose) = (Arc::clone(watched), purpose.clone());
            move || -> Vec<_> { watched.get().iter().filter(|found| *found.purpose() == purpose).cloned().collect() }
        };
        let (certificates, each) = (of(watched), of(watched));
        let check = move || cause(expiry::check_any(&certificates(), Timestamp::now()));
        checks.push((purpose.to_string(), Box::new(check)));
        warnings.push((
            purpose.to_string(),
            // When none is valid, the check above says so.
            Box::new(move || {
                let (now, each) = (Timestamp::now(), each());
                expiry::check_any(&each, now).ok()?;
                cause(each.iter().try_for_each(|certificate| certificate.check(now)))
            }),
        ));
    }
    Readiness::new(draining.clone(), checks, warnings)
}

fn cause(result: Result<(), impl Display>) -> Option<String> {
    result.err().map(|error| error.to_string())
}
