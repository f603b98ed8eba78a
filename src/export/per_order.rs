//! The exports of orders, which earlier versions cut: their files are written as those versions wrote them. New batches
//! are those of destinations.
//!
//! An export comes as a stream and is written as it comes, to temporary files beside their destination; only when all
//! of it was written and is on stable storage do the files get their names. They are there whole or not at all.

use std::{collections::HashMap, path::Path};

use crate::{
    client::MarkedChannel,
    failure::Failure,
    id::OrderId,
    proto::{Export, GetExportRequest, ListExportsRequest, ListIssuersRequest, admin_client::AdminClient},
};

pub use self::{
    batch::Batch,
    error::{ExportError, Unfit},
    format::Format,
    staged::WrittenFile,
};

mod aws_bulk;
mod batch;
mod error;
mod format;
mod jsonl;
mod staged;

/// The exports of an order, the oldest first.
///
/// # Errors
/// [`ExportError::Daemon`] or [`ExportError::OrderId`].
pub async fn list(channel: impl Into<MarkedChannel>, order: &str) -> Result<Vec<Export>, ExportError> {
    check_order(order)?;
    let request = ListExportsRequest { order: order.to_owned() };
    Ok(AdminClient::new(channel.into()).list_exports(request).await.map_err(Failure::from)?.into_inner().exports)
}

/// Writes an export to files in `out`, which is created if it does not exist: its content never changes.
///
/// # Errors
/// [`ExportError`]; then no file was written.
pub async fn get(
    channel: impl Into<MarkedChannel>,
    export: &Export,
    format: &Format,
    out: &Path,
) -> Result<Batch, ExportError> {
    let mut admin = AdminClient::new(channel.into());
    let records =
        admin.get_export(GetExportRequest { id: export.id.clone() }).await.map_err(Failure::from)?.into_inner();
    let issuers = match format {
        Format::Jsonl => HashMap::new(),
        Format::AwsBulk { .. } => {
            let known = admin.list_issuers(ListIssuersRequest {}).await.map_err(Failure::from)?;
            let issuers = known.into_inner().issuers.into_iter().filter_map(|recorded| recorded.issuer);
            issuers.filter_map(|issuer| Some((issuer.id, issuer.chain.into_iter().next()?))).collect()
        }
    };
    batch::write(records, &issuers, export, format, out).await
}

fn check_order(order: &str) -> Result<(), ExportError> {
    if OrderId::check(order).is_ok() {
        return Ok(());
    }
    Err(ExportError::OrderId(order.to_owned()))
}

#[cfg(test)]
mod tests {
    use crate::{
        hash::sha256,
        proto::{Record, RecordState},
    };

    /// A record whose certificate is short enough to be read here.
    pub(super) fn record(device_id: &str) -> Record {
        Record {
            serial_number: vec![0x0a; 20].into(),
            state: RecordState::Issued.into(),
            device_id: device_id.into(),
            order: "order-1".into(),
            profile: "device".into(),
            issuer: "ca".into(),
            station: "line1/tester3".into(),
            key_sha256: vec![1; 32].into(),
            reserved_at: None,
            issued_at: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 5 }),
            certificate: vec![0x30, 0x00].into(),
            certificate_id: hex::encode(sha256(&[0x30, 0x00])),
            ..Record::default()
        }
    }
}
