//! Events as plain JSON.

use serde_json::{Value, json};

use crate::proto::{self, WatchReply};

/// An event, with all of its fields.
pub fn to_json(event: &WatchReply) -> Value {
    // Six decimals always, so that times sort as text.
    let time = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().and_then(|time| proto::moment(time).ok()).map(|time| format!("{time:.6}"))
    };
    json!({
        "sequence": event.sequence,
        "time": time(&event.time),
        "actor": event.actor,
        "event": event.event,
        "serial_number": hex::encode(&event.serial_number),
        "device_id": event.device_id,
        "order": event.order,
        "profile": event.profile,
        "reason": event.reason,
        "peer": event.peer,
        "device_ids": event.device_ids,
        "count": event.count,
        "scope": event.scope,
        "since": time(&event.since),
        "dropped": event.dropped,
    })
}
