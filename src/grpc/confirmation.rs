//! Confirmations: which certificate is meant, and whether it is the one that was issued.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    limits::PeerLimits,
    request_error::RequestError,
    status::{self, RefusedItem},
};
use crate::{
    committer::Committer,
    fairness::FairShare,
    issuer::{IssueError, SHARE},
    ledger::{Actor, Record, Records},
    proto,
    quote::quoted,
    serial::SerialNumber,
    x509::Certificate,
};

/// The most confirmations that one peer may have at the committer.
const AT_ONCE: usize = 256;

/// Confirms certificates.
pub(super) struct Confirmations {
    committer: Committer,
    records: Arc<dyn Records>,
    /// The peers' shares of the committer.
    turns: Arc<FairShare>,
}

/// How a request names a certificate.
pub(super) enum Named {
    Serial(Bytes),
    Device(String),
    ReadBack(proto::ReadBack),
}

impl Named {
    /// All that a request names, in the order of the answers.
    pub(super) fn all(request: proto::ConfirmRequest) -> Vec<Named> {
        let proto::ConfirmRequest { serial_numbers, device_ids, read_back } = request;
        let serial_numbers = serial_numbers.into_iter().map(Named::Serial);
        let devices = device_ids.into_iter().map(Named::Device);
        serial_numbers.chain(devices).chain(read_back.into_iter().map(Named::ReadBack)).collect()
    }
}

impl Confirmations {
    pub(super) fn new(committer: Committer, records: Arc<dyn Records>) -> Self {
        Confirmations { committer, records, turns: FairShare::new(SHARE, AT_ONCE) }
    }

    /// Confirms one certificate, in a turn of the peer.
    pub(super) async fn confirm(
        &self,
        peer: &PeerLimits,
        actor: &Actor,
        profiles: Option<Arc<BTreeSet<String>>>,
        named: Named,
    ) -> proto::ConfirmResult {
        let _turn = self.turns.turn(peer.name()).await;
        let (given, device_id) = match &named {
            Named::Serial(serial_number) => (serial_number.clone(), String::new()),
            Named::Device(device) => (Bytes::new(), device.clone()),
            Named::ReadBack(read_back) => (Bytes::new(), read_back.device_id.clone()),
        };
        let (serial_number, confirmed) = match self.find(named).await {
            Ok(serial) => {
                let confirmed = self.committer.confirm(actor.clone(), serial, profiles).await;
                (serial.as_bytes().to_vec().into(), confirmed.map_err(RequestError::from))
            }
            Err(error) => (given, Err(error)),
        };
        let found = proto::ConfirmResult { serial_number, device_id, ..proto::ConfirmResult::default() };
        match confirmed.err().map(|error| status::refused_item(&error)) {
            None => found,
            Some(RefusedItem { status, reason, retry_after }) => {
                peer.refused(reason, &status.message);
                proto::ConfirmResult { error: Some(status), reason: reason.to_owned(), retry_after, ..found }
            }
        }
    }

    /// The serial number of the certificate that is meant.
    async fn find(&self, named: Named) -> Result<SerialNumber, RequestError> {
        let serial =
            |octets: &[u8]| SerialNumber::try_from(octets).map_err(|error| RequestError::Invalid(error.to_string()));
        match named {
            Named::Serial(octets) => serial(&octets),
            Named::Device(device) => {
                let id = device.clone();
                let record = self.read(move |records| records.by_device(&id)).await?;
                record.map(|record| record.serial_number).ok_or(RequestError::DeviceUnknown(device))
            }
            Named::ReadBack(proto::ReadBack { certificate, device_id }) => {
                let parsed = Certificate::from_der(&certificate).map_err(|error| {
                    RequestError::OtherCertificate(format!("what was read back is no certificate: {error}"))
                })?;
                let serial = serial(&parsed.serial_number).map_err(|_| not_issued(&device_id))?;
                let record = self.read(move |records| records.by_serial_number(&serial)).await?;
                let record = record.ok_or_else(|| not_issued(&device_id))?;
                check_read_back(&record, &certificate, &device_id)?;
                Ok(serial)
            }
        }
    }

    /// Looks up a record, which may have to be read from the disk.
    async fn read(
        &self,
        read: impl FnOnce(&dyn Records) -> Result<Option<Record>, crate::ledger::LedgerError> + Send + 'static,
    ) -> Result<Option<Record>, RequestError> {
        let records = Arc::clone(&self.records);
        let found = tokio::task::spawn_blocking(move || read(&*records)).await;
        let found = found.map_err(|_| RequestError::from(IssueError::Internal))?;
        found.map_err(|error| {
            tracing::error!(%error, "a record to be confirmed could not be read");
            RequestError::Storage(Arc::new(error))
        })
    }
}

fn check_read_back(record: &Record, certificate: &Bytes, device_id: &str) -> Result<(), RequestError> {
    let (serial, device) = (&record.serial_number, quoted(&record.holder.device));
    if record.issued.as_ref().is_none_or(|issued| issued.certificate != *certificate) {
        let message = format!(
            "what was read back has the serial number {serial} of the device {device}, and is not the certificate that was \
             issued: some of its octets differ"
        );
        return Err(RequestError::OtherCertificate(message));
    }
    if !device_id.is_empty() && record.holder.device != device_id {
        let message =
            format!("what was read back from {} is the certificate {serial} of the device {device}", quoted(device_id));
        return Err(RequestError::OtherCertificate(message));
    }
    Ok(())
}

fn not_issued(device_id: &str) -> RequestError {
    let from = if device_id.is_empty() { String::new() } else { format!(" from {}", quoted(device_id)) };
    RequestError::OtherCertificate(format!("what was read back{from} is a certificate that was not issued here"))
}
