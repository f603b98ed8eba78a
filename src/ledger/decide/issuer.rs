//! Issuers, and the generations of their names.

use std::sync::Arc;

use jiff::Timestamp;

use super::decision::Decision;
use crate::ledger::{
    entry::Event,
    issuer::{IssuerTerms, RecordedIssuer},
    operation::Outcome,
    view::View,
};

/// The same name with the same chain is the issuer that was recorded; any other chain is the name's next generation.
pub(super) fn add(view: &View<'_>, now: Timestamp, terms: &IssuerTerms) -> Decision {
    let mut of_the_name = view.issuers().filter(|issuer| issuer.name == terms.name);
    if let Some(issuer) = of_the_name.clone().find(|issuer| issuer.chain == terms.chain) {
        return (Outcome::Issuer { issuer: Arc::clone(issuer), retry: true }, None);
    }
    let id = view.issuers().next_back().map_or(1, |newest| newest.id + 1);
    let generation = of_the_name.next_back().map_or(1, |newest| newest.generation + 1);
    let IssuerTerms { name, chain, crl_shards } = terms.clone();
    let issuer = Arc::new(RecordedIssuer { id, name, generation, chain, crl_shards, added_at: now });
    let event = Event::IssuerAdded { id, generation, terms: terms.clone() };
    (Outcome::Issuer { issuer, retry: false }, Some(event))
}
