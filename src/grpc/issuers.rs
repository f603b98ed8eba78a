//! Issuers of the ledger, as the protocol has them.

use std::{collections::BTreeSet, sync::Arc};

use crate::{ledger::RecordedIssuer, profile::Profiles, proto, x509::Certificate};

/// An issuer with its chain.
pub(super) fn issuer_message(issuer: &RecordedIssuer) -> proto::Issuer {
    let RecordedIssuer { id, name, generation, chain, .. } = issuer.clone();
    proto::Issuer { name, chain, generation, id }
}

/// All issuers of the ledger, with what the profiles do with them.
pub(super) fn list(issuers: &[Arc<RecordedIssuer>], profiles: &Profiles) -> proto::ListIssuersReply {
    let used = profiles.values().flat_map(|profile| profile.issuers()).filter_map(|(_, issuer)| issuer.recorded());
    let used: BTreeSet<u32> = used.map(|issuer| issuer.id).collect();
    let issuers = issuers.iter().map(|issuer| {
        // Checked before it was recorded.
        let ca = issuer.chain.first().and_then(|ca| Certificate::from_der(ca).ok());
        proto::RecordedIssuer {
            issuer: Some(issuer_message(issuer)),
            added_at: Some(proto::timestamp(issuer.added_at)),
            in_use: used.contains(&issuer.id),
            subject: ca.as_ref().map(|ca| ca.subject().to_string()).unwrap_or_default(),
            serial_number: ca.map(|ca| ca.serial_number.into()).unwrap_or_default(),
        }
    });
    proto::ListIssuersReply { issuers: issuers.collect() }
}
