//! The protobuf forms of what has many fields.

use super::invalid::InvalidEntry;
use crate::{
    ledger::{
        crl_issued::CrlIssued,
        proof::{ProofId, ProofTerms},
        record::Holder,
        recovery::Recovery,
        revoked::CaId,
        wire::{self, from_micros, to_micros},
    },
    serial::SerialNumber,
};

pub(super) fn encode_proof_reserved(serial_number: &SerialNumber, terms: &ProofTerms) -> wire::ProofReserved {
    wire::ProofReserved {
        serial_number: serial_number.as_bytes().to_vec(),
        code: terms.id.code.clone(),
        issuer_id: terms.id.issuer_id,
        key_sha256: terms.key_hash.to_vec(),
        not_after: to_micros(terms.not_after),
    }
}

/// The serial number and whose it is.
pub(super) fn decode_proof_reserved(reserved: wire::ProofReserved) -> Result<(SerialNumber, ProofTerms), InvalidEntry> {
    let terms = ProofTerms {
        id: ProofId { issuer_id: reserved.issuer_id, code: reserved.code },
        key_hash: reserved.key_sha256.as_slice().try_into().map_err(|_| InvalidEntry::KeyHash)?,
        not_after: from_micros(reserved.not_after)?,
    };
    Ok((SerialNumber::try_from(&*reserved.serial_number)?, terms))
}

/// A SHA-256.
pub(super) fn hash(octets: &[u8]) -> Result<[u8; 32], InvalidEntry> {
    octets.try_into().map_err(|_| InvalidEntry::Hash)
}

impl From<&Recovery> for wire::Recovered {
    fn from(Recovery { serial_number, certificate, holder, replaces, source }: &Recovery) -> wire::Recovered {
        wire::Recovered {
            serial_number: serial_number.as_bytes().to_vec(),
            certificate: certificate.clone(),
            device_id: holder.device.clone(),
            key_sha256: holder.key_hash.to_vec(),
            order: holder.order.clone(),
            profile: holder.profile.clone(),
            issuer: holder.issuer.clone(),
            issuer_id: holder.issuer_id,
            replaces: replaces.map_or(Vec::new(), |replaced| replaced.as_bytes().to_vec()),
            source: source.clone(),
        }
    }
}

impl TryFrom<wire::Recovered> for Recovery {
    type Error = InvalidEntry;

    fn try_from(recovered: wire::Recovered) -> Result<Recovery, InvalidEntry> {
        Ok(Recovery {
            serial_number: SerialNumber::try_from(&*recovered.serial_number)?,
            certificate: recovered.certificate,
            holder: Holder {
                device: recovered.device_id,
                key_hash: recovered.key_sha256.as_slice().try_into().map_err(|_| InvalidEntry::KeyHash)?,
                order: recovered.order,
                profile: recovered.profile,
                issuer: recovered.issuer,
                issuer_id: recovered.issuer_id,
            },
            replaces: replaced(&recovered.replaces)?,
            source: recovered.source,
        })
    }
}

impl From<&CrlIssued> for wire::CrlIssued {
    fn from(list: &CrlIssued) -> wire::CrlIssued {
        wire::CrlIssued {
            issuer: list.issuer.clone(),
            ca: list.ca.0.to_vec(),
            shard: list.shard.0.into(),
            shards: list.shard.1.into(),
            number: list.number,
            this_update: to_micros(list.this_update),
            next_update: to_micros(list.next_update),
            entries: list.entries,
            sha256: list.sha256.to_vec(),
        }
    }
}

impl TryFrom<wire::CrlIssued> for CrlIssued {
    type Error = InvalidEntry;

    fn try_from(list: wire::CrlIssued) -> Result<CrlIssued, InvalidEntry> {
        let small = |number: u32| u16::try_from(number).map_err(|_| InvalidEntry::Crl("shard"));
        Ok(CrlIssued {
            issuer: list.issuer,
            ca: CaId(list.ca.as_slice().try_into().map_err(|_| InvalidEntry::Crl("CA"))?),
            shard: (small(list.shard)?, small(list.shards)?),
            number: list.number,
            this_update: from_micros(list.this_update)?,
            next_update: from_micros(list.next_update)?,
            entries: list.entries,
            sha256: list.sha256.as_slice().try_into().map_err(|_| InvalidEntry::Crl("hash"))?,
        })
    }
}

/// The serial number of the certificate in whose place one comes; empty: none.
pub(super) fn replaced(octets: &[u8]) -> Result<Option<SerialNumber>, InvalidEntry> {
    match octets {
        [] => Ok(None),
        octets => Ok(Some(SerialNumber::try_from(octets)?)),
    }
}
