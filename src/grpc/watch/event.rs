//! An entry of the ledger as an event.

use crate::{
    ledger::{
        LedgerError, Records, Recovery, RequestsRefused,
        entry::{Entry, Event},
    },
    proto::{self, WatchReply},
    serial::SerialNumber,
};

/// An entry as an event; what it does not hold itself is looked up.
#[expect(clippy::too_many_lines, reason = "one arm for each event")]
pub(super) fn event(records: &dyn Records, sequence: u64, entry: Entry) -> Result<WatchReply, LedgerError> {
    let Entry { time, actor, event } = entry;
    let reply =
        WatchReply { sequence, time: Some(proto::timestamp(time)), actor: actor.to_string(), ..WatchReply::default() };
    let kind = |kind: &str| WatchReply { event: kind.into(), ..reply.clone() };
    let because = |name: &str, reason: String| WatchReply { reason, ..kind(name) };
    let of_order = |name: &str, order: String, reason: String| WatchReply { order, reason, ..kind(name) };
    let counted = |reply: WatchReply, count: u64| WatchReply { count, ..reply };
    let of_certificate = |name: &str, serial: SerialNumber, reason: String| {
        Ok(WatchReply { reason, ..with_record(records, serial, kind(name))? })
    };
    Ok(match event {
        Event::Reserved { serial_number, holder, .. } => WatchReply {
            serial_number: serial_number.as_bytes().to_vec().into(),
            device_id: holder.device,
            order: holder.order,
            profile: holder.profile,
            ..kind("reserved")
        },
        Event::Issued { serial_number, .. } => return of_certificate("issued", serial_number, String::new()),
        Event::Recovered(Recovery { serial_number, .. }) => {
            return of_certificate("recovered", serial_number, String::new());
        }
        Event::Confirmed { serial_number, .. } => return of_certificate("confirmed", serial_number, String::new()),
        Event::Scrapped { serial_number, reason } => return of_certificate("scrapped", serial_number, reason),
        Event::Revoked { serial_number, reason } => {
            return of_certificate("revoked", serial_number, reason.name().to_owned());
        }
        Event::Abandoned { serial_number, reason } => return of_certificate("abandoned", serial_number, reason),
        Event::RequestsRefused(refused) => {
            let RequestsRefused { order, reason, scope, count, devices, since, dropped } = *refused;
            WatchReply {
                scope: scope.as_str().into(),
                device_ids: devices,
                since: Some(proto::timestamp(since)),
                dropped,
                ..counted(of_order("refused", order, reason), count)
            }
        }
        Event::OrderCreated(terms) => {
            let created = of_order("order_created", terms.id, String::new());
            WatchReply { profile: terms.profile, ..counted(created, terms.quantity) }
        }
        Event::OrderClosed { id } => of_order("order_closed", id, String::new()),
        Event::OrderQuantityChanged { id, quantity, reason } => {
            counted(of_order("order_quantity_changed", id, reason), quantity)
        }
        Event::OrderPaused { id, reason } => of_order("order_paused", id, reason),
        Event::OrderResumed { id } => of_order("order_resumed", id, String::new()),
        Event::OrderDevicesListed(list) => {
            let listed = counted(of_order("order_devices_listed", list.order, String::new()), list.first);
            WatchReply { device_ids: list.devices.into_iter().map(|device| device.id).collect(), ..listed }
        }
        Event::ExportCreated { id, .. } => of_order("export_created", id.order.clone(), id.to_string()),
        Event::ExportAcknowledged { id } => of_order("export_acknowledged", id.order.clone(), id.to_string()),
        Event::VendingCodesCreated(created) => {
            let (batch, terms) = (created.batch, created.terms);
            let codes = counted(of_order("vending_codes_created", terms.order, String::new()), u64::from(batch));
            WatchReply { device_ids: terms.codes.into_iter().map(|code| code.device).collect(), ..codes }
        }
        Event::VendingCodeCancelled { device } => {
            WatchReply { device_ids: vec![device], ..kind("vending_code_cancelled") }
        }
        Event::ApprovalRequested { number, what } => counted(because("approval_requested", what), number),
        Event::ApprovalGranted { number } => counted(kind("approval_granted"), number),
        Event::ApprovalUsed { number } => counted(kind("approval_used"), number),
        Event::BatchCreated(terms) => counted(because("batch_created", terms.id.to_string()), terms.certificates),
        Event::BatchSealed { id, .. } => because("batch_sealed", id.to_string()),
        Event::BatchAcknowledged { id, results } => {
            let failed = results.map_or(0, |results| results.failed.len() as u64);
            counted(because("batch_acknowledged", id.to_string()), failed)
        }
        Event::StationEnrolled(enrolment) => {
            WatchReply { peer: enrolment.peer.to_string(), ..kind("station_enrolled") }
        }
        Event::StationRevoked { peer, reason, .. } => {
            WatchReply { peer: peer.to_string(), ..because("station_revoked", reason) }
        }
        Event::IssuerAdded { generation, terms, .. } => {
            counted(because("issuer_added", terms.name), u64::from(generation))
        }
        Event::CrlIssued(list) => counted(because("crl_issued", list.issuer), list.number),
        Event::ProofReserved { serial_number, terms } => WatchReply {
            serial_number: serial_number.as_bytes().to_vec().into(),
            ..because("proof_reserved", terms.id.code)
        },
        Event::ProofIssued { serial_number, .. } => {
            WatchReply { serial_number: serial_number.as_bytes().to_vec().into(), ..kind("proof_issued") }
        }
        Event::Started { version, .. } => because("started", version),
        Event::Stopped { reason } => because("stopped", reason),
        Event::ConfigurationLoaded { sha256, .. } => because("configuration_loaded", hex::encode(sha256)),
        Event::Opened { epoch, daemon } => counted(because("opened", daemon), epoch),
        Event::Ended { epoch } => counted(kind("ended"), epoch),
        Event::Checkpoint { .. } => kind("checkpoint"),
        Event::LossAccepted { reason, .. } => because("loss_accepted", reason),
        Event::ClockAccepted { reason, .. } => because("clock_accepted", reason),
    })
}

/// With what is recorded of a certificate.
fn with_record(records: &dyn Records, serial: SerialNumber, reply: WatchReply) -> Result<WatchReply, LedgerError> {
    let holder = records.by_serial_number(&serial)?.map(|record| record.holder);
    let (device_id, order, profile) =
        holder.map(|holder| (holder.device, holder.order, holder.profile)).unwrap_or_default();
    Ok(WatchReply { serial_number: serial.as_bytes().to_vec().into(), device_id, order, profile, ..reply })
}
