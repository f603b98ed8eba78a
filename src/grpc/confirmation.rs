//! Confirmations: which certificate is meant, and whether it is the one that was issued.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    limits::PeerLimits,
    request_error::RequestError,
    status::{self, RefusedItem},
};
use crate::{
    committer::{CommitError, Committer},
    fairness::FairShare,
    issuer::{IssueError, SHARE},
    ledger::{Actor, LedgerError, Record, Records, caught_up},
    proto,
    quote::quoted,
    serial::SerialNumber,
    x509::Certificate,
};

/// The most confirmations that one peer may have at the committer.
const AT_ONCE: usize = 256;

/// How many certificates are looked up in one turn, by one thread.
const LOOKED_UP: usize = 32;

/// How many such turns one peer has at once while others have some, and while none has.
const LOOKUPS: usize = 2;
const LOOKUPS_ALONE: usize = 8;

/// Confirms certificates.
pub(super) struct Confirmations {
    committer: Committer,
    records: Arc<dyn Records>,
    /// The peers' shares of the threads that look up.
    lookups: Arc<FairShare>,
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

    /// What an answer says of it.
    fn echoed(&self) -> proto::ConfirmResult {
        let (serial_number, device_id) = match self {
            Named::Serial(serial_number) => (serial_number.clone(), String::new()),
            Named::Device(device) => (Bytes::new(), device.clone()),
            Named::ReadBack(read_back) => (Bytes::new(), read_back.device_id.clone()),
        };
        proto::ConfirmResult { serial_number, device_id, ..proto::ConfirmResult::default() }
    }
}

impl Confirmations {
    pub(super) fn new(committer: Committer, records: Arc<dyn Records>) -> Self {
        let (lookups, turns) = (FairShare::new(LOOKUPS, LOOKUPS_ALONE), FairShare::new(SHARE, AT_ONCE));
        Confirmations { committer, records, lookups, turns }
    }

    /// Confirms all of these certificates, each for itself; the answers are in the order of what was named.
    ///
    /// Some are looked up while others are confirmed, many at once, so that they share a sync of the journal.
    pub(super) async fn confirm(
        &self,
        peer: &PeerLimits,
        actor: &Actor,
        profiles: Option<&Arc<BTreeSet<String>>>,
        named: Vec<Named>,
    ) -> Vec<proto::ConfirmResult> {
        let mut named = named.into_iter().peekable();
        let mut parts = Vec::new();
        while named.peek().is_some() {
            let part = named.by_ref().take(LOOKED_UP).collect();
            parts.push(self.confirm_part(peer, actor, profiles, part));
        }
        futures_util::future::join_all(parts).await.into_iter().flatten().collect()
    }

    async fn confirm_part(
        &self,
        peer: &PeerLimits,
        actor: &Actor,
        profiles: Option<&Arc<BTreeSet<String>>>,
        named: Vec<Named>,
    ) -> Vec<proto::ConfirmResult> {
        let answers: Vec<_> = named.iter().map(Named::echoed).collect();
        let named = Arc::new(named);
        let mut found = self.look_up(peer, Arc::clone(&named)).await;
        let missed = |found: &Result<Found, RequestError>| found.as_ref().is_err_and(is_unknown);
        if self.records.looked().is_some() && found.iter().any(missed) {
            // Another daemon may have issued it just now.
            match caught_up(&*self.records).await {
                Ok(()) => found = self.look_up(peer, Arc::clone(&named)).await,
                Err(error) => {
                    let error = Arc::new(error);
                    let missed = found.iter_mut().filter(|found| missed(found));
                    missed.for_each(|found| *found = Err(RequestError::Storage(Arc::clone(&error))));
                }
            }
        }
        // The task has ended early only if it panicked.
        let found = found.into_iter().chain(std::iter::repeat_with(|| Err(IssueError::Internal.into())));
        let confirmed = answers.into_iter().zip(found).zip(named.iter()).map(|((answer, found), named)| async move {
            let confirmed = match found {
                Ok(found) => {
                    let (serial_number, confirmed) = self.confirm_newest(peer, actor, profiles, found, named).await;
                    (serial_number.as_bytes().to_vec().into(), confirmed)
                }
                Err(error) => (answer.serial_number.clone(), Err(error)),
            };
            answered(peer, answer, confirmed)
        });
        futures_util::future::join_all(confirmed).await
    }

    /// Confirms what was found; if it was named by its device, and may not be confirmed any more, the device's newer one.
    async fn confirm_newest(
        &self,
        peer: &PeerLimits,
        actor: &Actor,
        profiles: Option<&Arc<BTreeSet<String>>>,
        found: Found,
        named: &Named,
    ) -> (SerialNumber, Result<(), RequestError>) {
        let confirm = async |Found { serial_number, device }: Found| {
            let _turn = self.turns.turn(peer.name()).await;
            let confirmed = self.committer.confirm(actor.clone(), serial_number, device, profiles.cloned()).await;
            (serial_number, confirmed.map_err(RequestError::from))
        };
        let (serial_number, confirmed) = confirm(found).await;
        if let (Named::Device(device), Err(RequestError::Commit(CommitError::Refused(_)))) = (named, &confirmed)
            && self.records.looked().is_some()
        {
            // It was decided behind what other daemons wrote, who may have issued the device a newer one just now.
            let again = self.look_up(peer, Arc::new(vec![Named::Device(device.clone())])).await.pop();
            match again {
                Some(Ok(newer)) if newer.serial_number != serial_number => return confirm(newer).await,
                Some(Err(error)) => return (serial_number, Err(error)),
                _ => {}
            }
        }
        (serial_number, confirmed)
    }

    /// Finds what is named in what is known here, in its order.
    async fn look_up(&self, peer: &PeerLimits, named: Arc<Vec<Named>>) -> Vec<Result<Found, RequestError>> {
        let records = Arc::clone(&self.records);
        let lookup = self.lookups.turn(peer.name()).await;
        let find = move || {
            // Held to the end, whatever becomes of the call.
            let _lookup = lookup;
            named.iter().map(|named| find(&*records, named)).collect()
        };
        tokio::task::spawn_blocking(find).await.unwrap_or_default()
    }
}

/// The answer, of which `answer` has what was named.
fn answered(
    peer: &PeerLimits,
    answer: proto::ConfirmResult,
    (serial_number, confirmed): (Bytes, Result<(), RequestError>),
) -> proto::ConfirmResult {
    let answer = proto::ConfirmResult { serial_number, ..answer };
    let Some(error) = confirmed.err() else { return answer };
    let RefusedItem { status, reason, retry_after } = status::refused_item(&error);
    peer.refused(reason, &status.message);
    proto::ConfirmResult { error: Some(status), reason: reason.to_owned(), retry_after, ..answer }
}

/// A certificate that was named.
struct Found {
    serial_number: SerialNumber,
    /// By which its record is found at once.
    device: Option<String>,
}

/// Whether it is refused for good because it is not known here.
fn is_unknown(error: &RequestError) -> bool {
    matches!(error, RequestError::DeviceUnknown(_) | RequestError::OtherCertificate(_))
}

/// The certificate that is meant. The records may have to be read from the disk: here, and not where others wait for it.
fn find(records: &dyn Records, named: &Named) -> Result<Found, RequestError> {
    let serial =
        |octets: &[u8]| SerialNumber::try_from(octets).map_err(|error| RequestError::Invalid(error.to_string()));
    let read = |record: Result<Option<Record>, LedgerError>| {
        record.map_err(|error| {
            tracing::error!(%error, "a record to be confirmed could not be read");
            RequestError::Storage(Arc::new(error))
        })
    };
    match named {
        Named::Serial(octets) => {
            let serial_number = serial(octets)?;
            // What cannot be read of it may not be needed to confirm it.
            let record = read(records.by_serial_number(&serial_number)).ok().flatten();
            Ok(Found { serial_number, device: record.map(|record| record.holder.device) })
        }
        Named::Device(device) => {
            let record = read(records.by_device(device))?;
            let Some(record) = record else { return Err(RequestError::DeviceUnknown(device.clone())) };
            Ok(Found { serial_number: record.serial_number, device: Some(device.clone()) })
        }
        Named::ReadBack(proto::ReadBack { certificate, device_id }) => {
            let parsed = Certificate::from_der(certificate).map_err(|error| {
                RequestError::OtherCertificate(format!("what was read back is no certificate: {error}"))
            })?;
            let serial_number = serial(&parsed.serial_number).map_err(|_| not_issued(device_id))?;
            let record = read(records.by_serial_number(&serial_number))?.ok_or_else(|| not_issued(device_id))?;
            check_read_back(&record, certificate, device_id)?;
            Ok(Found { serial_number, device: Some(record.holder.device) })
        }
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
