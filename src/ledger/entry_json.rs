//! The entries of the journal as JSON.

use serde_json::{Value, json};

use super::{
    acceptance::Agreed,
    batch::{BatchId, BatchTerms, Results},
    crl_issued::CrlIssued,
    device_list::{DevicesListed, ListedDevice},
    entry::{Entry, Event},
    order::OrderTerms,
    peer::Enrolment,
    proof::ProofTerms,
    record::Holder,
    recovery::Recovery,
    refused::RequestsRefused,
    vending::CreatedCodes,
};
use crate::{pattern::Pattern, pem::certificate_pem, serial::SerialNumber};

/// All that an entry states. Times have six decimals and octets are in hexadecimal digits, always.
pub fn entry_to_json(sequence: u64, entry: &Entry) -> Value {
    let mut object = json!({
        "sequence": sequence,
        "time": json_time(entry.time),
        "actor": entry.actor.to_string(),
        "event": entry.event.kind(),
    });
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields(&entry.event)) {
        object.extend(fields);
    }
    object
}

fn fields(event: &Event) -> Value {
    match event {
        Event::Reserved { serial_number, holder, replaces } => holder_to_json(serial_number, holder, replaces.as_ref()),
        Event::Issued { serial_number, certificate } => issued_to_json(serial_number, certificate),
        Event::Abandoned { serial_number, reason } => {
            json!({ "serial_number": serial_number.to_string(), "reason": reason })
        }
        Event::Confirmed { serial_number, order } => {
            json!({ "serial_number": serial_number.to_string(), "order": order })
        }
        Event::Scrapped { serial_number, reason } => {
            json!({ "serial_number": serial_number.to_string(), "reason": reason })
        }
        Event::Revoked { serial_number, reason } => {
            json!({ "serial_number": serial_number.to_string(), "reason": reason.name() })
        }
        Event::OrderCreated(terms) => order_to_json(terms),
        Event::ProofReserved { serial_number, terms } => proof_to_json(serial_number, terms),
        Event::ProofIssued { serial_number, certificate } => issued_to_json(serial_number, certificate),
        Event::OrderClosed { id } => json!({ "order": id }),
        Event::OrderQuantityChanged { id, quantity, reason } => {
            json!({ "order": id, "quantity": quantity, "reason": reason })
        }
        Event::OrderPaused { id, reason } => json!({ "order": id, "reason": reason }),
        Event::OrderResumed { id } => json!({ "order": id }),
        Event::OrderDevicesListed(list) => devices_to_json(list),
        Event::ApprovalRequested { number, what } => json!({ "number": number, "what": what }),
        Event::ApprovalGranted { number } => json!({ "number": number }),
        Event::ApprovalUsed { number } => json!({ "number": number }),
        Event::StationEnrolled(enrolment) => enrolment_to_json(enrolment),
        Event::StationRevoked { peer, reason, keep } => {
            let keep = keep.map(hex::encode);
            json!({ "peer": peer.to_string(), "reason": reason, "keep_key_sha256": keep })
        }
        Event::ExportCreated { id, certificates } => {
            json!({ "export": id.to_string(), "order": id.order, "certificates": certificates })
        }
        Event::ExportAcknowledged { id } => json!({ "export": id.to_string() }),
        Event::BatchCreated(terms) => batch_to_json(terms),
        Event::BatchSealed { id, seal } => json!({
            "batch": id.to_string(),
            "manifest_sha256": hex::encode(seal.manifest_sha256),
            "jws": seal.jws,
        }),
        Event::BatchAcknowledged { id, results } => acknowledgement_to_json(id, results.as_deref()),
        Event::CrlIssued(list) => list_to_json(list),
        Event::IssuerAdded { id, generation, terms } => json!({
            "issuer_id": id,
            "issuer": terms.name,
            "generation": generation,
            "crl_shards": terms.crl_shards,
            "chain_pem": terms.chain.iter().map(|certificate| certificate_pem(certificate)).collect::<Vec<_>>(),
        }),
        Event::Checkpoint { note, earlier_checkpoints_lost } => {
            json!({ "note": note, "earlier_checkpoints_lost": earlier_checkpoints_lost })
        }
        Event::LossAccepted { what, reason, agreed } => {
            with_agreements(json!({ "lost": what, "reason": reason }), agreed.as_deref())
        }
        Event::ClockAccepted { reason, agreed } => with_agreements(json!({ "reason": reason }), agreed.as_deref()),
        Event::VendingCodesCreated(created) => codes_to_json(created),
        Event::VendingCodeCancelled { device } => json!({ "device_id": device }),
        Event::Started { version, configuration } => {
            json!({ "version": version, "configuration_sha256": hex::encode(configuration) })
        }
        Event::Stopped { reason } => json!({ "reason": reason }),
        Event::ConfigurationLoaded { sha256, text } => {
            json!({ "configuration_sha256": hex::encode(sha256), "text": text })
        }
        Event::RequestsRefused(refused) => refused_to_json(refused),
        Event::Recovered(recovery) => recovery_to_json(recovery),
        Event::Opened { epoch, daemon } => json!({ "epoch": epoch, "daemon": daemon }),
        Event::Ended { epoch } => json!({ "epoch": epoch }),
    }
}

fn refused_to_json(refused: &RequestsRefused) -> Value {
    json!({
        "order": refused.order,
        "reason": refused.reason,
        "scope": refused.scope.as_str(),
        "count": refused.count,
        "device_ids": refused.devices,
        "since": json_time(refused.since),
        "dropped": refused.dropped,
    })
}

fn issued_to_json(serial_number: &SerialNumber, certificate: &[u8]) -> Value {
    json!({ "serial_number": serial_number.to_string(), "certificate_pem": certificate_pem(certificate) })
}

fn batch_to_json(terms: &BatchTerms) -> Value {
    let texts = |patterns: &[Pattern]| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>();
    json!({
        "batch": terms.id.to_string(),
        "first": terms.first,
        "end": terms.end,
        "profiles": texts(&terms.filter.profiles),
        "orders": texts(&terms.filter.orders),
        "only": terms.filter.moment,
        "settings": serde_json::from_str(&terms.settings).unwrap_or_else(|_| json!(terms.settings)),
        "unfit": terms.unfit.iter().map(|unfit| json!({
            "serial_number": unfit.serial_number.to_string(),
            "device_id": unfit.device,
            "reason": unfit.reason,
        })).collect::<Vec<_>>(),
        "again": terms.again.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "certificates": terms.certificates,
        "withdrawn": terms.withdrawn,
        "end_chain_hash": hex::encode(terms.chain),
    })
}

fn acknowledgement_to_json(id: &BatchId, results: Option<&Results>) -> Value {
    let Some(results) = results else { return json!({ "batch": id.to_string(), "results_sha256": null }) };
    json!({
        "batch": id.to_string(),
        "results_sha256": hex::encode(results.sha256),
        "registered": results.registered,
        "already": results.already,
        "withdrawn": results.withdrawn,
        "failed": results.failed.iter().map(|failed| json!({
            "serial_number": failed.serial_number.to_string(),
            "code": failed.code,
            "message": failed.message,
        })).collect::<Vec<_>>(),
    })
}

fn order_to_json(terms: &OrderTerms) -> Value {
    json!({
        "order": terms.id,
        "profile": terms.profile,
        "quantity": terms.quantity,
        "not_before": terms.not_before.map(json_time),
        "not_after": terms.not_after.map(json_time),
        "attributes": terms.attributes,
        "devices": terms.list.map(|list| list.devices),
        "devices_sha256": terms.list.map(|list| hex::encode(list.sha256)),
        "per_day": terms.per_day,
        "stations": terms.stations.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(),
    })
}

fn devices_to_json(list: &DevicesListed) -> Value {
    let device =
        |device: &ListedDevice| json!({ "device_id": device.id, "key_sha256": device.key_hash.map(hex::encode) });
    let devices: Vec<_> = list.devices.iter().map(device).collect();
    json!({ "order": list.order, "first": list.first, "devices": devices })
}

fn proof_to_json(serial_number: &SerialNumber, terms: &ProofTerms) -> Value {
    json!({
        "serial_number": serial_number.to_string(),
        "code": terms.id.code,
        "issuer_id": terms.id.issuer_id,
        "key_sha256": hex::encode(terms.key_hash),
        "not_after": json_time(terms.not_after),
    })
}

fn enrolment_to_json(enrolment: &Enrolment) -> Value {
    json!({
        "peer": enrolment.peer.to_string(),
        "serial_number": hex::encode(&enrolment.serial_number),
        "key_sha256": hex::encode(enrolment.key_hash),
        "not_before": json_time(enrolment.not_before),
        "not_after": json_time(enrolment.not_after),
        "method": enrolment.method.as_str(),
        "listed_by": enrolment.listed.as_ref().map(|(_, by)| by.to_string()),
        "listed_at": enrolment.listed.as_ref().map(|(at, _)| json_time(*at)),
        "certificate_pem": certificate_pem(&enrolment.certificate),
    })
}

fn list_to_json(list: &CrlIssued) -> Value {
    json!({
        "issuer": list.issuer,
        "ca": hex::encode(list.ca.0),
        "shard": list.shard.0,
        "shards": list.shard.1,
        "number": list.number,
        "this_update": json_time(list.this_update),
        "next_update": json_time(list.next_update),
        "entries": list.entries,
        "sha256": hex::encode(list.sha256),
    })
}

/// Without the codes' hashes, which would only help to guess them.
fn codes_to_json(created: &CreatedCodes) -> Value {
    let terms = &created.terms;
    json!({
        "batch": created.batch,
        "order": terms.order,
        "expires": json_time(terms.expires),
        "devices": terms.codes.iter().map(|code| &code.device).collect::<Vec<_>>(),
        "replaces": created.replaces.iter().map(|replaced| replaced.as_ref().map(ToString::to_string)).collect::<Vec<_>>(),
    })
}

/// RFC 3339 with six decimals always, so that times sort as text.
pub fn json_time(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

/// A serial number, and whom and what it is for.
/// With who agreed, and the statement that they signed, where that was needed.
fn with_agreements(mut fields: Value, agreed: Option<&Agreed>) -> Value {
    if let Some(agreed) = agreed {
        let agreements = agreed.agreements.iter().map(|agreement| {
            json!({
                "operator": agreement.by.to_string(),
                "certificate_pem": certificate_pem(&agreement.certificate),
                "signature": hex::encode(&agreement.signature),
            })
        });
        fields["agreed_by"] = agreements.collect();
        fields["statement"] = agreed.statement.clone().into();
    }
    fields
}

fn holder_to_json(serial_number: &SerialNumber, holder: &Holder, replaces: Option<&SerialNumber>) -> Value {
    json!({
        "serial_number": serial_number.to_string(),
        "device_id": holder.device,
        "key_sha256": hex::encode(holder.key_hash),
        "order": holder.order,
        "profile": holder.profile,
        "issuer": holder.issuer,
        "issuer_id": holder.issuer_id,
        "replaces": replaces.map(ToString::to_string),
    })
}

fn recovery_to_json(Recovery { serial_number, certificate, holder, replaces, source }: &Recovery) -> Value {
    let mut fields = holder_to_json(serial_number, holder, replaces.as_ref());
    fields["source"] = json!(source);
    fields["certificate_pem"] = json!(certificate_pem(certificate));
    fields
}
