//! An entry of the journal as JSON, with its place.

use birthmark::ledger::{entry_to_json, journal::ScannedFrame};
use serde_json::Value;

/// All that an entry states, and where it is.
pub(super) fn frame_to_json(frame: &ScannedFrame) -> Value {
    let mut entry = entry_to_json(frame.sequence, &frame.entry);
    entry["chain_hash"] = hex::encode(frame.chain).into();
    entry["file"] = format!("{:08}.journal", frame.file).into();
    entry["offset"] = frame.offset.into();
    entry
}
