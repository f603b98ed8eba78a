//! Exports of orders, which versions before there were destinations have cut.

use std::path::Path;

use anyhow::ensure;
use birthmark::{
    export::per_order::{self, Batch, Format},
    ledger::ExportId,
    proto::{Export, rfc3339},
};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::super::{daemon::DaemonArgs, print, print_json, table};

/// The shape of the files of an export of an order.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shape {
    /// EXPORT.jsonl: a JSON object for each certificate
    Jsonl,
    /// EXPORT.aws-bulk.jsonl and EXPORT.provisioning-template.json: AWS IoT bulk registration
    AwsBulk,
}

impl Shape {
    fn format(self, policy: Option<&str>) -> Format {
        match self {
            Shape::Jsonl => Format::Jsonl,
            Shape::AwsBulk => Format::AwsBulk { policy: policy.unwrap_or("device").to_owned() },
        }
    }
}

pub(super) async fn list(daemon: &DaemonArgs, order: &str, csv: bool) -> anyhow::Result<()> {
    let exports = per_order::list(daemon.channel().await?, order).await?;
    if daemon.json {
        return print_json(&exports.iter().map(export_to_json).collect());
    }
    if exports.is_empty() && !csv {
        return print(&format!("no export was cut of the order {order} alone\n"));
    }
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339).unwrap_or_default();
    let rows: Vec<_> = exports
        .iter()
        .map(|export| {
            let mut row = vec![export.id.clone(), export.certificates.to_string()];
            row.extend([time(&export.created_at), export.created_by.clone()]);
            row.extend([time(&export.acknowledged_at), export.acknowledged_by.clone()]);
            row
        })
        .collect();
    let headings = ["EXPORT", ">CERTIFICATES", "CREATED", "BY", "ACKNOWLEDGED", "ACKNOWLEDGED BY"];
    print(&table::rendered(csv, &headings, &rows))
}

/// Writes the files of one export of an order, or of all.
pub(super) async fn get(
    daemon: &DaemonArgs,
    id: Option<ExportId>,
    order: &str,
    (shape, policy): (Shape, Option<&str>),
    out: &Path,
) -> anyhow::Result<()> {
    let format = shape.format(policy);
    let channel = daemon.channel().await?;
    let mut exports = per_order::list(channel.clone(), order).await?;
    if let Some(id) = id {
        exports.retain(|export| export.number == id.number);
        ensure!(
            !exports.is_empty(),
            "there is no export \"{id}\"; \"birthmark export list --order {order}\" lists them"
        );
    }
    let mut batches = Vec::new();
    for export in exports {
        let batch = per_order::get(channel.clone(), &export, &format, out).await?;
        batches.push((export, batch));
    }
    if daemon.json {
        return print_json(&batches.iter().map(|(export, batch)| batch_to_json(export, batch)).collect());
    }
    if batches.is_empty() {
        return print(&format!("no export was cut of the order {order} alone\n"));
    }
    let summaries: Vec<_> = batches.iter().map(|(export, batch)| summary(export, batch)).collect();
    print(&summaries.join("\n"))
}

/// What was written, for people.
fn summary(export: &Export, batch: &Batch) -> String {
    let rows: Vec<_> = batch
        .files
        .iter()
        .map(|file| vec![file.path.display().to_string(), file.size.to_string(), hex::encode(file.sha256)])
        .collect();
    let files = table::columns(&["FILE", ">BYTES", "SHA-256"], &rows);
    format!("export {}: {} certificates of order {}\n\n{files}", export.id, batch.certificates, export.order)
}

fn batch_to_json(export: &Export, batch: &Batch) -> Value {
    let files = batch.files.iter().map(|file| {
        json!({ "path": file.path.display().to_string(), "size": file.size, "sha256": hex::encode(file.sha256) })
    });
    json!({
        "id": export.id,
        "order": export.order,
        "certificates": batch.certificates,
        "files": files.collect::<Vec<_>>(),
    })
}

fn export_to_json(export: &Export) -> Value {
    json!({
        "id": export.id,
        "order": export.order,
        "number": export.number,
        "certificates": export.certificates,
        "created_at": export.created_at.as_ref().and_then(rfc3339),
        "created_by": export.created_by,
        "acknowledged_at": export.acknowledged_at.as_ref().and_then(rfc3339),
        "acknowledged_by": export.acknowledged_at.map(|_| &export.acknowledged_by),
    })
}
