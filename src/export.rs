//! Batches of records in the shapes that platforms import.
//!
//! A batch comes as a stream and is written as it comes, to temporary files beside their destination; only when all
//! of it was written and is on stable storage do the files get their names. A batch is there whole or not at all.

use std::{collections::HashMap, path::Path};

use tonic::transport::Channel;

use self::batch::create_folder;
use crate::{
    failure::Failure,
    id::OrderId,
    proto::{
        CreateExportRequest, Export, GetExportRequest, ListExportsRequest, ListIssuersRequest,
        admin_client::AdminClient,
    },
};

pub use self::{
    batch::Batch,
    error::{ExportError, Unfit},
    format::Format,
    staged::WrittenFile,
};

mod aws_bulk;
mod batch;
pub mod bundle;
pub mod certificate;
mod error;
mod format;
mod formats;
mod jsonl;
pub mod jws;
mod keys;
pub mod manifest;
pub mod push;
#[cfg(test)]
mod sample;
pub mod settings;
pub mod sink;
mod staged;
mod template;
pub mod verify;

/// Lets the daemon create the next batch of an order, and writes it to files in `out`, which is created if it does not
/// exist. None if there is nothing new to export.
///
/// # Errors
/// [`ExportError`]; then no file was written. [`ExportError::Created`] if the export exists all the same.
pub async fn create(
    channel: Channel,
    order: &str,
    format: &Format,
    out: &Path,
) -> Result<Option<(Export, Batch)>, ExportError> {
    check_order(order)?;
    // Checked before the batch exists: its certificates are in no later one.
    format.check()?;
    create_folder(out)?;
    let mut admin = AdminClient::new(channel.clone());
    let export = match admin.create_export(CreateExportRequest { order: order.to_owned() }).await.map_err(Failure::from)
    {
        Ok(export) => export.into_inner(),
        Err(failure) if failure.reason.as_deref() == Some("NOTHING_TO_EXPORT") => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    match get(channel, &export, format, out).await {
        Ok(batch) => Ok(Some((export, batch))),
        Err(cause) => Err(ExportError::Created { id: export.id, cause: Box::new(cause) }),
    }
}

/// The exports of an order, the oldest first.
///
/// # Errors
/// [`ExportError::Daemon`] or [`ExportError::OrderId`].
pub async fn list(channel: Channel, order: &str) -> Result<Vec<Export>, ExportError> {
    check_order(order)?;
    let request = ListExportsRequest { order: order.to_owned() };
    Ok(AdminClient::new(channel).list_exports(request).await.map_err(Failure::from)?.into_inner().exports)
}

/// The exports of an order that are not acknowledged and whose files are not all in `out`: they may be elsewhere, or
/// they were lost between the batch and its files.
///
/// # Errors
/// As [`list`].
pub async fn without_files(
    channel: Channel,
    order: &str,
    format: &Format,
    out: &Path,
) -> Result<Vec<Export>, ExportError> {
    let mut exports = list(channel, order).await?;
    let is_there = |name: String| out.join(name).symlink_metadata().is_ok();
    exports.retain(|export| export.acknowledged_at.is_none() && !format.names(&export.id).into_iter().all(is_there));
    Ok(exports)
}

/// Writes an export to files in `out`, which is created if it does not exist: its content never changes.
///
/// # Errors
/// [`ExportError`]; then no file was written.
pub async fn get(channel: Channel, export: &Export, format: &Format, out: &Path) -> Result<Batch, ExportError> {
    let mut admin = AdminClient::new(channel);
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
