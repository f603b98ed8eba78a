//! The entries of the journal as JSON.

use birthmark::{
    ledger::{
        BatchId, BatchTerms, CrlIssued, DevicesListed, Enrolment, Holder, ListedDevice, OrderTerms, ProofTerms,
        Recovery, RequestsRefused, Results, entry::Event, journal::ScannedFrame,
    },
    pattern::Pattern,
    pem::certificate_pem,
    serial::SerialNumber,
};
use serde_json::{Value, json};

/// All that an entry states, and where it is.
#[expect(clippy::too_many_lines, reason = "one arm for each event")]
pub(super) fn entry_to_json(frame: &ScannedFrame) -> Value {
    let (kind, fields) = match &frame.entry.event {
        Event::Reserved { serial_number, holder, replaces } => {
            ("reserved", holder_to_json(serial_number, holder, replaces.as_ref()))
        }
        Event::Issued { serial_number, certificate } => ("issued", issued_to_json(serial_number, certificate)),
        Event::Abandoned { serial_number, reason } => {
            ("abandoned", json!({ "serial_number": serial_number.to_string(), "reason": reason }))
        }
        Event::Confirmed { serial_number, order } => {
            ("confirmed", json!({ "serial_number": serial_number.to_string(), "order": order }))
        }
        Event::Scrapped { serial_number, reason } => {
            ("scrapped", json!({ "serial_number": serial_number.to_string(), "reason": reason }))
        }
        Event::Revoked { serial_number, reason } => {
            ("revoked", json!({ "serial_number": serial_number.to_string(), "reason": reason.name() }))
        }
        Event::OrderCreated(terms) => ("order_created", order_to_json(terms)),
        Event::ProofReserved { serial_number, terms } => ("proof_reserved", proof_to_json(serial_number, terms)),
        Event::ProofIssued { serial_number, certificate } => {
            ("proof_issued", issued_to_json(serial_number, certificate))
        }
        Event::OrderClosed { id } => ("order_closed", json!({ "order": id })),
        Event::OrderQuantityChanged { id, quantity, reason } => {
            ("order_quantity_changed", json!({ "order": id, "quantity": quantity, "reason": reason }))
        }
        Event::OrderPaused { id, reason } => ("order_paused", json!({ "order": id, "reason": reason })),
        Event::OrderResumed { id } => ("order_resumed", json!({ "order": id })),
        Event::OrderDevicesListed(list) => ("order_devices_listed", devices_to_json(list)),
        Event::ApprovalRequested { number, what } => ("approval_requested", json!({ "number": number, "what": what })),
        Event::ApprovalGranted { number } => ("approval_granted", json!({ "number": number })),
        Event::ApprovalUsed { number } => ("approval_used", json!({ "number": number })),
        Event::StationEnrolled(enrolment) => ("station_enrolled", enrolment_to_json(enrolment)),
        Event::StationRevoked { peer, reason, keep } => {
            let keep = keep.map(hex::encode);
            ("station_revoked", json!({ "peer": peer.to_string(), "reason": reason, "keep_key_sha256": keep }))
        }
        Event::ExportCreated { id, certificates } => {
            ("export_created", json!({ "export": id.to_string(), "order": id.order, "certificates": certificates }))
        }
        Event::ExportAcknowledged { id } => ("export_acknowledged", json!({ "export": id.to_string() })),
        Event::BatchCreated(terms) => ("batch_created", batch_to_json(terms)),
        Event::BatchSealed { id, seal } => (
            "batch_sealed",
            json!({
                "batch": id.to_string(),
                "manifest_sha256": hex::encode(seal.manifest_sha256),
                "jws": seal.jws,
            }),
        ),
        Event::BatchAcknowledged { id, results } => {
            ("batch_acknowledged", acknowledgement_to_json(id, results.as_deref()))
        }
        Event::CrlIssued(list) => ("crl_issued", list_to_json(list)),
        Event::IssuerAdded { id, generation, terms } => (
            "issuer_added",
            json!({
                "issuer_id": id,
                "issuer": terms.name,
                "generation": generation,
                "crl_shards": terms.crl_shards,
                "chain_pem": terms.chain.iter().map(|certificate| certificate_pem(certificate)).collect::<Vec<_>>(),
            }),
        ),
        Event::Checkpoint { note, earlier_checkpoints_lost } => {
            ("checkpoint", json!({ "note": note, "earlier_checkpoints_lost": earlier_checkpoints_lost }))
        }
        Event::LossAccepted { what, reason } => ("loss_accepted", json!({ "lost": what, "reason": reason })),
        Event::ClockAccepted { reason } => ("clock_accepted", json!({ "reason": reason })),
        // Without the hashes, which are of no use to people.
        Event::VendingCodesCreated(created) => (
            "vending_codes_created",
            json!({
                "batch": created.batch,
                "order": created.terms.order,
                "expires": time(created.terms.expires),
                "devices": created.terms.codes.iter().map(|code| &code.device).collect::<Vec<_>>(),
            }),
        ),
        Event::RequestsRefused(refused) => ("refused", refused_to_json(refused)),
        Event::VendingCodeCancelled { device } => ("vending_code_cancelled", json!({ "device_id": device })),
        Event::Started { version, configuration } => {
            ("started", json!({ "version": version, "configuration_sha256": hex::encode(configuration) }))
        }
        Event::Stopped { reason } => ("stopped", json!({ "reason": reason })),
        Event::ConfigurationLoaded { sha256, text } => {
            ("configuration_loaded", json!({ "configuration_sha256": hex::encode(sha256), "text": text }))
        }
        Event::Recovered(recovery) => ("recovered", recovery_to_json(recovery)),
    };
    let mut entry = json!({
        "sequence": frame.sequence,
        "time": time(frame.entry.time),
        "actor": frame.entry.actor.to_string(),
        "event": kind,
    });
    if let (Some(entry), Value::Object(fields)) = (entry.as_object_mut(), fields) {
        entry.extend(fields);
        entry.insert("chain_hash".into(), hex::encode(frame.chain).into());
        entry.insert("file".into(), format!("{:08}.journal", frame.file).into());
        entry.insert("offset".into(), frame.offset.into());
    }
    entry
}

fn refused_to_json(refused: &RequestsRefused) -> Value {
    json!({
        "order": refused.order,
        "reason": refused.reason,
        "scope": refused.scope.as_str(),
        "count": refused.count,
        "device_ids": refused.devices,
        "since": time(refused.since),
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
        "not_before": terms.not_before.map(time),
        "not_after": terms.not_after.map(time),
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
        "not_after": time(terms.not_after),
    })
}

fn enrolment_to_json(enrolment: &Enrolment) -> Value {
    json!({
        "peer": enrolment.peer.to_string(),
        "serial_number": hex::encode(&enrolment.serial_number),
        "key_sha256": hex::encode(enrolment.key_hash),
        "not_before": time(enrolment.not_before),
        "not_after": time(enrolment.not_after),
        "method": enrolment.method.as_str(),
        "listed_by": enrolment.listed.as_ref().map(|(_, by)| by.to_string()),
        "listed_at": enrolment.listed.as_ref().map(|(at, _)| time(*at)),
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
        "this_update": time(list.this_update),
        "next_update": time(list.next_update),
        "entries": list.entries,
        "sha256": hex::encode(list.sha256),
    })
}

/// RFC 3339 with six decimals always, so that times sort as text.
pub(super) fn time(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

/// A serial number, and whom and what it is for.
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
