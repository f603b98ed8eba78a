//! What the ledger has about a certificate, as those who write files need it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::error::BatchError;
use crate::{
    ca::issuer_of,
    export::certificate::{Certificate, Issuer},
    hash::sha256,
    ledger::{LedgerError, Member, RecordedIssuer, Records},
};

/// Describes certificates; it remembers their issuers and orders.
pub(super) struct Describer {
    records: Arc<dyn Records>,
    recorded: Vec<Arc<RecordedIssuer>>,
    issuers: HashMap<u32, Arc<Issuer>>,
    orders: HashMap<String, Arc<BTreeMap<String, String>>>,
}

/// A certificate with what stands beside it.
pub(super) struct Described {
    member: Member,
    issuer: Arc<Issuer>,
    attributes: Arc<BTreeMap<String, String>>,
    certificate_id: String,
}

impl Describer {
    pub(super) fn new(records: &Arc<dyn Records>) -> Self {
        let recorded = records.issuers();
        Describer { records: Arc::clone(records), recorded, issuers: HashMap::new(), orders: HashMap::new() }
    }

    pub(super) fn describe(&mut self, member: Member) -> Result<Described, BatchError> {
        let holder = &member.record.holder;
        let der = member.record.issued.as_ref().map_or(&[][..], |issued| &issued.certificate);
        let found = issuer_of(der, (&holder.issuer, holder.issuer_id), &self.recorded)?;
        let issuer = match self.issuers.get(&found.id) {
            Some(issuer) => Arc::clone(issuer),
            None => {
                let issuer = Arc::new(Issuer::new(found.name.clone(), &found.chain)?);
                self.issuers.insert(found.id, Arc::clone(&issuer));
                issuer
            }
        };
        let certificate_id = hex::encode(sha256(der));
        let attributes = self.attributes(&member.record.holder.order)?;
        Ok(Described { issuer, attributes, certificate_id, member })
    }

    fn attributes(&mut self, order: &str) -> Result<Arc<BTreeMap<String, String>>, LedgerError> {
        if let Some(known) = self.orders.get(order) {
            return Ok(Arc::clone(known));
        }
        let found = self.records.order(order)?.map(|order| order.terms.attributes).unwrap_or_default();
        let found = Arc::new(found);
        self.orders.insert(order.to_owned(), Arc::clone(&found));
        Ok(found)
    }
}

impl Described {
    pub(super) fn certificate(&self) -> Certificate<'_> {
        let Member { record, confirmed_at } = &self.member;
        let issued = record.issued.as_ref();
        Certificate {
            serial_number: record.serial_number.as_bytes(),
            der: issued.map_or(&[][..], |issued| &issued.certificate),
            certificate_id: &self.certificate_id,
            device_id: &record.holder.device,
            order: &record.holder.order,
            profile: &record.holder.profile,
            station: record.actor.station().unwrap_or_default(),
            issuer: &self.issuer,
            key_sha256: &record.holder.key_hash,
            issued_at: issued.map_or(record.reserved_at, |issued| issued.at),
            confirmed_at: *confirmed_at,
            replaces: record.replaces.as_ref().map(|replaced| &replaced.as_bytes()[..]),
            order_attributes: &self.attributes,
        }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }
}
