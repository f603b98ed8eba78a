//! The components whose state decides whether the daemon is ready; the table is in [`crate::readiness`].

use std::{fmt::Display, sync::Arc};

use jiff::Timestamp;
use tokio::sync::watch;

use super::open::Opened;
use crate::{
    expiry::{self, Purpose},
    readiness::{Component, Readiness},
};

/// Their checks, and what only degrades the service.
pub(super) fn readiness(draining: &watch::Receiver<bool>, opened: &Opened) -> Readiness {
    let Opened { pools, watched, profiles, records, publisher, .. } = opened;
    let (mut checks, mut warnings): (Vec<Component>, Vec<Component>) = (Vec::new(), Vec::new());
    for (issuer, pool) in pools {
        let component = format!("hsm of issuer {issuer}");
        let (healthy, degraded) = (Arc::clone(pool), Arc::clone(pool));
        checks.push((component.clone(), Box::new(move || cause(healthy.healthy()))));
        warnings.push((component, Box::new(move || degraded.degraded())));
    }
    if let Some(publisher) = publisher {
        for issuer in &publisher.issuers {
            let component = format!("revocation list of issuer {}", issuer.issuer.name());
            let (publisher, issuer) = (Arc::clone(publisher), Arc::clone(issuer));
            warnings.push((component, Box::new(move || publisher.degraded(&issuer))));
        }
    }
    for name in profiles.keys() {
        let component = format!("profile {name}");
        let (profiles, name) = (Arc::clone(profiles), name.clone());
        let check = move || cause(profiles.get(&name)?.check_issuer(Timestamp::now()));
        checks.push((component, Box::new(check)));
    }
    let (healthy, intact) = (records.clone(), records.clone());
    checks.push(("ledger".to_owned(), Box::new(move || cause(healthy.healthy()))));
    warnings.push(("ledger".to_owned(), Box::new(move || cause(intact.intact()))));
    let mirrored = records.clone();
    warnings.push(("journal mirror".to_owned(), Box::new(move || cause(mirrored.mirrored()))));
    for purpose in [Purpose::Server, Purpose::StationCa] {
        let certificates: Vec<_> = watched.iter().filter(|found| *found.purpose() == purpose).cloned().collect();
        let each = certificates.clone();
        checks.push((purpose.to_string(), Box::new(move || cause(expiry::check_any(&certificates, Timestamp::now())))));
        warnings.push((
            purpose.to_string(),
            // When none is valid, the check above says so.
            Box::new(move || {
                let now = Timestamp::now();
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
