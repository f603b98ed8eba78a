//! Batches as people and programs read them.

use birthmark::proto::{Batch, BatchPlan, BatchResults, UnfitDevice, rfc3339};
use serde_json::{Value, json};

use super::super::table;

fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.and_then(rfc3339)
}

fn hex_or_null(octets: &[u8]) -> Option<String> {
    (!octets.is_empty()).then(|| hex::encode(octets))
}

fn unfit_to_json(unfit: &[UnfitDevice]) -> Vec<Value> {
    let one = |unfit: &UnfitDevice| {
        json!({
            "device_id": unfit.device_id,
            "serial_number": hex::encode(&unfit.serial_number),
            "reason": unfit.reason,
        })
    };
    unfit.iter().map(one).collect()
}

pub(super) fn batch_to_json(batch: &Batch) -> Value {
    let results = batch.results.as_ref().map(|BatchResults { sha256, registered, already, withdrawn, failed }| {
        json!({
            "sha256": hex::encode(sha256),
            "registered": registered,
            "already": already,
            "withdrawn": withdrawn,
            "failed": failed,
        })
    });
    json!({
        "id": batch.id,
        "destination": batch.destination,
        "number": batch.number,
        "format": batch.format,
        "first": batch.first,
        "end": batch.end,
        "certificates": batch.certificates,
        "withdrawn": batch.withdrawn,
        "unfit": unfit_to_json(&batch.unfit),
        "created_at": time(batch.created_at.as_ref()),
        "created_by": batch.created_by,
        "manifest_sha256": hex_or_null(&batch.manifest_sha256),
        "acknowledged_at": time(batch.acknowledged_at.as_ref()),
        "acknowledged_by": batch.acknowledged_at.map(|_| &batch.acknowledged_by),
        "results": results,
    })
}

/// What was cut, for people.
pub(super) fn summary(batch: &Batch) -> String {
    let Batch { id, certificates, withdrawn, format, .. } = batch;
    format!("batch {id} ({format}): {certificates} certificates, {withdrawn} withdrawn\n{}", unfit_lines(&batch.unfit))
}

fn unfit_lines(unfit: &[UnfitDevice]) -> String {
    if unfit.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = unfit.iter().map(|unfit| vec![format!("  {}", unfit.device_id), unfit.reason.clone()]).collect();
    let devices = table::columns(&["  DEVICE", "WHY"], &rows);
    format!("\nleft out, to be tried again in the next batch: {}\n\n{devices}", unfit.len())
}

pub(super) fn plan_to_json(plan: &BatchPlan) -> Value {
    let withdrawals = plan.withdrawals.iter().map(|withdrawal| {
        json!({
            "device_id": withdrawal.device_id,
            "serial_number": hex::encode(&withdrawal.serial_number),
            "reason": withdrawal.reason,
            "batch": withdrawal.batch,
        })
    });
    json!({
        "destination": plan.destination,
        "number": plan.number,
        "first": plan.first,
        "end": plan.end,
        "certificates": plan.certificates,
        "again": plan.again,
        "withdrawn": plan.withdrawn,
        "withdrawals": withdrawals.collect::<Vec<_>>(),
        "unfit": unfit_to_json(&plan.unfit),
    })
}

/// What a create would do, for people.
pub(super) fn plan_summary(plan: &BatchPlan) -> String {
    let BatchPlan { destination, number, first, end, certificates, again, withdrawn, .. } = plan;
    let mut text = table::fields(&[
        ("next batch", Some(format!("{destination}.{number:04}"))),
        ("entries", Some(format!("{} to {end} of the journal", first + 1))),
        ("certificates", Some(certificates.to_string())),
        ("of these again", (*again > 0).then(|| again.to_string())),
        ("withdrawals", Some(withdrawn.to_string())),
        ("left out", Some(plan.unfit.len().to_string())),
    ]);
    if !plan.withdrawals.is_empty() {
        let row = |found: &birthmark::proto::PlannedWithdrawal| {
            vec![format!("  {}", found.device_id), found.reason.clone(), found.batch.clone()]
        };
        let rows: Vec<_> = plan.withdrawals.iter().map(row).collect();
        text.push_str(&format!("\nto be withdrawn:\n\n{}", table::columns(&["  DEVICE", "WHY", "WENT OUT IN"], &rows)));
    }
    text + &unfit_lines(&plan.unfit)
}

const BATCHES: [&str; 9] =
    ["BATCH", "FORMAT", ">CERTIFICATES", ">WITHDRAWN", ">UNFIT", "CREATED", "BY", "ACKNOWLEDGED", ">FAILED"];

/// All batches, for spreadsheets.
pub(super) fn batches_as_csv(batches: &[Batch]) -> String {
    table::csv_table(&BATCHES, &rows(batches))
}

fn rows(batches: &[Batch]) -> Vec<Vec<String>> {
    batches
        .iter()
        .map(|batch| {
            let acknowledged = time(batch.acknowledged_at.as_ref()).unwrap_or_default();
            let failed = batch.results.as_ref().map(|results| results.failed.to_string()).unwrap_or_default();
            vec![
                batch.id.clone(),
                batch.format.clone(),
                batch.certificates.to_string(),
                batch.withdrawn.to_string(),
                batch.unfit.len().to_string(),
                time(batch.created_at.as_ref()).unwrap_or_default(),
                batch.created_by.clone(),
                acknowledged,
                failed,
            ]
        })
        .collect()
}

/// All batches, for people.
pub(super) fn batches(batches: &[Batch]) -> String {
    let mut text = table::columns(&BATCHES, &rows(batches));
    for batch in batches.iter().filter(|batch| !batch.unfit.is_empty()) {
        text.push_str(&format!("\n{}", batch.id));
        text.push_str(&unfit_lines(&batch.unfit));
    }
    text
}
