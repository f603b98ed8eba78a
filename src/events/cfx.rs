//! Messages of IPC-CFX (IPC-2591), as the SDK of its committee writes them: github.com/IPCConnectedFactoryExchange/CFX,
//! CFXEnvelope.cs, Production/WorkStarted.cs, Production/WorkCompleted.cs, Production/UnitsDisqualified.cs,
//! ResourcePerformance/FaultOccurred.cs, Heartbeat.cs and EndpointShuttingDown.cs, with what Structures/ has for them.
//!
//! | event | messages |
//! |---|---|
//! | reserved | WorkStarted |
//! | issued, recovered | WorkCompleted, Completed (recovered: after its WorkStarted) |
//! | abandoned | WorkCompleted, Aborted |
//! | refused, for the device's sake | for each device that is named: WorkStarted, WorkCompleted, Failed |
//! | refused, whatever for | FaultOccurred: a warning; an error if it is the daemon's fault |
//! | scrapped, revoked | UnitsDisqualified |

use jiff::Timestamp;
use serde_json::{Value, json};

use super::id::uuid;
use crate::proto::{self, WatchReply};

/// The revision of the standard whose fields these are.
const VERSION: &str = "2.1";

/// A message in its envelope.
pub(super) struct CfxMessage {
    /// `CFX.Production.WorkStarted`.
    pub(super) name: &'static str,
    pub(super) envelope: Value,
}

/// What an event is in CFX; nothing for most.
pub(super) fn messages(handle: &str, event: &WatchReply) -> Vec<CfxMessage> {
    let of = Of { handle, event, time: time(event.time.as_ref()) };
    let device = event.device_id.as_str();
    let transaction = || uuid(&[handle.as_bytes(), b"certificate", &event.serial_number]);
    let bodies = match event.event.as_str() {
        "reserved" => vec![of.started(&transaction(), device)],
        "issued" => vec![of.completed(&transaction(), device, "Completed", "Pass")],
        "recovered" => {
            vec![of.started(&transaction(), device), of.completed(&transaction(), device, "Completed", "Pass")]
        }
        "abandoned" => vec![of.completed(&transaction(), device, "Aborted", "Fail")],
        "scrapped" => vec![of.disqualified("DefectiveRepairNotPossible", &event.reason)],
        "revoked" => vec![of.disqualified("DefectiveRepairNotFeasible", &format!("revoked: {}", event.reason))],
        "refused" => {
            let failed = event.device_ids.iter().filter(|_| event.scope == "device").flat_map(|device| {
                let sequence = event.sequence.to_be_bytes();
                let transaction =
                    uuid(&[handle.as_bytes(), b"refused", &sequence, of.time.as_bytes(), device.as_bytes()]);
                [of.started(&transaction, device), of.completed(&transaction, device, "Failed", "Fail")]
            });
            failed.chain([of.fault()]).collect()
        }
        _ => Vec::new(),
    };
    let envelope = |(index, (name, body)): (usize, (&'static str, Value))| {
        let id = message_id(handle, event, &of.time, name, index);
        CfxMessage { name, envelope: envelope(name, &of.time, &id, handle, body) }
    };
    bodies.into_iter().enumerate().map(envelope).collect()
}

/// The endpoint is there. `now` is when it is said.
pub(super) fn heartbeat(handle: &str, seconds: u64, now: Timestamp) -> CfxMessage {
    let name = "CFX.Heartbeat";
    let frequency = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let body = json!({
        "CFXHandle": handle, "HeartbeatFrequency": frequency, "ActiveFaults": [], "ActiveRecipes": [],
    });
    of_endpoint(name, handle, now, body)
}

/// The endpoint is not there any more.
pub(super) fn shutting_down(handle: &str, now: Timestamp) -> CfxMessage {
    of_endpoint("CFX.EndpointShuttingDown", handle, now, json!({ "CFXHandle": handle }))
}

fn of_endpoint(name: &'static str, handle: &str, now: Timestamp, body: Value) -> CfxMessage {
    let time = format(now);
    let id = uuid(&[handle.as_bytes(), name.as_bytes(), time.as_bytes()]);
    CfxMessage { name, envelope: envelope(name, &time, &id, handle, body) }
}

/// The id of an event's message: the same whenever it is published.
pub(super) fn message_id(handle: &str, event: &WatchReply, time: &str, name: &str, index: usize) -> String {
    let (sequence, index) = (event.sequence.to_be_bytes(), (index as u64).to_be_bytes());
    uuid(&[handle.as_bytes(), &sequence, time.as_bytes(), name.as_bytes(), &index])
}

/// CFXEnvelope.cs; `$type` as Json.NET writes it for a member whose type is not that of the field.
fn envelope(name: &str, time: &str, id: &str, handle: &str, body: Value) -> Value {
    let mut typed = serde_json::Map::new();
    typed.insert("$type".into(), format!("{name}, CFX").into());
    if let Value::Object(fields) = body {
        typed.extend(fields);
    }
    json!({
        "MessageName": name,
        "Version": VERSION,
        "TimeStamp": time,
        "UniqueID": id,
        "Source": handle,
        "Target": null,
        "RequestID": null,
        "MessageBody": typed,
    })
}

/// The time of an event, as [`format()`].
pub(super) fn time(time: Option<&prost_types::Timestamp>) -> String {
    format(time.and_then(|time| proto::moment(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// As .NET's DateTime in JSON.
fn format(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// The bodies of an event's messages.
struct Of<'a> {
    handle: &'a str,
    event: &'a WatchReply,
    time: String,
}

impl Of<'_> {
    fn started(&self, transaction: &str, device: &str) -> (&'static str, Value) {
        let body = json!({
            "PrimaryIdentifier": device,
            "HermesIdentifier": null,
            "TransactionID": transaction,
            "Lane": null,
            "UnitCount": 1,
            "Units": [unit(device, "Pass")],
            "RecipeName": Some(&self.event.profile).filter(|profile| !profile.is_empty()),
            "Revision": null,
            "RelevantSurface": "PrimarySurface",
            "WorkOrderIdentifier": self.order(),
        });
        ("CFX.Production.WorkStarted", body)
    }

    fn completed(&self, transaction: &str, device: &str, result: &str, status: &str) -> (&'static str, Value) {
        let body = json!({
            "TransactionID": transaction,
            "Result": result,
            "PrimaryIdentifier": device,
            "HermesIdentifier": null,
            "UnitCount": 1,
            "Units": [unit(device, status)],
            "WorkOrderIdentifier": self.order(),
            "PerformanceImpacts": [],
        });
        ("CFX.Production.WorkCompleted", body)
    }

    fn disqualified(&self, reason: &str, comments: &str) -> (&'static str, Value) {
        let units = [unit(&self.event.device_id, "Scrap")];
        ("CFX.Production.UnitsDisqualified", json!({ "Reason": reason, "Comments": comments, "Units": units }))
    }

    fn fault(&self) -> (&'static str, Value) {
        let WatchReply { reason, count, scope, actor, sequence, since, .. } = self.event;
        let (cause, severity) = match scope.as_str() {
            "daemon" => ("SoftwareFailure", "Error"),
            _ => ("QualityCheck", "Warning"),
        };
        let station = actor.strip_prefix("station:");
        let stage = station.map(|station| json!({ "StageSequence": 1, "StageName": station, "StageType": "Work" }));
        let body = json!({
            "Fault": {
                "Cause": cause,
                "Severity": severity,
                "FaultCode": reason,
                "FaultOccurrenceId":
                    uuid(&[self.handle.as_bytes(), b"fault", &sequence.to_be_bytes(), self.time.as_bytes()]),
                "Lane": null,
                "Stage": stage,
                "SideLocation": "Unknown",
                "AccessType": "Unknown",
                "Description": format!("{count} request(s) of {actor} for a certificate refused: {reason}"),
                "DescriptionTranslations": {},
                "OccurredAt": time(since.as_ref().or(self.event.time.as_ref())),
                "DueDateTime": null,
            }
        });
        ("CFX.ResourcePerformance.FaultOccurred", body)
    }

    fn order(&self) -> Option<Value> {
        let order = &self.event.order;
        (!order.is_empty()).then(|| json!({ "WorkOrderId": order, "Batch": null }))
    }
}

/// Structures/UnitPosition.cs: a device is one unit, and no part of a panel.
fn unit(device: &str, status: &str) -> Value {
    json!({
        "UnitIdentifier": device,
        "PositionNumber": 1,
        "PositionName": null,
        "X": 0.0,
        "Y": 0.0,
        "Z": null,
        "Rotation": 0.0,
        "FlipX": false,
        "FlipY": false,
        "Status": status,
    })
}
